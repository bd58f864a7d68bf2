// Package push keeps the connections that are bound to a device and sends them
// hints.
package push
