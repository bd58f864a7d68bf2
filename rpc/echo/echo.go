// Package echo is the ceiling that the server is measured against: a bare
// quic-go server with the same frames and the same stream per call, and nothing
// behind them. It keeps no state, knows no sessions, and answers every request
// at once with the same body:
//
//	request frame  → read to its FIN, bounded, not decoded
//	response frame ← Ok, the same req_id, the answer
//
// What a durable call costs more than an echo is what the store costs. It listens
// for load drivers only: use it on loopback.
package echo

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// maxRequest bounds a request body in bytes: the longest of any method.
const maxRequest = 8 << 20

// Server echoes. Make one with Listen, run Serve, end it with Close.
type Server struct {
	listener *quic.Listener
	answer   []byte
	running  sync.WaitGroup
}

// Certificate makes a self-signed certificate for localhost and 127.0.0.1, good
// for a day; clients pin it as their CA.
func Certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("echo: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "quicprochat echo"},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:        true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("echo: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// Listen prepares a server on a socket, which it owns from now on. Every request
// is answered with the body given.
func Listen(socket net.PacketConn, certificate tls.Certificate, answer []byte) (*Server, error) {
	listener, err := quic.Listen(socket, &tls.Config{
		Certificates: []tls.Certificate{certificate},
		NextProtos:   []string{rpc.ALPN},
		MinVersion:   tls.VersionTLS13,
	}, &quic.Config{MaxIncomingStreams: 1 << 16, MaxIdleTimeout: time.Minute})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("echo: %w", err), socket.Close())
	}
	return &Server{listener: listener, answer: answer}, nil
}

// Serve accepts connections until ctx ends or Close is called.
func (s *Server) Serve(ctx context.Context) error {
	for {
		conn, err := s.listener.Accept(ctx)
		if errors.Is(err, quic.ErrServerClosed) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("echo: %w", err)
		}
		s.running.Add(1)
		go s.serveConn(ctx, conn)
	}
}

// Close ends the listener and every connection.
func (s *Server) Close() error {
	err := s.listener.Close()
	s.running.Wait()
	return err
}

func (s *Server) serveConn(ctx context.Context, conn *quic.Conn) {
	defer s.running.Done()
	defer func() { _ = conn.CloseWithError(rpc.CodeShutdown, "") }()
	for {
		stream, err := conn.AcceptStream(ctx)
		if err != nil {
			return
		}
		go s.serveStream(stream)
	}
}

// buffers hold a request frame and then its response frame.
var buffers = sync.Pool{New: func() any { buffer := make([]byte, 0, 2048); return &buffer }}

func (s *Server) serveStream(stream *quic.Stream) {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	header, frame, err := rpc.ReadRequest(stream, (*buffer)[:0], func(rpc.RequestHeader) (uint32, error) { return maxRequest, nil })
	if err != nil {
		stream.CancelWrite(rpc.CodeProtocol)
		return
	}
	*buffer = rpc.AppendResponse(frame[:0], pb.Status_Ok, header.RequestID, s.answer)
	if _, err := stream.Write(*buffer); err == nil {
		_ = stream.Close()
	}
}
