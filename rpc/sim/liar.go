package sim

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/server"
)

// Liar is a server that lies about keys, on real sockets, with the certificate,
// the log key and the VRF key of the honest node behind it:
//
//	client, qpc-audit ──QUIC──▶ Liar ──QUIC──▶ server.Node
//	                             │ about keys and the log: from a FalseLog
//	                             └ all else, and while there is none: passed on
//
// Pushes are not passed on.
type Liar struct {
	node     *server.Node
	key      ed25519.PrivateKey
	vrf      *kt.VRFPrivateKey
	listener *quic.Listener
	roots    *x509.CertPool
	ctx      context.Context
	stop     context.CancelFunc
	running  sync.WaitGroup

	mu  sync.Mutex
	log *FalseLog
}

// NewLiar stands in front of a node whose data directory is dir.
func NewLiar(node *server.Node, fs vfs.FS, dir string) (*Liar, error) {
	l := &Liar{node: node, roots: x509.NewCertPool()}
	seed, err := readSecret(fs, dir, "log-key")
	if err != nil {
		return nil, err
	}
	l.key = ed25519.NewKeyFromSeed(seed)
	if seed, err = readSecret(fs, dir, "vrf-seed"); err != nil {
		return nil, err
	}
	l.vrf = kt.NewVRFPrivateKey([32]byte(seed))
	chain, err := readAll(fs, fs.PathJoin(dir, "server-cert.der"))
	if err != nil {
		return nil, err
	}
	der, err := readAll(fs, fs.PathJoin(dir, "server-key.der"))
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	ca, err := readAll(fs, node.CAFile())
	if err != nil {
		return nil, err
	}
	authority, err := x509.ParseCertificate(ca)
	if err != nil {
		return nil, err
	}
	l.roots.AddCert(authority)
	l.listener, err = quic.ListenAddr("127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{rpc.ALPN},
		Certificates: []tls.Certificate{{Certificate: [][]byte{chain}, PrivateKey: key}},
	}, &quic.Config{MaxIncomingUniStreams: -1})
	if err != nil {
		return nil, err
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.running.Go(l.accept)
	return l, nil
}

// readSecret reads a secret of a data directory (commands/datadir).
func readSecret(fs vfs.FS, dir, name string) ([]byte, error) {
	line, err := readAll(fs, fs.PathJoin(dir, "secrets", name))
	if err != nil {
		return nil, err
	}
	words := strings.Fields(string(line))
	if len(words) != 4 {
		return nil, fmt.Errorf("sim: the secret %s is no line of four words", name)
	}
	return base64.StdEncoding.DecodeString(words[2])
}

// Addr is where the Liar is met.
func (l *Liar) Addr() net.Addr { return l.listener.Addr() }

// Copy is the node's log as a FalseLog.
func (l *Liar) Copy() (*FalseLog, error) {
	return CopyLog(l.node.Log(), l.node.ServerName(), l.key, l.vrf)
}

// Show makes the Liar answer from a log from now on; nil passes everything on.
// The log must not be changed any more.
func (l *Liar) Show(f *FalseLog) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log = f
}

func (l *Liar) shown() *FalseLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log
}

// Close ends the Liar; the node goes on.
func (l *Liar) Close() error {
	l.stop()
	err := l.listener.Close()
	l.running.Wait()
	return err
}

func (l *Liar) accept() {
	for {
		conn, err := l.listener.Accept(l.ctx)
		if err != nil {
			return
		}
		l.running.Go(func() { l.attend(conn) })
	}
}

// attend serves one connection. It has a connection to the node of its own,
// because the halves of a login belong to one.
func (l *Liar) attend(conn *quic.Conn) {
	defer conn.CloseWithError(0, "")
	behind, err := quic.DialAddr(l.ctx, l.node.Addr().String(), &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{rpc.ALPN}, RootCAs: l.roots, ServerName: l.node.ServerName(),
	}, &quic.Config{})
	if err != nil {
		return
	}
	defer behind.CloseWithError(0, "")
	var calls sync.WaitGroup
	defer calls.Wait()
	for {
		stream, err := conn.AcceptStream(l.ctx)
		if err != nil {
			return
		}
		calls.Go(func() {
			if err := l.serve(stream, behind); err != nil {
				stream.CancelRead(rpc.CodeShutdown)
				stream.CancelWrite(rpc.CodeShutdown)
			}
		})
	}
}

// patience bounds one call.
const patience = 20 * time.Second

// serve answers one call by itself or lets the node do it.
func (l *Liar) serve(stream *quic.Stream, behind *quic.Conn) error {
	if err := stream.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	h, frame, err := rpc.ReadRequest(stream, nil, func(rpc.RequestHeader) (uint32, error) { return rpc.MaxResponse, nil })
	if err != nil {
		return err
	}
	method, known := rpc.MethodByID(h.Method)
	if f := l.shown(); f != nil && known {
		req := method.NewRequest()
		if err := proto.Unmarshal(frame[rpc.RequestHeaderSize:], req); err != nil {
			return err
		}
		if resp := f.reply(req); resp != nil {
			if f.Word != nil {
				f.Word(resp)
			}
			answer, err := rpc.AppendResponseMessage(nil, pb.Status_Ok, h.RequestID, resp)
			if err != nil {
				return err
			}
			return finish(stream, answer)
		}
		if withoutProof(req) {
			if frame = rpc.AppendRequest(nil, h.Method, h.RequestID, mustMarshal(req)); err != nil {
				return err
			}
		}
	}
	return pass(l.ctx, stream, frame, behind)
}

