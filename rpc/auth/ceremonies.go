package auth

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"runtime"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/commands/datadir"
	"quicprochat/kt"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/pake"
)

// Options are the dependencies of the ceremonies; all are required.
type Options struct {
	ServerName string
	Secrets    *datadir.Secrets
	Engine     *commands.Engine
}

// Origin is where a call comes from.
type Origin struct {
	// Prefix of the client's address, for fairness.
	Prefix netip.Prefix
	// Connection is unique among the connections of this process.
	Connection uint64
}

// Ceremonies serve methods 100 to 103. They are safe for concurrent use.
type Ceremonies struct {
	serverName string
	engine     *commands.Engine
	opaque     *pake.Server
	vrf        *kt.VRFPrivateKey
	turnstile  *turnstile
	sealer     *sealer
	attempts   *attempts

	fakeKey []byte // of the HMAC that makes identifiers of unknown names
	decoy   []byte // the fake record (192 bytes), encoded as records are stored
}

// Labels of the keys that derive from the OPAQUE seed by HKDF-SHA-256.
const (
	challengeLabel = "qpc-challenge-v1"
	fakeLabel      = "qpc-fake-identifier-v1"
)

// New prepares the ceremonies.
func New(o Options) (*Ceremonies, error) {
	opaque, err := pake.NewServer(o.Secrets.OPAQUE)
	if err != nil {
		return nil, err
	}
	if _, err := opaque.ParseRecord(o.Secrets.FakeRecord); err != nil {
		return nil, fmt.Errorf("stored fake record: %w", err)
	}
	challengeKey, err := hkdf.Key(sha256.New, o.Secrets.OPAQUE.Seed[:], nil, challengeLabel, 32)
	if err != nil {
		return nil, fmt.Errorf("derive the challenge key: %w", err)
	}
	fakeKey, err := hkdf.Key(sha256.New, o.Secrets.OPAQUE.Seed[:], nil, fakeLabel, 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key of fake identifiers: %w", err)
	}
	sealer, err := newSealer(challengeKey, o.ServerName)
	if err != nil {
		return nil, err
	}
	decoy, err := proto.Marshal(&pb.OpaqueRecord{
		Upload: o.Secrets.FakeRecord, CredentialId: make([]byte, commands.CredentialIDSize),
		KeyVersion: datadir.OPAQUEVersion,
	})
	if err != nil {
		return nil, fmt.Errorf("encode the fake record: %w", err)
	}
	return &Ceremonies{
		serverName: o.ServerName, engine: o.Engine, opaque: opaque,
		vrf: kt.NewVRFPrivateKey(o.Secrets.VRFSeed), turnstile: newTurnstile(slots()),
		sealer: sealer, attempts: newAttempts(),
		fakeKey: fakeKey, decoy: decoy,
	}, nil
}

// slots is the share of the cores that ceremonies may take: half, at least one.
func slots() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// rule finds the rule of a method that this package serves.
func rule(req proto.Message) *pb.Rule {
	m, _ := rpc.MethodOf(req) // a start without it fails in rpc.CheckTable
	return m.Rule
}

// malformed turns an error about an OPAQUE message into its refusal.
func malformed(err error) error {
	if errors.Is(err, pake.ErrMalformed) {
		return commands.Refuse(pb.Status_BadRequest, pb.Reason_OPAQUE_MALFORMED, "%v", err)
	}
	return err
}

// canonical is the canonical form of a username. Refusal: BadRequest
// USERNAME_INVALID.
func canonical(raw string) (string, error) {
	name, err := statement.CanonicalUsername(raw)
	if errors.Is(err, statement.ErrUsername) {
		return "", commands.Refuse(pb.Status_BadRequest, pb.Reason_USERNAME_INVALID, "%v", err)
	}
	return name, err
}

// size refuses an OPAQUE message of another length than the profile's, before
// anybody waits for a turn with it.
func size(name string, message []byte, want int) error {
	if len(message) == 0 {
		return commands.Refuse(pb.Status_BadRequest, pb.Reason_MISSING_FIELD, "%s is required", name)
	}
	if len(message) != want {
		return commands.Refuse(pb.Status_BadRequest, pb.Reason_OPAQUE_MALFORMED,
			"%s has %d bytes, not %d", name, len(message), want)
	}
	return nil
}

// expensive runs work behind the turnstile.
func (c *Ceremonies) expensive(ctx context.Context, from Origin, work func() error) error {
	if err := c.turnstile.enter(ctx, from.Prefix); err != nil {
		return err
	}
	defer c.turnstile.leave()
	return work()
}
