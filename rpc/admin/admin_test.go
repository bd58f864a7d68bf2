package admin_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/admin"
	"quicprochat/rpc/client"
	"quicprochat/rpc/server"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Pebble keeps these for the life of the process.
		goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/v2/vfs.(*diskHealthCheckingFS).startTickerLocked.func1"),
	)
}

var quiet = slog.New(slog.DiscardHandler)

// socketPath is a short path: those of test folders can be longer than what a
// socket's address has room for.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "qpc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, admin.SocketName)
}

// boot starts a node whose stores are in memory, with an admin socket at path.
func boot(t *testing.T, path string) *server.Node {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	node, err := server.Boot(t.Context(), server.Config{
		FS: vfs.NewMem(), Dir: "/data", PacketConn: conn, AdminSocket: path, Logger: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shutdown(t, node) })
	return node
}

func shutdown(t *testing.T, s interface{ Shutdown(context.Context) error }) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

func status(t *testing.T, err error, want pb.Status, reason pb.Reason) {
	t.Helper()
	var refused *client.StatusError
	if !errors.As(err, &refused) || refused.Status != want || refused.Reason != reason {
		t.Errorf("got %v, want %v %v", err, want, reason)
	}
}

// TestNode: the socket of a running server answers its owner only, and goes with
// the server.
func TestNode(t *testing.T) {
	path := socketPath(t)
	node := boot(t, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != os.ModeSocket {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	list := new(pb.ListRolesResponse)
	if err := admin.Call(t.Context(), path, new(pb.ListRolesRequest), list); err != nil || len(list.GetEntries()) != 0 {
		t.Errorf("ListRoles: %v, %v", list, err)
	}
	err = admin.Call(t.Context(), path, &pb.GrantRoleRequest{Username: "nobody", Role: pb.Role_ADMIN}, new(pb.GrantRoleResponse))
	status(t, err, pb.Status_NotFound, pb.Reason_NO_SUCH_USER)
	if err := admin.Call(t.Context(), path, new(pb.HealthRequest), new(pb.HealthResponse)); err == nil {
		t.Error("a method of the QUIC endpoint was called")
	}
	shutdown(t, node)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the stop: %v", err)
	}
	if err := admin.Call(t.Context(), path, new(pb.ListRolesRequest), list); !errors.Is(err, admin.ErrNoServer) {
		t.Errorf("a call to nobody: %v", err)
	}
}

// TestStarting: while there is no engine, calls are told to wait.
func TestStarting(t *testing.T) {
	path := socketPath(t)
	s, err := admin.Listen(path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	err = admin.Call(t.Context(), path, new(pb.ListRolesRequest), new(pb.ListRolesResponse))
	status(t, err, pb.Status_Unavailable, pb.Reason_STARTING)
	shutdown(t, s)
}

// TestWhatLiesThere: what a killed server left is replaced, a living socket and
// a file that is none are not.
func TestWhatLiesThere(t *testing.T) {
	path := socketPath(t)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Listen(path, quiet); err == nil || !strings.Contains(err.Error(), "another process answers") {
		t.Errorf("a living socket was taken: %v", err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	if err := admin.Call(t.Context(), path, new(pb.ListRolesRequest), new(pb.ListRolesResponse)); !errors.Is(err, admin.ErrNoServer) {
		t.Errorf("a call to a stale socket: %v", err)
	}
	s, err := admin.Listen(path, quiet)
	if err != nil {
		t.Fatalf("a stale socket stayed: %v", err)
	}
	shutdown(t, s)

	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Listen(path, quiet); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file was taken for a socket: %v", err)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "mine" {
		t.Errorf("the file: %q, %v", content, err)
	}
}

// TestLongPath: a data directory may lie deeper than a socket's address reaches.
func TestLongPath(t *testing.T) {
	path := filepath.Join(filepath.Dir(socketPath(t)), strings.Repeat("long", 20), strings.Repeat("path", 20), admin.SocketName)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := admin.Listen(path, quiet)
	if err != nil {
		if strings.Contains(err.Error(), "--data-dir with a shorter path") {
			return // this system has no detour, and says so
		}
		t.Fatal(err)
	}
	err = admin.Call(t.Context(), path, new(pb.ListRolesRequest), new(pb.ListRolesResponse))
	status(t, err, pb.Status_Unavailable, pb.Reason_STARTING)
	shutdown(t, s)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the stop: %v", err)
	}
}

// exchange sends bytes and reads what comes back.
func exchange(t *testing.T, path string, frame []byte) (rpc.ResponseHeader, *pb.ErrorDetail) {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(frame)
	c.CloseWrite()
	answer, err := io.ReadAll(c)
	if err != nil && len(answer) == 0 {
		t.Fatal(err)
	}
	h, body, err := rpc.ParseResponse(answer, rpc.MaxResponse)
	if err != nil {
		t.Fatalf("%x: %v", answer, err)
	}
	detail := new(pb.ErrorDetail)
	if h.Status != pb.Status_Ok {
		if err := proto.Unmarshal(body, detail); err != nil {
			t.Fatal(err)
		}
	}
	return h, detail
}

func TestFrames(t *testing.T) {
	path := socketPath(t)
	boot(t, path)
	const list = 60002
	sound := rpc.AppendRequest(nil, list, 7, nil)
	for name, test := range map[string]struct {
		frame  []byte
		status pb.Status
		reason pb.Reason
	}{
		"sound":         {sound, pb.Status_Ok, 0},
		"cut":           {sound[:9], pb.Status_BadRequest, pb.Reason_FRAME_TRUNCATED},
		"nothing":       {nil, pb.Status_BadRequest, pb.Reason_FRAME_TRUNCATED},
		"trailing":      {append(sound[:len(sound):len(sound)], 1), pb.Status_BadRequest, pb.Reason_FRAME_TRAILING_BYTES},
		"too large":     {rpc.AppendRequestHeader(nil, rpc.RequestHeader{Method: list, RequestID: 7, Length: 1 << 20}), pb.Status_BadRequest, pb.Reason_FRAME_TOO_LARGE},
		"malformed":     {rpc.AppendRequest(nil, list, 7, []byte{0xff}), pb.Status_BadRequest, pb.Reason_MALFORMED_REQUEST},
		"public method": {rpc.AppendRequest(nil, 802, 7, nil), pb.Status_UnknownMethod, pb.Reason_METHOD_UNKNOWN},
		"no method":     {rpc.AppendRequest(nil, 65535, 7, nil), pb.Status_UnknownMethod, pb.Reason_METHOD_UNKNOWN},
	} {
		h, detail := exchange(t, path, test.frame)
		if h.Status != test.status || detail.GetReason() != test.reason {
			t.Errorf("%s: %v %v", name, h.Status, detail)
		}
		if len(test.frame) >= rpc.RequestHeaderSize && h.RequestID != 7 {
			t.Errorf("%s: the answer is for request %d", name, h.RequestID)
		}
	}
}

// TestSilentCallers: connections that say nothing hold the socket for two
// seconds at most, and do not hold up a stop for longer.
func TestSilentCallers(t *testing.T) {
	path := socketPath(t)
	s, err := admin.Listen(path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	err = admin.Call(t.Context(), path, new(pb.ListRolesRequest), new(pb.ListRolesResponse))
	status(t, err, pb.Status_Unavailable, pb.Reason_STARTING)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}
