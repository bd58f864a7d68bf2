package server_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	"quicprochat/log"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/pake"
	"quicprochat/rpc/server"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Pebble keeps these for the life of the process.
		goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/v2/vfs.(*diskHealthCheckingFS).startTickerLocked.func1"),
	)
}

const serverName = "chat.example.org"

// testContext bounds a whole test, so that a hang fails by itself.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for what other goroutines bring about.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for ctx := testContext(t); !holds(); time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("never: %s", what)
		}
	}
}

// world is a node with its file system.
type world struct {
	t        testing.TB
	fs       vfs.FS
	node     *server.Node
	registry *prometheus.Registry
}

// boot starts a node in memory; change may adjust its configuration.
func boot(t testing.TB, change func(*server.Config)) *world {
	t.Helper()
	w := &world{t: t, fs: newFS(), registry: prometheus.NewRegistry()}
	w.start(change)
	return w
}

// start starts the node on the world's file system.
func (w *world) start(change func(*server.Config)) {
	w.t.Helper()
	c := server.Config{
		FS: w.fs, Dir: "/data", PacketConn: loopback(w.t), ServerName: serverName,
		Limits: server.LimitsOff, Version: "test", Registerer: w.registry,
		Logger: slog.New(slog.NewTextHandler(testWriter{w.t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if change != nil {
		change(&c)
	}
	node, err := server.Boot(testContext(w.t), c)
	if err != nil {
		w.t.Fatalf("boot: %v", err)
	}
	w.node = node
	w.t.Cleanup(w.stop)
}

func (w *world) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.node.Shutdown(ctx); err != nil {
		w.t.Errorf("shutdown: %v", err)
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("server: %s", bytes.TrimSpace(b))
	return len(b), nil
}

func loopback(t testing.TB) net.PacketConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// roots is what a client pins.
func (w *world) roots() *x509.CertPool {
	w.t.Helper()
	cert, err := x509.ParseCertificate(readFile(w.t, w.fs, w.node.CAFile()))
	if err != nil {
		w.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}

func readFile(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// conn is a client's connection without any help: tests write their own bytes.
type conn struct {
	*quic.Conn
	t testing.TB
}

// dial opens a connection. The client takes pushes only as far as limit says.
func (w *world) dial() *conn { return w.dialWith(&quic.Config{}) }

func (w *world) dialWith(config *quic.Config) *conn {
	w.t.Helper()
	config.HandshakeIdleTimeout = time.Minute // this machine may be busy
	c, err := quic.DialAddr(testContext(w.t), w.node.Addr().String(), w.tlsConfig(), config)
	if err != nil {
		w.t.Fatalf("dial: %v", err)
	}
	w.t.Cleanup(func() { c.CloseWithError(0, "") })
	return &conn{Conn: c, t: w.t}
}

func (w *world) tlsConfig() *tls.Config {
	return &tls.Config{RootCAs: w.roots(), ServerName: serverName, NextProtos: []string{rpc.ALPN}, MinVersion: tls.VersionTLS13}
}

// reply is a response frame.
type reply struct {
	status pb.Status
	id     uint32
	body   []byte
	detail *pb.ErrorDetail // when status is not Ok
}

// raw sends bytes on a stream of its own, with FIN, and reads the answer. err
// is what the stream gave instead of one.
func (c *conn) raw(frame []byte) (reply, error) {
	c.t.Helper()
	stream, err := c.OpenStreamSync(testContext(c.t))
	if err != nil {
		c.t.Fatalf("open stream: %v", err)
	}
	stream.SetDeadline(time.Now().Add(time.Minute))
	stream.Write(frame) // the server may have answered before it is through
	stream.Close()
	return c.answer(stream)
}

func (c *conn) answer(stream *quic.Stream) (reply, error) {
	c.t.Helper()
	b, err := io.ReadAll(stream)
	if err != nil {
		return reply{}, err
	}
	h, body, err := rpc.ParseResponse(b, rpc.MaxResponse)
	if err != nil {
		c.t.Fatalf("response frame: %v", err)
	}
	r := reply{status: h.Status, id: h.RequestID, body: body}
	if r.status != pb.Status_Ok {
		r.detail = new(pb.ErrorDetail)
		if err := proto.Unmarshal(body, r.detail); err != nil {
			c.t.Fatalf("error detail: %v", err)
		}
		if r.detail.GetServerTimeMs() == 0 {
			c.t.Errorf("%v without the server's time", r.detail)
		}
	}
	return r, nil
}

// send makes a request frame of a message and reads the answer.
func (c *conn) send(req proto.Message) reply {
	c.t.Helper()
	m, ok := rpc.MethodOf(req)
	if !ok {
		c.t.Fatalf("%T is no request", req)
	}
	body, err := proto.Marshal(req)
	if err != nil {
		c.t.Fatal(err)
	}
	const id = 0xabcd1234
	r, err := c.raw(rpc.AppendRequest(nil, m.ID, id, body))
	if err != nil {
		c.t.Fatalf("%s: %v", m, err)
	}
	if r.id != id {
		c.t.Fatalf("%s: req_id %#x, want %#x", m, r.id, id)
	}
	return r
}

// must sends a request that has to succeed.
func must[Resp proto.Message](c *conn, req proto.Message) Resp {
	c.t.Helper()
	r := c.send(req)
	if r.status != pb.Status_Ok {
		c.t.Fatalf("%T: %v %v", req, r.status, r.detail)
	}
	var none Resp
	resp := none.ProtoReflect().New().Interface().(Resp)
	if err := proto.Unmarshal(r.body, resp); err != nil {
		c.t.Fatal(err)
	}
	return resp
}

// refused sends a request and asserts how it is refused.
func (c *conn) refused(req proto.Message, status pb.Status, reason pb.Reason) *pb.ErrorDetail {
	c.t.Helper()
	return c.check(c.send(req), status, reason)
}

func (c *conn) check(r reply, status pb.Status, reason pb.Reason) *pb.ErrorDetail {
	c.t.Helper()
	if r.status != status || r.detail.GetReason() != reason {
		c.t.Errorf("got %v %v, want %v %v", r.status, r.detail, status, reason)
	}
	return r.detail
}

// unchanged asserts that nothing was decided since it was called.
func (w *world) unchanged() (check func()) {
	w.t.Helper()
	l := w.node.Log()
	size := l.Size()
	return func() {
		w.t.Helper()
		err := l.Iterate(size, l.Size(), func(index uint64, r log.Record) error {
			if kt.Class(r.Leaf[0]) != kt.ClassHead { // heads come by the clock
				w.t.Errorf("the log grew by record %d, behind %d records", index, size)
			}
			return nil
		})
		if err != nil {
			w.t.Error(err)
		}
	}
}

// person is a user of the tests, with a home of one device.
type person struct {
	t        testing.TB
	name     string
	password []byte
	identity ed25519.PrivateKey
	device   ed25519.PrivateKey
	token    []byte
}

func newPerson(t testing.TB, name string) *person {
	return &person{t: t, name: name, password: []byte("password of " + name), identity: keyOf(name + " identity"), device: keyOf(name + " device")}
}

// keyOf derives a key from a text, so that each run has the same ones.
func keyOf(text string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(text))
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(k ed25519.PrivateKey) []byte { return k.Public().(ed25519.PublicKey) }

// registration runs method 100 and makes the request of 101.
func (p *person) registration(c *conn) *pb.OpaqueRegisterFinishRequest {
	p.t.Helper()
	state, request, err := pake.StartRegistration(p.password, pake.InsecureKSF())
	if err != nil {
		p.t.Fatal(err)
	}
	start := must[*pb.OpaqueRegisterStartResponse](c, &pb.OpaqueRegisterStartRequest{Username: p.name, RegistrationRequest: request})
	upload, _, err := state.Finish(start.GetRegistrationResponse())
	if err != nil {
		p.t.Fatal(err)
	}
	identity, device := public(p.identity), public(p.device)
	consent := statement.Device{ServerName: serverName, IdentityKey: identity, DeviceKey: device}
	keyset := &pb.KeySet{IdentityKey: identity, DeviceKeys: [][]byte{device}, TimeMs: start.GetServerTimeMs()}
	statement.SignKeySet(serverName, keyset, p.identity)
	req := &pb.OpaqueRegisterFinishRequest{
		Username: p.name, Upload: upload, IdentityKey: identity, Challenge: start.GetChallenge(),
		Device: &pb.DeviceConsent{DeviceKey: device, Signature: consent.Sign(p.device)}, Keyset: keyset,
	}
	p.sign(req, p.identity)
	return req
}

// sign puts qpc-register-v1 into a registration or password change.
func (p *person) sign(req *pb.OpaqueRegisterFinishRequest, key ed25519.PrivateKey) {
	s := statement.Register{
		ServerName: serverName, Username: p.name, UploadHash: sha256.Sum256(req.GetUpload()),
		IdentityKey: req.GetIdentityKey(), Challenge: req.GetChallenge(),
	}
	req.Signature = s.Sign(key)
}

// login runs methods 102 and 103 with a device key.
func (p *person) login(c *conn, key ed25519.PrivateKey) *pb.OpaqueLoginFinishResponse {
	p.t.Helper()
	return must[*pb.OpaqueLoginFinishResponse](c, p.finish(c, key))
}

// finish runs method 102 and makes the request of 103.
func (p *person) finish(c *conn, key ed25519.PrivateKey) *pb.OpaqueLoginFinishRequest {
	p.t.Helper()
	state, ke1, err := pake.StartLogin(p.password, pake.InsecureKSF())
	if err != nil {
		p.t.Fatal(err)
	}
	start := must[*pb.OpaqueLoginStartResponse](c, &pb.OpaqueLoginStartRequest{Username: p.name, LoginRequest: ke1})
	ke3, _, _, err := state.Finish(start.GetLoginResponse())
	if err != nil {
		p.t.Fatalf("login of %s: %v", p.name, err)
	}
	return p.loginFinish(ke1, start, ke3, key)
}

func (p *person) loginFinish(ke1 []byte, start *pb.OpaqueLoginStartResponse, ke3 []byte, key ed25519.PrivateKey) *pb.OpaqueLoginFinishRequest {
	s := statement.Login{
		ServerName: serverName, Username: p.name, LoginID: start.GetLoginId(), Key: public(key),
		TranscriptHash: sha256.Sum256(bytes.Join([][]byte{ke1, start.GetLoginResponse(), ke3}, nil)),
	}
	return &pb.OpaqueLoginFinishRequest{
		Username: p.name, Finalization: ke3, IdentityKey: public(key), LoginId: start.GetLoginId(), Signature: s.Sign(key),
	}
}

// join registers and logs in over a connection of its own.
func (w *world) join(name string) (*person, *conn) {
	w.t.Helper()
	p, c := newPerson(w.t, name), w.dial()
	must[*pb.OpaqueRegisterFinishResponse](c, p.registration(c))
	p.token = p.login(c, p.device).GetSessionToken()
	return p, c
}

// newRequestID is a UUIDv7 of now (RFC 9562, section 5.7).
func newRequestID() []byte {
	id := make([]byte, 16)
	rand.Read(id)
	ms := time.Now().UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6] = 0x70 | id[6]&0x0f
	id[8] = 0x80 | id[8]&0x3f
	return id
}

// enqueue is a message of p to somebody's devices.
func (p *person) enqueue(to *person, payload []byte) *pb.EnqueueRequest {
	return &pb.EnqueueRequest{
		SessionToken: p.token, RequestId: newRequestID(), Payload: payload,
		Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: public(to.identity)},
	}
}

func newFS() vfs.FS { return vfs.NewMem() }
