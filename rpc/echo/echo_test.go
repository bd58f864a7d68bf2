package echo_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/echo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial starts an echo server on loopback and connects to it.
func dial(t *testing.T, answer []byte) *quic.Conn {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := echo.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	server, err := echo.Listen(socket, certificate, answer)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		_ = server.Close()
		_ = socket.Close()
	})
	root, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	conn, err := quic.DialAddr(ctx, socket.LocalAddr().String(), &tls.Config{
		RootCAs: roots, ServerName: "localhost", NextProtos: []string{rpc.ALPN}, MinVersion: tls.VersionTLS13,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	return conn
}

func call(t *testing.T, conn *quic.Conn, frame []byte) ([]byte, error) {
	t.Helper()
	stream, err := conn.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.SetDeadline(time.Now().Add(time.Minute))
	if _, err := stream.Write(frame); err != nil {
		t.Fatal(err)
	}
	_ = stream.Close()
	return io.ReadAll(stream)
}

func TestEchoAnswersEveryFrame(t *testing.T) {
	answer := []byte("as long as an EnqueueResponse")
	conn := dial(t, answer)
	for i, size := range []int{0, 1, 1024, 1 << 20} {
		id := uint32(1000 + i)
		got, err := call(t, conn, rpc.AppendRequest(nil, 200, id, make([]byte, size)))
		if err != nil {
			t.Fatal(err)
		}
		if want := rpc.AppendResponse(nil, pb.Status_Ok, id, answer); !bytes.Equal(got, want) {
			t.Errorf("%d bytes asked, answered %q, want %q", size, got, want)
		}
	}
}

func TestEchoResetsBrokenFrames(t *testing.T) {
	conn := dial(t, nil)
	whole := rpc.AppendRequest(nil, 200, 1, []byte("body"))
	for name, frame := range map[string][]byte{"short": whole[:7], "cut": whole[:12], "trailing": append(whole, 'x')} {
		if got, err := call(t, conn, frame); err == nil || !strings.Contains(err.Error(), "code 1") {
			t.Errorf("%s frame: answered %q, error %v", name, got, err)
		}
	}
	if _, err := call(t, conn, rpc.AppendRequest(nil, 200, 1, nil)); err != nil {
		t.Errorf("the connection did not live on: %v", err)
	}
}
