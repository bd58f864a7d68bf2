package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/term"
	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/bench"
	"quicprochat/rpc/client"
	"quicprochat/rpc/echo"
)

// whereabouts is the line that the echo process prints when it listens.
type whereabouts struct {
	Addr string `json:"addr"`
	// CA is the certificate to pin, DER.
	CA []byte `json:"ca"`
}

type benchServeEchoCommand struct{}

// Run serves until stdin ends: the parent's death ends it too.
func (benchServeEchoCommand) Run(ctx context.Context, a *app) error {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, a.stdin)
		cancel()
	}()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	certificate, err := echo.Certificate()
	if err != nil {
		return err
	}
	server, err := echo.Listen(socket, certificate, enqueueAnswer())
	if err != nil {
		return err
	}
	line := whereabouts{Addr: socket.LocalAddr().String(), CA: certificate.Certificate[0]}
	if err := json.NewEncoder(a.stdout).Encode(line); err != nil {
		return err
	}
	return errors.Join(server.Serve(ctx), server.Close())
}

// enqueueAnswer has as many bytes as the server's EnqueueResponse.
func enqueueAnswer() []byte {
	answer, err := proto.Marshal(&pb.EnqueueResponse{MessageId: make([]byte, 16), ServerTimeMs: uint64(time.Now().UnixMilli())})
	if err != nil {
		panic(err) // a message of constants
	}
	return answer
}

// startEcho runs the echo server as a second process, so that both share the
// machine as client and server do, and connects to it.
func startEcho(ctx context.Context, connections int) (target *bench.Target, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	command := exec.CommandContext(ctx, self, "bench", "serve-echo")
	command.Stderr = os.Stderr
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := command.Start(); err != nil {
		return nil, nil, fmt.Errorf("start the echo server: %w", err)
	}
	end := func() {
		_ = stdin.Close()
		_ = command.Wait()
	}
	var at whereabouts
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &at)
	}
	if err == nil {
		target, err = bench.OpenEcho(ctx, client.Config{Addr: at.Addr, CACert: at.CA}, connections)
	}
	if err != nil {
		end()
		return nil, nil, fmt.Errorf("echo server: %w", err)
	}
	return target, func() { _ = target.Close(); end() }, nil
}

func isTerminal(file *os.File) bool { return term.IsTerminal(int(file.Fd())) }
