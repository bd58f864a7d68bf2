package main

import (
	"bufio"
	"context"
	"encoding/hex"
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

// echoAnswer says what the echo server answers: an EnqueueResponse, a page of
// messages, or bytes as they are.
type echoAnswer struct {
	Body    string `hidden:""` // hexadecimal
	Page    int    `hidden:""`
	Payload int    `hidden:""`
}

// bytes has as many bytes as the real server's answer.
func (e echoAnswer) bytes() ([]byte, error) {
	if len(e.Body) > 0 {
		return hex.DecodeString(e.Body)
	}
	if e.Page > 0 {
		return proto.Marshal(bench.PageAnswer(e.Page, e.Payload))
	}
	return proto.Marshal(&pb.EnqueueResponse{MessageId: make([]byte, 16), ServerTimeMs: uint64(time.Now().UnixMilli())})
}

type benchServeEchoCommand struct{ echoAnswer }

// Run serves until stdin ends: the parent's death ends it too.
func (cmd benchServeEchoCommand) Run(ctx context.Context, a *app) error {
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
	answer, err := cmd.bytes()
	if err != nil {
		return err
	}
	server, err := echo.Listen(socket, certificate, answer)
	if err != nil {
		return err
	}
	line := whereabouts{Addr: socket.LocalAddr().String(), CA: certificate.Certificate[0]}
	if err := json.NewEncoder(a.stdout).Encode(line); err != nil {
		return err
	}
	return errors.Join(server.Serve(ctx), server.Close())
}

// echoProcess is an echo server in a second process, so that both share the
// machine as client and server do.
type echoProcess struct {
	config client.Config
	pid    int
	stop   func()
}

func startEcho(ctx context.Context, answer echoAnswer) (*echoProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, self, "bench", "serve-echo",
		fmt.Sprintf("--page=%d", answer.Page), fmt.Sprintf("--payload=%d", answer.Payload), "--body="+answer.Body)
	command.Stderr = os.Stderr
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start the echo server: %w", err)
	}
	process := &echoProcess{pid: command.Process.Pid, stop: func() {
		_ = stdin.Close()
		_ = command.Wait()
	}}
	var at whereabouts
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &at)
	}
	if err != nil {
		process.stop()
		return nil, fmt.Errorf("echo server: %w", err)
	}
	process.config = client.Config{Addr: at.Addr, CACert: at.CA}
	return process, nil
}

// openEcho starts an echo server and connects to it.
func openEcho(ctx context.Context, connections int, answer echoAnswer) (target *bench.Target, stop func(), err error) {
	process, err := startEcho(ctx, answer)
	if err != nil {
		return nil, nil, err
	}
	target, err = bench.OpenEcho(ctx, process.config, connections)
	if err != nil {
		process.stop()
		return nil, nil, fmt.Errorf("echo server: %w", err)
	}
	return target, func() { _ = target.Close(); process.stop() }, nil
}

func isTerminal(file *os.File) bool { return term.IsTerminal(int(file.Fd())) }
