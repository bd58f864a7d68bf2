package commands

import (
	"crypto/sha256"
	"slices"

	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// LoginAttempt is what the OPAQUE ceremony has established when the client's
// KE3 was found right.
type LoginAttempt struct {
	Username string // canonical
	Account  [16]byte
	// RecordVersion is the version of the OPAQUE record that KE2 was made with.
	RecordVersion uint32
	LoginID       [LoginIDSize]byte
	// TranscriptHash is the SHA-256 of KE1 ‖ KE2 ‖ KE3.
	TranscriptHash [32]byte
}

// Login is an OpaqueLoginFinish whose password and key are proved. Only
// PrepareLogin makes one.
type Login struct {
	attempt LoginAttempt
	key     [KeySize]byte
}

// LoginFailed is the one answer to every login that fails: unknown name, wrong
// password, wrong signature, spent or unknown login_id, a password changed
// meanwhile. Telling them apart would tell who has an account. Its status is
// BadRequest: Unauthorized speaks of session tokens only.
func LoginFailed() error {
	return Refuse(pb.Status_BadRequest, pb.Reason_LOGIN_FAILED, "login failed")
}

// PrepareLogin verifies qpc-login-v1: whoever logs in holds the key that the
// session is asked for. Refusal: LoginFailed.
func PrepareLogin(serverName string, a LoginAttempt, req *pb.OpaqueLoginFinishRequest) (*Login, error) {
	s := statement.Login{
		ServerName:     serverName,
		Username:       a.Username,
		LoginID:        a.LoginID[:],
		TranscriptHash: a.TranscriptHash,
		Key:            req.GetIdentityKey(),
	}
	if err := s.Verify(req.GetIdentityKey(), req.GetSignature()); err != nil {
		return nil, LoginFailed()
	}
	return &Login{attempt: a, key: [KeySize]byte(req.GetIdentityKey())}, nil
}

// StartSession decides a login: a session of the device whose key signed, or one
// of scope ENROLL_ONLY when that key is no active device of the account. The
// token is drawn here; only its hash goes into the log, and no receipt holds it.
// Refusals: LoginFailed, also for a login that began before a password change;
// Forbidden BANNED.
func StartSession(tx *Tx, l *Login) (*pb.OpaqueLoginFinishResponse, error) {
	account, found, err := projections.AccountByID(tx.View(), l.attempt.Account)
	if err != nil {
		return nil, err
	}
	record, haveRecord, err := projections.OpaqueRecord(tx.View(), l.attempt.Account)
	if err != nil {
		return nil, err
	}
	if !found || !haveRecord || account.Username != l.attempt.Username || record.GetVersion() != l.attempt.RecordVersion {
		return nil, LoginFailed()
	}
	if err := refuseBanned(tx.View(), account.ID, tx.Now()); err != nil {
		return nil, err // only whoever knows the password learns it
	}
	token := tx.Random(TokenSize)
	hash := sha256.Sum256(token)
	session := &pb.SessionStarted{
		TokenHash: hash[:],
		AccountId: account.ID[:],
		Scope:     pb.SessionScope_ENROLL_ONLY,
		ExpiresMs: tx.Now() + SessionLifetimeMS,
	}
	if slices.Contains(account.Devices, l.key) {
		session.Scope = pb.SessionScope_DEVICE
		session.DeviceKey = l.key[:]
	}
	if err := tx.Emit(&pb.Event{Body: &pb.Event_SessionStarted{SessionStarted: session}}); err != nil {
		return nil, err
	}
	return &pb.OpaqueLoginFinishResponse{
		SessionToken:  token,
		Scope:         session.GetScope(),
		IdentityKey:   account.IdentityKey[:],
		ExpiresMs:     session.GetExpiresMs(),
		IdleTimeoutMs: SessionIdleMS,
		ServerTimeMs:  tx.Now(),
	}, nil
}

// NewStartSession makes the command of a login.
func NewStartSession(rule *pb.Rule, req *pb.OpaqueLoginFinishRequest, l *Login) (*Command, error) {
	return NewCommand(rule, req, func(tx *Tx) (*pb.OpaqueLoginFinishResponse, error) { return StartSession(tx, l) })
}
