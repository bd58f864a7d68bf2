package projections

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	pb "quicprochat/proto/qpcv1"
)

func TestSessionLife(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice")
	w.now = 20_000*dayMS + 5
	w.do(sessionStarted("alice", 1, w.now+180*dayMS))
	want := Session{
		TokenHash: tokenOf("alice", 1), AccountID: accountID("alice"), DeviceKey: deviceKey("alice"),
		Scope: pb.SessionScope_DEVICE, LoginMS: w.now, ExpiresMS: w.now + 180*dayMS, LastDay: 20_000,
	}
	check := func() {
		t.Helper()
		s, found, err := SessionByToken(w.reader(), want.TokenHash)
		if err != nil || !found || s != want {
			t.Errorf("session: %+v, %v, %v, want %+v", s, found, err, want)
		}
		all, err := SessionsOf(w.reader(), want.AccountID)
		if err != nil || !cmp.Equal(all, []Session{want}) {
			t.Errorf("sessions of the account: %+v, %v", all, err)
		}
	}
	check()
	token := want.TokenHash
	w.now += 3 * dayMS
	w.do(&pb.SessionTouched{TokenHash: token[:], Day: 20_003})
	want.LastDay = 20_003
	check()
	before := w.digest()
	w.do(&pb.SessionTouched{TokenHash: token[:], Day: 20_003}) // the same day again
	check()
	if w.digest() == before {
		t.Error("the cursor did not move")
	}
	w.refuse(&pb.SessionTouched{TokenHash: token[:], Day: 20_002}, "day 20002 after day 20003")
	w.refuse(&pb.SessionTouched{TokenHash: bytesOf("x"), Day: 20_004}, "does not exist")
	w.refuse(&pb.SessionTouched{TokenHash: token[1:], Day: 20_004}, "token hash of 31 bytes")

	w.refuse(sessionsEnded(tokenOf("alice", 2)), "does not exist")
	w.refuse(sessionsEnded(token, token), "does not exist")
	w.do(sessionsEnded(token))
	if _, found, err := SessionByToken(w.reader(), token); found || err != nil {
		t.Errorf("an ended session: found %v, %v", found, err)
	}
	for _, prefix := range []byte{prefixSession, prefixAccountSession, prefixSessionExpiry, prefixSessionIdle} {
		if n := w.rows(prefix); n != 0 {
			t.Errorf("%d rows with prefix %#x are left", n, prefix)
		}
	}
}

func TestStrictSessions(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	w.do(sessionStarted("alice", 0, w.now+1))
	for _, c := range []struct {
		reason string
		spoil  func(*pb.SessionStarted)
	}{
		{"the session exists", func(s *pb.SessionStarted) { token := tokenOf("alice", 0); s.TokenHash = token[:] }},
		{"the account does not exist", func(s *pb.SessionStarted) { id := idOf("nobody"); s.AccountId = id[:] }},
		{"not an active one of the account", func(s *pb.SessionStarted) { s.DeviceKey = bytesOf("nobody") }},
		{"not an active one of the account", func(s *pb.SessionStarted) { key := deviceKey("bob"); s.DeviceKey = key[:] }},
		{"not an active one of the account", func(s *pb.SessionStarted) { key := identityKey("alice"); s.DeviceKey = key[:] }},
		{"device key of 0 bytes", func(s *pb.SessionStarted) { s.DeviceKey = nil }},
		{"an enroll session of a device", func(s *pb.SessionStarted) { s.Scope = pb.SessionScope_ENROLL_ONLY }},
		{"session of scope", func(s *pb.SessionStarted) { s.Scope = 0 }},
		{"session of scope", func(s *pb.SessionStarted) { s.Scope = 9 }},
		{"token hash of 31 bytes", func(s *pb.SessionStarted) { s.TokenHash = s.TokenHash[1:] }},
		{"account id of 15 bytes", func(s *pb.SessionStarted) { s.AccountId = s.AccountId[1:] }},
	} {
		ev := sessionStarted("alice", 1, w.now+1)
		c.spoil(ev)
		w.refuse(ev, c.reason)
	}
	enroll := sessionStarted("alice", 1, w.now+1)
	enroll.Scope, enroll.DeviceKey = pb.SessionScope_ENROLL_ONLY, nil
	w.do(enroll)
	s, _, err := SessionByToken(w.reader(), tokenOf("alice", 1))
	if err != nil || s.Scope != pb.SessionScope_ENROLL_ONLY || s.DeviceKey != (Key{}) {
		t.Errorf("enroll session: %+v, %v", s, err)
	}
}

func TestExpiredAt(t *testing.T) {
	const idle = 30 * dayMS
	s := Session{ExpiresMS: 200 * dayMS, LastDay: 100}
	for _, c := range []struct {
		now  uint64
		want bool
	}{
		{0, false},
		{131*dayMS - 1, false}, // the last use may have been at the end of day 100
		{131 * dayMS, true},
		{200 * dayMS, true},
	} {
		if got := s.ExpiredAt(c.now, idle); got != c.want {
			t.Errorf("at %d: %v", c.now, got)
		}
	}
	s.LastDay = 199
	if s.ExpiredAt(200*dayMS-1, idle) || !s.ExpiredAt(200*dayMS, idle) {
		t.Error("the absolute end is not at ExpiresMS")
	}
}

func TestExpiredSessionsAreThoseThatExpiredAtSays(t *testing.T) {
	const idle = 30 * dayMS
	w := newWorld(t)
	defer w.close()
	w.register("alice")
	w.now = 20_000 * dayMS
	base := w.now
	for n := range 40 {
		w.now += dayMS / 2
		w.do(sessionStarted("alice", n, base+uint64(n*7%40)*2*dayMS+dayMS))
	}
	all, err := SessionsOf(w.reader(), accountID("alice"))
	if err != nil || len(all) != 40 {
		t.Fatalf("sessions: %d, %v", len(all), err)
	}
	byToken := func(a, b Session) int { return bytes.Compare(a.TokenHash[:], b.TokenHash[:]) }
	for day := uint64(0); day < 90; day += 3 {
		now := base + day*dayMS + day
		var want []Session
		for _, s := range all {
			if s.ExpiredAt(now, idle) {
				want = append(want, s)
			}
		}
		got, err := ExpiredSessions(w.reader(), now, idle, 1000)
		slices.SortFunc(got, byToken)
		slices.SortFunc(want, byToken)
		if err != nil || len(got) != len(want) || (len(want) > 0 && !cmp.Equal(got, want)) {
			t.Errorf("day %d: %d sessions, want %d, %v", day, len(got), len(want), err)
		}
		some, err := ExpiredSessions(w.reader(), now, idle, 2)
		if err != nil || len(some) != min(2, len(want)) {
			t.Errorf("day %d with limit 2: %d sessions, %v", day, len(some), err)
		}
	}
}
