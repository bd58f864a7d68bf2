//go:build unix

package main

import (
	"net"

	"golang.org/x/sys/unix"
)

// receiveBufferSize is what the kernel gave the socket, in bytes; ok is false
// when it can't be told.
func receiveBufferSize(socket *net.UDPConn) (size int, ok bool) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, false
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		size, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
	})
	return size, err == nil && failed == nil
}