// pass lets the node answer.
func pass(ctx context.Context, stream *quic.Stream, frame []byte, behind *quic.Conn) error {
	there, err := behind.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	if err := there.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if err := finish(there, frame); err != nil {
		return err
	}
	_, answer, err := rpc.ReadResponse(there, nil, rpc.MaxResponse)
	if err != nil {
		return err
	}
	return finish(stream, answer)
}

func finish(stream *quic.Stream, frame []byte) error {
	_, err := stream.Write(frame)
	return errors.Join(err, stream.Close())
}

// withoutProof takes the wish for a proof out of a change that the node makes: it
// knows nothing of the log that its caller was shown.
func withoutProof(req proto.Message) bool {
	switch req := req.(type) {
	case *pb.OpaqueRegisterFinishRequest:
		req.Proof = nil
	case *pb.UploadHybridKeyRequest:
		req.Proof = nil
	case *pb.RevokeKeyRequest:
		req.Proof = nil
	default:
		return false
	}
	return true
}

// reply is the answer to a question about keys or the log; nil for all others.
func (f *FalseLog) reply(req proto.Message) proto.Message {
	switch req := req.(type) {
	case *pb.ResolveUserRequest:
		p, binding := f.Person(req.GetProof(), req.GetUsername()), new(pb.AccountBinding)
		f.Newest(kt.KindAccount, []byte(req.GetUsername()), binding)
		return &pb.ResolveUserResponse{IdentityKey: binding.GetIdentityKey(), Proof: p}
	case *pb.FetchHybridKeyRequest:
		return &pb.FetchHybridKeyResponse{Keyset: f.hybridKey(req.GetIdentityKey()), Proof: f.Identities(req.GetProof(), req.GetIdentityKey())}
	case *pb.FetchHybridKeysRequest:
		resp := &pb.FetchHybridKeysResponse{Proof: f.Identities(req.GetProof(), req.GetIdentityKeys()...)}
		for _, key := range req.GetIdentityKeys() {
			resp.Entries = append(resp.Entries, &pb.FetchHybridKeysResponse_Entry{Keyset: f.hybridKey(key)})
		}
		return resp
	case *pb.CheckRevocationRequest:
		resp := &pb.CheckRevocationResponse{Known: true, Proof: f.Revocation(req.GetProof(), req.GetKey())}
		if r := new(pb.Revocation); f.Newest(kt.KindRevocation, req.GetKey(), r) {
			resp.Revocation = r
		}
		return resp
	case *pb.AuditKeyTransparencyRequest:
		return f.audit(req)
	}
	return nil
}

// hybridKey is an identity's newest KeySet if it has a hybrid key.
func (f *FalseLog) hybridKey(identity []byte) *pb.KeySet {
	if ks := new(pb.KeySet); f.Newest(kt.KindIdentity, identity, ks) && ks.GetKemId() != 0 {
		return ks
	}
	return nil
}

// audit answers method 520 as far as auditors ask it.
func (f *FalseLog) audit(req *pb.AuditKeyTransparencyRequest) proto.Message {
	resp := new(pb.AuditKeyTransparencyResponse)
	proof := func(p *pb.KeyProof) { resp.Answer = &pb.AuditKeyTransparencyResponse_Proof{Proof: p} }
	switch q := req.GetQuery().(type) {
	case *pb.AuditKeyTransparencyRequest_Username:
		proof(f.Person(req.GetProof(), q.Username))
	case *pb.AuditKeyTransparencyRequest_IdentityKey:
		proof(f.Identities(req.GetProof(), q.IdentityKey))
	case *pb.AuditKeyTransparencyRequest_Head:
		proof(&pb.KeyProof{Head: f.Head(req.GetProof())})
	case *pb.AuditKeyTransparencyRequest_Resource:
		data := f.Resource(q.Resource.GetPath())
		if uint64(len(data)) < q.Resource.GetOffset() {
			return nil
		}
		resp.Answer = &pb.AuditKeyTransparencyResponse_Resource{Resource: &pb.ResourcePart{
			Data: data[q.Resource.GetOffset():], Size: uint64(len(data)),
		}}
	default:
		return nil
	}
	return resp
}

// ServeHTTP serves the shown log as C2SP tlog-tiles, to auditors who come that
// way.
func (l *Liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var data []byte
	if f := l.shown(); f != nil {
		data = f.Resource(strings.TrimPrefix(r.URL.Path, "/"))
	}
	if data == nil {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(data)
}
