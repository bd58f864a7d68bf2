//go:build !unix

package main

// restrictFiles does nothing where files have no modes.
func restrictFiles() {}
