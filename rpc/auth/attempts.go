package auth

import (
	"crypto/rand"
	"sync"
	"time"

	"quicprochat/commands"
	"quicprochat/rpc/pake"
)

const (
	// attemptLifetime is how long a login_id is good for.
	attemptLifetime = 60 * time.Second
	// maxAttempts bounds the table; each holds about 1 KiB.
	maxAttempts = 16_384
)

type loginID = [commands.LoginIDSize]byte

// attempt is a login between its two calls.
type attempt struct {
	connection uint64
	expires    time.Time
	username   string // canonical
	account    [16]byte
	// recordVersion is that of the record which KE2 was made with.
	recordVersion uint32
	state         *pake.LoginState
	transcript    []byte // KE1 ‖ KE2
}

// attempts hands each attempt out once.
type attempts struct {
	mu   sync.Mutex
	open map[loginID]*attempt
	// order lists ids by expiry, which is the order they came in; the ids of
	// attempts that were taken stay until their time.
	order []issued
}

type issued struct {
	id      loginID
	expires time.Time
}

func newAttempts() *attempts {
	return &attempts{open: make(map[loginID]*attempt)}
}

// put keeps an attempt and draws its id; false when the table is full.
func (t *attempts) put(a *attempt, now time.Time) (loginID, bool) {
	var id loginID
	rand.Read(id[:])
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.order) > 0 && !now.Before(t.order[0].expires) {
		delete(t.open, t.order[0].id)
		t.order = t.order[1:]
	}
	if len(t.order) >= maxAttempts {
		return loginID{}, false
	}
	a.expires = now.Add(attemptLifetime)
	t.open[id] = a
	t.order = append(t.order, issued{id, a.expires})
	return id, true
}

// take removes an attempt. It is nil for an id that was never given, was taken
// before, has expired, or was given to another connection; the last one spends
// it as well.
func (t *attempts) take(id []byte, connection uint64, now time.Time) *attempt {
	if len(id) != commands.LoginIDSize {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.open[loginID(id)]
	delete(t.open, loginID(id))
	if a == nil || a.connection != connection || !now.Before(a.expires) {
		return nil
	}
	return a
}
