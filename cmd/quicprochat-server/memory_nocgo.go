//go:build !cgo

package main

// gcPercent is lower where Pebble has no other memory than the heap: memtables
// and caches, some 300 MB under load, count as live then, and four times as much
// garbage on top of them would help nobody.
const gcPercent = 100
