package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"
)

// receiveBuffer is what the socket should hold while the process is busy, in
// bytes: some 5,000 full packets. With the kernel's usual 208 KiB, bursts lose
// packets and the slowest requests wait for retransmission. The QUIC stack asks
// for it; what it got is looked at here.
const receiveBuffer = 7 << 20

// listenUDP opens the QUIC listener's socket.
func listenUDP(address string) (*net.UDPConn, error) {
	resolved, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, &coded{exitConfig, fmt.Errorf("--listen %s can't be resolved: give an address of this machine, such as 0.0.0.0:5001 (%w)", address, err)}
	}
	socket, err := net.ListenUDP("udp", resolved)
	if err != nil {
		return nil, listenError("--listen", "UDP", address, err)
	}
	return socket, nil
}

// checkReceiveBuffer warns of a socket that will lose packets under load.
func checkReceiveBuffer(socket *net.UDPConn, logger *slog.Logger) {
	if size, ok := receiveBufferSize(socket); ok && size < receiveBuffer {
		logger.Warn("the UDP receive buffer is small, so bursts of packets will be lost: raise it with sysctl -w net.core.rmem_max=7340032",
			slog.Int("bytes", size), slog.Int("wanted", receiveBuffer))
	}
}

// listenError says why a socket can't be had.
func listenError(flag, network, address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return &coded{exitBusy, fmt.Errorf("%s port of %s %s is in use by another process: stop that one or choose another port", network, flag, address)}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return &coded{exitConfig, fmt.Errorf("%s %s is not an address of this machine: use one of its own, or 0.0.0.0 for all", flag, address)}
	case errors.Is(err, os.ErrPermission):
		return &coded{exitConfig, fmt.Errorf("this user may not listen on %s %s: choose a port above 1023 or give the program CAP_NET_BIND_SERVICE", flag, address)}
	}
	return &coded{exitFailure, fmt.Errorf("can't listen on %s %s: check the network (%w)", flag, address, err)}
}
