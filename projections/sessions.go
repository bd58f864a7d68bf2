package projections

import (
	"encoding/binary"

	pb "quicprochat/proto/qpcv1"
)

const dayMS = 24 * 60 * 60 * 1000

// Session is one login.
type Session struct {
	// TokenHash is the SHA-256 of the bearer token.
	TokenHash Hash
	AccountID ID
	// DeviceKey is zero for scope ENROLL_ONLY.
	DeviceKey Key
	Scope     pb.SessionScope
	LoginMS   uint64
	// ExpiresMS is when it ends at the latest, Unix milliseconds.
	ExpiresMS uint64
	// LastDay is the UTC day of the last use, in days since 1970-01-01.
	LastDay uint32
}

// ExpiredAt tells whether the session is over at nowMS: ExpiresMS has come, or
// the UTC day of its last use ended at least idleMS ago.
func (s Session) ExpiredAt(nowMS, idleMS uint64) bool {
	return nowMS >= s.ExpiresMS || s.LastDay < idleSince(nowMS, idleMS)
}

// idleSince is the first day on which a session must have been used.
func idleSince(nowMS, idleMS uint64) uint32 {
	if nowMS < idleMS {
		return 0
	}
	return dayOf(nowMS - idleMS)
}

func dayOf(ms uint64) uint32 { return uint32(ms / dayMS) }

func applySessionStarted(b *Batch, ev *pb.SessionStarted, nowMS uint64) error {
	s, err := sessionOf(ev, nowMS)
	if err != nil {
		return err
	}
	if _, found, err := b.get(keyOfID(b.scratch(), prefixAccount, s.AccountID)); err != nil || !found {
		return orInvalid(err, "the account does not exist")
	}
	if s.Scope == pb.SessionScope_DEVICE {
		device, found, err := DeviceByKey(b, s.DeviceKey)
		if err != nil || !found || device.AccountID != s.AccountID {
			return orInvalid(err, "the device is not an active one of the account")
		}
	}
	if _, found, err := b.get(keyOf32(b.scratch(), prefixSession, s.TokenHash)); err != nil || found {
		return orInvalid(err, "the session exists")
	}
	if err := b.putSession(&s); err != nil {
		return err
	}
	if err := b.put(accountSessionKey(b.scratch(), s.AccountID, s.TokenHash), nil); err != nil {
		return err
	}
	if err := b.put(sessionExpiryKey(b.scratch(), s.ExpiresMS, s.TokenHash), nil); err != nil {
		return err
	}
	return b.put(sessionIdleKey(b.scratch(), s.LastDay, s.TokenHash), nil)
}

// sessionOf reads the event's fields.
func sessionOf(ev *pb.SessionStarted, nowMS uint64) (s Session, err error) {
	s = Session{Scope: ev.GetScope(), LoginMS: nowMS, ExpiresMS: ev.GetExpiresMs(), LastDay: dayOf(nowMS)}
	if s.TokenHash, err = field32(ev.GetTokenHash(), "token hash"); err != nil {
		return s, err
	}
	if s.AccountID, err = fieldID(ev.GetAccountId(), "account id"); err != nil {
		return s, err
	}
	switch s.Scope {
	case pb.SessionScope_DEVICE:
		s.DeviceKey, err = field32(ev.GetDeviceKey(), "device key")
	case pb.SessionScope_ENROLL_ONLY:
		if len(ev.GetDeviceKey()) != 0 {
			err = invalid("an enroll session of a device")
		}
	default:
		err = invalid("session of scope %d", s.Scope)
	}
	return s, err
}

// applySessionTouched notes the first use on a UTC day.
func applySessionTouched(b *Batch, ev *pb.SessionTouched) error {
	token, err := field32(ev.GetTokenHash(), "token hash")
	if err != nil {
		return err
	}
	s, found, err := SessionByToken(b, token)
	if err != nil || !found {
		return orInvalid(err, "the session does not exist")
	}
	if ev.GetDay() < s.LastDay {
		return invalid("session touched on day %d after day %d", ev.GetDay(), s.LastDay)
	}
	if ev.GetDay() == s.LastDay {
		return nil
	}
	if err := b.remove(sessionIdleKey(b.scratch(), s.LastDay, token)); err != nil {
		return err
	}
	s.LastDay = ev.GetDay()
	if err := b.put(sessionIdleKey(b.scratch(), s.LastDay, token), nil); err != nil {
		return err
	}
	return b.putSession(&s)
}

