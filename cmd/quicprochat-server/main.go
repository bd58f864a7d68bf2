// Command quicprochat-server is the daemon: it reads its configuration, opens
// one UDP socket and lets rpc/server do the rest until it is told to stop.
//
//	flags ─┐
//	QPC_*  ├─► options ─► rpc/server.Boot ─► Node ─► Wait, Reload, Shutdown
//	default┘                                  ▲
//	            SIGTERM, SIGINT, SIGHUP ──────┘
//
// It owns configuration, the log on standard error, the registry of metrics,
// signals and exit codes; it decides nothing about messages. The command demo
// runs the daemon as a child process and shows what a user can rely on.
package main

import (
	"context"
	"os"
)

func main() {
	restrictFiles()
	tuneMemory(os.Environ())
	// The daemon looks at the socket itself and says what to do about it.
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	os.Exit(Run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
