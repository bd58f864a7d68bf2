package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"quicprochat/rpc/server"
	"quicprochat/rpc/transparency"
)

// publicServer shows the log to strangers (--kt-listen). The zero value shows
// nothing.
type publicServer struct {
	listener net.Listener
	logger   *slog.Logger
	server   *transparency.Server // nil until the node has started
}

// openPublic listens on address, or does nothing when it is empty. Whoever
// connects before the node has started waits.
func openPublic(address string, logger *slog.Logger) (*publicServer, error) {
	if address == "" {
		return &publicServer{}, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, listenError("--kt-listen", "TCP", address, err)
	}
	return &publicServer{listener: listener, logger: logger}, nil
}

func (s *publicServer) serve(handler http.Handler) {
	if s.listener != nil {
		s.server = transparency.Serve(s.listener, handler, s.logger)
	}
}

// announcement says where the log is shown and with which key it is checked.
func (s *publicServer) announcement(node *server.Node) string {
	if s.listener == nil {
		return ""
	}
	text := fmt.Sprintf("log shown at http://%s/checkpoint\n", s.listener.Addr())
	if key, err := os.ReadFile(node.VerifierKeyFile()); err == nil {
		text += fmt.Sprintf("auditors pin %s (qpc-audit --vkey %s)\n", strings.TrimSpace(string(key)), node.VerifierKeyFile())
	}
	return text
}

// stop ends serving: answers that are on their way finish within ctx.
func (s *publicServer) stop(ctx context.Context) error {
	if s.server == nil {
		return nil
	}
	return s.server.Shutdown(ctx)
}

// close frees the address, also after a start that failed.
func (s *publicServer) close() {
	if s.listener == nil {
		return
	}
	if s.server == nil {
		_ = s.listener.Close()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.stop(ctx)
}

// publicNode ends the public server before the node whose log it reads.
type publicNode struct {
	*server.Node
	public *publicServer
}

// Shutdown implements node.
func (n publicNode) Shutdown(ctx context.Context) error {
	return errors.Join(n.public.stop(ctx), n.Node.Shutdown(ctx))
}
