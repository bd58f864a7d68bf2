package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/commands/datadir"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/pake"
)

// LoginStart serves method 102. Known and unknown names are answered alike.
// Refusals: BadRequest USERNAME_INVALID, MISSING_FIELD, OPAQUE_MALFORMED;
// Unavailable OVERLOADED.
func (c *Ceremonies) LoginStart(ctx context.Context, from Origin, req *pb.OpaqueLoginStartRequest) (*pb.OpaqueLoginStartResponse, error) {
	name, err := canonical(req.GetUsername())
	if err != nil {
		return nil, err
	}
	if err := size("login_request", req.GetLoginRequest(), pake.KE1Size); err != nil {
		return nil, err
	}
	a := &attempt{connection: from.Connection, username: name}
	var ke2 []byte
	err = c.expensive(ctx, from, func() error {
		stored, err := c.lookUp(name)
		if err != nil {
			return err
		}
		a.account, a.recordVersion = stored.account, stored.record.GetVersion()
		record, identifier, err := c.choose(name, stored)
		if err != nil {
			return err
		}
		ke2, a.state, err = c.opaque.LoginStart(req.GetLoginRequest(), record, identifier)
		return malformed(err)
	})
	if err != nil {
		return nil, err
	}
	a.transcript = append(append(make([]byte, 0, pake.KE1Size+pake.KE2Size), req.GetLoginRequest()...), ke2...)
	id, ok := c.attempts.put(a, time.Now())
	if !ok {
		return nil, overloaded()
	}
	return &pb.OpaqueLoginStartResponse{LoginResponse: ke2, LoginId: id[:], ServerTimeMs: c.engine.Now()}, nil
}

// stored is what the views know of a name.
type stored struct {
	known   bool
	account [16]byte
	record  *pb.OpaqueRecord // the decoy of an unknown name
}

// lookUp reads the record of a name. An unknown one costs the same reads and
// the same decoding.
func (c *Ceremonies) lookUp(name string) (stored, error) {
	view, err := c.engine.View()
	if err != nil {
		return stored{}, err
	}
	defer view.Release()
	account, known, err := projections.AccountByName(view.Reader, name)
	if err != nil {
		return stored{}, err
	}
	record, found, err := projections.OpaqueRecord(view.Reader, account.ID)
	if err != nil {
		return stored{}, err
	}
	decoy := new(pb.OpaqueRecord)
	if err := proto.Unmarshal(c.decoy, decoy); err != nil {
		return stored{}, fmt.Errorf("decode the fake record: %w", err)
	}
	if !known || !found {
		return stored{record: decoy}, nil
	}
	if record.GetKeyVersion() != datadir.OPAQUEVersion {
		return stored{}, fmt.Errorf("OPAQUE record with key version %d, only %d is there", record.GetKeyVersion(), datadir.OPAQUEVersion)
	}
	return stored{known: true, account: account.ID, record: record}, nil
}

// choose decodes the record, which is the fake one of an unknown name, and gives
// the identifier that goes with it; both kinds of identifier are made.
func (c *Ceremonies) choose(name string, s stored) (*pake.Record, []byte, error) {
	record, err := c.opaque.ParseRecord(s.record.GetUpload())
	if err != nil {
		return nil, nil, fmt.Errorf("stored OPAQUE record: %w", unwrapMalformed(err))
	}
	mac := hmac.New(sha256.New, c.fakeKey)
	mac.Write([]byte(name))
	identifier := mac.Sum(nil)
	if s.known {
		return record, s.record.GetCredentialId(), nil
	}
	return record, identifier, nil
}

// unwrapMalformed hides that a stored record is malformed from malformed, which
// would blame the client.
func unwrapMalformed(err error) error { return fmt.Errorf("%s", err.Error()) }

// LoginFinish serves method 103. Refusals: BadRequest OPAQUE_MALFORMED for a KE3
// of another length, and commands.LoginFailed for everything else that is
// wrong.
func (c *Ceremonies) LoginFinish(ctx context.Context, from Origin, req *pb.OpaqueLoginFinishRequest) (*pb.OpaqueLoginFinishResponse, error) {
	if err := size("finalization", req.GetFinalization(), pake.KE3Size); err != nil {
		return nil, err
	}
	a := c.attempts.take(req.GetLoginId(), from.Connection, time.Now())
	if a == nil {
		return nil, commands.LoginFailed()
	}
	var login *commands.Login
	err := c.expensive(ctx, from, func() (err error) {
		login, err = c.verify(a, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	command, err := commands.NewStartSession(rule(req), req, login)
	if err != nil {
		return nil, err
	}
	response, err := c.engine.Do(ctx, command)
	if err != nil {
		return nil, err
	}
	return response.(*pb.OpaqueLoginFinishResponse), nil
}

// verify checks KE3 and the signature over the whole exchange.
func (c *Ceremonies) verify(a *attempt, req *pb.OpaqueLoginFinishRequest) (*commands.Login, error) {
	name, err := canonical(req.GetUsername())
	if err != nil || name != a.username {
		return nil, commands.LoginFailed()
	}
	if _, err := c.opaque.LoginFinish(a.state, req.GetFinalization()); err != nil {
		return nil, commands.LoginFailed()
	}
	return commands.PrepareLogin(c.serverName, commands.LoginAttempt{
		Username:       a.username,
		Account:        a.account,
		RecordVersion:  a.recordVersion,
		LoginID:        loginID(req.GetLoginId()),
		TranscriptHash: sha256.Sum256(append(a.transcript, req.GetFinalization()...)),
	}, req)
}
