//go:build !unix

package main

import "net"

// receiveBufferSize can't be told here.
func receiveBufferSize(*net.UDPConn) (size int, ok bool) { return 0, false }
