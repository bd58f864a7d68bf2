package client

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/pake"
)

// maxLogins bounds how often Login starts over: each start is charged to the
// login budget of the name.
const maxLogins = 3

// tokenSize is the size of a session token in bytes.
const tokenSize = 32

// Login opens a session with a device key and makes the Client use it. A key
// that is not an active device of the account gets a session of scope
// ENROLL_ONLY. Errors: ErrLoginFailed, *StatusError (BANNED, rate limits), and
// those of Call.
//
// The two halves of a login are bound to one connection and good for one try:
// when the connection or an answer is lost between, Login starts over.
func (c *Client) Login(ctx context.Context, username string, password []byte, deviceKey ed25519.PrivateKey) (*Session, error) {
	username, err := statement.CanonicalUsername(username)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if len(deviceKey) != ed25519.PrivateKeySize {
		return nil, errors.New("client: the device key must be an Ed25519 private key")
	}
	for n := 1; ; n++ {
		session, err := c.login(ctx, username, password, deviceKey)
		if err == nil {
			c.swapSession(session)
			return session, nil
		}
		if n >= maxLogins || !c.startOver(ctx, err) {
			return nil, loginError(err)
		}
		if werr := backOff(ctx, c.ctx, n, err); werr != nil {
			return nil, werr
		}
	}
}

// startOver is true for failures that a new login may not meet.
func (c *Client) startOver(ctx context.Context, err error) bool {
	var status *StatusError
	var connect *ConnectError
	var name *ServerNameError
	switch {
	case ctx.Err() != nil, errors.Is(err, ErrClosed), errors.Is(err, ErrProtocol), errors.As(err, &name):
		return false
	case errors.Is(err, pake.ErrAuthentication), errors.Is(err, pake.ErrMalformed):
		return false
	case errors.As(err, &status):
		return status.Status == pb.Status_Unavailable
	case errors.As(err, &connect):
		return !connect.Permanent
	}
	return true
}

// loginError makes the two ways in which a wrong password shows into one: the
// client can't open the envelope, or the server refuses the proof.
func loginError(err error) error {
	if errors.Is(err, pake.ErrAuthentication) {
		return ErrLoginFailed
	}
	if ReasonOf(err) == pb.Reason_LOGIN_FAILED {
		return fmt.Errorf("%w (%w)", ErrLoginFailed, err)
	}
	return err
}

// login is one try.
func (c *Client) login(ctx context.Context, username string, password []byte, deviceKey ed25519.PrivateKey) (*Session, error) {
	conn, err := c.connection(ctx)
	if err != nil {
		return nil, err
	}
	state, ke1, err := pake.StartLogin(password, c.cfg.KSF)
	if err != nil {
		return nil, err
	}
	start := new(pb.OpaqueLoginStartResponse)
	if err := c.callOn(ctx, conn, &pb.OpaqueLoginStartRequest{Username: username, LoginRequest: ke1}, start); err != nil {
		return nil, err
	}
	ke3, _, exportKey, err := state.Finish(start.LoginResponse)
	if err != nil {
		return nil, err
	}
	key := public(deviceKey)
	proof := statement.Login{
		ServerName:     c.cfg.ServerName,
		Username:       username,
		LoginID:        start.LoginId,
		TranscriptHash: transcript(ke1, start.LoginResponse, ke3),
		Key:            key,
	}
	finish := new(pb.OpaqueLoginFinishResponse)
	err = c.callOn(ctx, conn, &pb.OpaqueLoginFinishRequest{
		Username:     username,
		Finalization: ke3,
		IdentityKey:  key,
		LoginId:      start.LoginId,
		Signature:    proof.Sign(deviceKey),
	}, finish)
	if err != nil {
		return nil, err
	}
	if len(finish.SessionToken) != tokenSize || len(finish.IdentityKey) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: login: session token of %d bytes, identity key of %d", ErrProtocol,
			len(finish.SessionToken), len(finish.IdentityKey))
	}
	return &Session{
		Username:    username,
		Token:       finish.SessionToken,
		Scope:       finish.Scope,
		IdentityKey: finish.IdentityKey,
		DeviceKey:   key,
		Expires:     time.UnixMilli(int64(finish.ExpiresMs)),
		IdleTimeout: time.Duration(finish.IdleTimeoutMs) * time.Millisecond,
		ExportKey:   exportKey,
	}, nil
}

// transcript is SHA-256(KE1 ‖ KE2 ‖ KE3).
func transcript(ke1, ke2, ke3 []byte) (sum [32]byte) {
	h := sha256.New()
	h.Write(ke1)
	h.Write(ke2)
	h.Write(ke3)
	h.Sum(sum[:0])
	return sum
}

// callOn makes one attempt of a call on a given connection.
func (c *Client) callOn(ctx context.Context, conn *quic.Conn, req, resp proto.Message) error {
	m, ok := rpc.MethodOf(req)
	if !ok {
		return fmt.Errorf("client: %T is not the request of a method", req)
	}
	buf := getBuffer()
	defer putBuffer(buf)
	a := attempts{method: m, req: req}
	if err := c.buildFrame(buf, &a); err != nil {
		return err
	}
	_, err := c.exchange(ctx, conn, m, *buf, c.timeoutOf(req), resp)
	return err
}
