package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/pake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const fakeName = "chat.example"

// authority is a CA with one server certificate.
type authority struct {
	ca   []byte // DER
	cert tls.Certificate
}

func newAuthority(t testing.TB, serverName string) *authority {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{serverName},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{ca: caDER, cert: tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: key}}
}

// fake is a server whose answers are scripted per method.
type fake struct {
	t    testing.TB
	auth *authority
	addr string

	mu      sync.Mutex
	early   func(*fakeCall) // answers behind the header, if set
	scripts map[string]func(*fakeCall)
	bodies  map[string][][]byte // of the calls that came, as they were sent
	conns   []*quic.Conn
	wg      sync.WaitGroup

	network *simnet.PerfectRouter // nil: loopback
	clients int                   // on the simulated network
}

// fakeCall is one request that the fake server got.
type fakeCall struct {
	*fake
	n      int // how many calls of this method there were, this one counted
	header rpc.RequestHeader
	body   []byte // as it was sent
	req    proto.Message
	conn   *quic.Conn
	stream *quic.Stream
}

func newFake(t testing.TB) *fake {
	t.Helper()
	f := makeFake(t)
	f.listen("127.0.0.1:0", rpc.ALPN)
	return f
}

func makeFake(t testing.TB) *fake {
	return &fake{
		t: t, auth: newAuthority(t, fakeName),
		scripts: make(map[string]func(*fakeCall)), bodies: make(map[string][][]byte),
	}
}

// simulate runs a test of time limits against a fake server on a simulated
// network, with virtual time: how fast the machine is does not matter.
func simulate(t *testing.T, test func(t *testing.T, f *fake)) {
	synctest.Test(t, func(t *testing.T) {
		f := makeFake(t)
		f.network = new(simnet.PerfectRouter)
		f.serveOn(f.simConn(), rpc.ALPN)
		test(t, f)
	})
}

// simConn is a socket on the simulated network; the first one is the server's.
func (f *fake) simConn() net.PacketConn {
	f.clients++
	socket := simnet.NewSimConn(&net.UDPAddr{IP: net.IPv4(127, 0, 0, byte(f.clients)), Port: 5001}, f.network)
	f.t.Cleanup(func() { socket.Close() })
	return socket
}

// listen serves on loopback until the test ends.
func (f *fake) listen(addr, alpn string) {
	f.t.Helper()
	socket, err := net.ListenPacket("udp4", addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.serveOn(socket, alpn)
}

func (f *fake) serveOn(socket net.PacketConn, alpn string) {
	f.t.Helper()
	tlsConf := &tls.Config{Certificates: []tls.Certificate{f.auth.cert}, NextProtos: []string{alpn}, MinVersion: tls.VersionTLS13}
	transport := &quic.Transport{Conn: socket}
	listener, err := transport.Listen(tlsConf, &quic.Config{MaxIncomingStreams: 1000})
	if err != nil {
		f.t.Fatal(err)
	}
	f.addr = socket.LocalAddr().String()
	ctx, cancel := context.WithCancel(context.Background())
	f.wg.Go(func() {
		for {
			conn, err := listener.Accept(ctx)
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, conn)
			f.mu.Unlock()
			f.wg.Go(func() { f.serve(ctx, conn) })
		}
	})
	f.t.Cleanup(func() {
		cancel()
		f.dropAll()
		listener.Close()
		transport.Close()
		socket.Close()
		f.wg.Wait()
	})
}

func (f *fake) serve(ctx context.Context, conn *quic.Conn) {
	for {
		stream, err := conn.AcceptStream(ctx)
		if err != nil {
			return
		}
		f.wg.Go(func() { f.handle(conn, stream) })
	}
}

