// Package server serves the method table over QUIC: listener, connection life
// cycle, guard, and the binding of each method to its handler.
package server