func applySessionsEnded(b *Batch, ev *pb.SessionsEnded) error {
	for _, hash := range ev.GetTokenHashes() {
		token, err := field32(hash, "token hash")
		if err != nil {
			return err
		}
		if err := b.endSession(token); err != nil {
			return err
		}
	}
	return nil
}

func (b *Batch) endSession(token Hash) error {
	s, found, err := SessionByToken(b, token)
	if err != nil || !found {
		return orInvalid(err, "the session does not exist")
	}
	if err := b.remove(accountSessionKey(b.scratch(), s.AccountID, token)); err != nil {
		return err
	}
	if err := b.remove(sessionExpiryKey(b.scratch(), s.ExpiresMS, token)); err != nil {
		return err
	}
	if err := b.remove(sessionIdleKey(b.scratch(), s.LastDay, token)); err != nil {
		return err
	}
	return b.remove(keyOf32(b.scratch(), prefixSession, token))
}

// endOtherSessions ends all sessions of an account but one, which must be its.
func (b *Batch) endOtherSessions(account ID, kept Hash) error {
	tokens, err := sessionTokens(b, account)
	if err != nil {
		return err
	}
	keptFound := false
	for _, token := range tokens {
		if token == kept {
			keptFound = true
			continue
		}
		if err := b.endSession(token); err != nil {
			return err
		}
	}
	if !keptFound {
		return invalid("the kept session is none of the account's")
	}
	return nil
}

func (b *Batch) putSession(s *Session) error {
	row := append(b.row[:0], s.AccountID[:]...)
	row = append(row, s.DeviceKey[:]...)
	row = append(row, byte(s.Scope))
	row = binary.BigEndian.AppendUint64(row, s.LoginMS)
	row = binary.BigEndian.AppendUint64(row, s.ExpiresMS)
	b.row = binary.BigEndian.AppendUint32(row, s.LastDay)
	return b.put(keyOf32(b.scratch(), prefixSession, s.TokenHash), b.row)
}

// SessionByToken finds a session by the SHA-256 of its token. It is found until
// an event ends it: see ExpiredAt.
func SessionByToken(r Reader, tokenHash Hash) (Session, bool, error) {
	s, found, err := readRow(r, "sessions", keyOf32(r.scratch(), prefixSession, tokenHash), func(in *rowReader) Session {
		return Session{
			AccountID: in.id(), DeviceKey: in.array32(), Scope: pb.SessionScope(in.u8()),
			LoginMS: in.u64(), ExpiresMS: in.u64(), LastDay: in.u32(),
		}
	})
	s.TokenHash = tokenHash
	return s, found, err
}

// sessionTokens lists the token hashes of an account's sessions.
func sessionTokens(r Reader, account ID) (tokens []Hash, err error) {
	err = scanView(r, keyOfID(nil, prefixAccountSession, account), func(key, _ []byte) (bool, error) {
		tokens = append(tokens, Hash(key[1+len(account):]))
		return true, nil
	})
	return tokens, err
}

// SessionsOf lists an account's sessions, in no meaningful order.
func SessionsOf(r Reader, account ID) ([]Session, error) {
	tokens, err := sessionTokens(r, account)
	if err != nil {
		return nil, err
	}
	return sessionsByToken(r, tokens)
}

func sessionsByToken(r Reader, tokens []Hash) ([]Session, error) {
	sessions := make([]Session, 0, len(tokens))
	for _, token := range tokens {
		s, found, err := SessionByToken(r, token)
		if err != nil {
			return nil, err
		}
		if found {
			sessions = append(sessions, s)
		}
	}
	return sessions, nil
}

// ExpiredSessions lists up to limit sessions for which ExpiredAt holds: their
// SessionsEnded event is due.
func ExpiredSessions(r Reader, nowMS, idleMS uint64, limit int) ([]Session, error) {
	var tokens []Hash
	seen := make(map[Hash]bool)
	collect := func(key, _ []byte) (bool, error) {
		token := Hash(key[len(key)-len(Hash{}):])
		if len(tokens) < limit && !seen[token] {
			seen[token] = true
			tokens = append(tokens, token)
		}
		return len(tokens) < limit, nil
	}
	expired := keyOfU64(nil, prefixSessionExpiry, nowMS)
	if err := scanRows(r, keyOf(nil, prefixSessionExpiry), keyRangeEnd(expired), collect); err != nil {
		return nil, err
	}
	idle := keyOfU32(nil, prefixSessionIdle, idleSince(nowMS, idleMS))
	if err := scanRows(r, keyOf(nil, prefixSessionIdle), idle, collect); err != nil {
		return nil, err
	}
	return sessionsByToken(r, tokens)
}