func (f *fake) handle(conn *quic.Conn, stream *quic.Stream) {
	var m *rpc.Method
	h, frame, err := rpc.ReadRequest(stream, nil, func(h rpc.RequestHeader) (uint32, error) {
		f.mu.Lock()
		early := f.early
		f.mu.Unlock()
		if early != nil {
			early(&fakeCall{fake: f, header: h, conn: conn, stream: stream})
			return 0, errors.New("answered")
		}
		var ok bool
		if m, ok = rpc.MethodByID(h.Method); !ok {
			return 0, errors.New("no such method")
		}
		return m.MaxRequest, nil
	})
	if err != nil {
		return // the client gave up
	}
	body := frame[rpc.RequestHeaderSize:]
	req, err := m.UnmarshalRequest(body)
	if err != nil {
		f.t.Errorf("fake server: %s: %v", m, err)
		return
	}
	f.mu.Lock()
	f.bodies[m.Name] = append(f.bodies[m.Name], body)
	c := &fakeCall{fake: f, n: len(f.bodies[m.Name]), header: h, body: body, req: req, conn: conn, stream: stream}
	script := f.scripts[m.Name]
	f.mu.Unlock()
	if script == nil {
		c.refuse(pb.Status_UnknownMethod, &pb.ErrorDetail{Reason: pb.Reason_METHOD_UNKNOWN})
		return
	}
	script(c)
}

// on sets what happens with the calls of a method.
func (f *fake) on(method string, script func(*fakeCall)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := rpc.MethodByName(method); !ok {
		f.t.Fatalf("no method %s", method)
	}
	f.scripts[method] = script
}

func (f *fake) count(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.bodies[method])
}

// sent returns the body of the n-th call of a method, from 1.
func (f *fake) sent(method string, n int) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bodies[method][n-1]
}

// ids returns the request_ids of all calls of Enqueue.
func (f *fake) ids() (ids [][]byte) {
	for n := range f.count("Enqueue") {
		req := new(pb.EnqueueRequest)
		if err := proto.Unmarshal(f.sent("Enqueue", n+1), req); err != nil {
			f.t.Fatal(err)
		}
		ids = append(ids, req.RequestId)
	}
	return ids
}

func (f *fake) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns)
}

// dropAll closes every connection.
func (f *fake) dropAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, conn := range f.conns {
		conn.CloseWithError(rpc.CodeShutdown, "")
	}
}

// send writes bytes as the whole answer.
func (c *fakeCall) send(b []byte) {
	c.stream.Write(b)
	c.stream.Close()
}

func (c *fakeCall) ok(resp proto.Message) {
	frame, err := rpc.AppendResponseMessage(nil, pb.Status_Ok, c.header.RequestID, resp)
	if err != nil {
		c.t.Error(err)
	}
	c.send(frame)
}

func (c *fakeCall) refuse(status pb.Status, detail *pb.ErrorDetail) {
	frame, err := rpc.AppendResponseMessage(nil, status, c.header.RequestID, detail)
	if err != nil {
		c.t.Error(err)
	}
	c.send(frame)
}

// loseAnswer ends the connection in place of an answer.
func (c *fakeCall) loseAnswer() { c.conn.CloseWithError(rpc.CodeShutdown, "") }

// hang waits until the client gives up.
func (c *fakeCall) hang() { <-c.stream.Context().Done() }

func (f *fake) config() Config {
	c := Config{Addr: f.addr, ServerName: fakeName, CACert: f.auth.ca, KSF: pake.InsecureKSF()}
	if f.network != nil {
		remote, err := net.ResolveUDPAddr("udp4", f.addr)
		if err != nil {
			f.t.Fatal(err)
		}
		c.PacketConn, c.RemoteAddr = f.simConn(), remote
	}
	return c
}

// dial connects a client that is closed with the test.
func (f *fake) dial(change ...func(*Config)) *Client {
	f.t.Helper()
	cfg := f.config()
	for _, ch := range change {
		ch(&cfg)
	}
	c, err := Dial(f.t.Context(), cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			f.t.Errorf("Close: %v", err)
		}
	})
	return c
}

// eventually waits for something that another goroutine brings about.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// script is what happens with the calls of a method now.
func (f *fake) script(method string) func(*fakeCall) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.scripts[method]
}
