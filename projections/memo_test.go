package projections

import (
	"encoding/binary"
	"sync"
	"testing"

	pb "quicprochat/proto/qpcv1"
)

// TestMemoSaysWhatTheStoreSays: whether the memo or the store is asked, a snapshot
// says the same, also of rows that are not there, and of those that changed since.
func TestMemoSaysWhatTheStoreSays(t *testing.T) {
	w := storyWorld(t)
	defer w.close()
	w.commit()
	before := w.views.Snapshot()
	defer before.Close()
	alice, _, err := AccountByName(before, "alice")
	if err != nil {
		t.Fatal(err)
	}
	ask := func(s *Snapshot, role pb.Role) {
		t.Helper()
		got, err := RoleOf(s, alice.ID)
		account, found, accountErr := AccountByName(s, "alice")
		_, stranger, strangerErr := AccountByName(s, "nobody-at-all")
		if err != nil || accountErr != nil || strangerErr != nil || got != role || !found || account.ID != alice.ID || stranger {
			t.Fatalf("role %v, %v; account %+v, %v, %v; a stranger: %v, %v", got, err, account, found, accountErr, stranger, strangerErr)
		}
	}
	for range memoAfter { // from the store, then from the memo
		ask(before, pb.Role_USER)
	}
	w.do(roleChanged("alice", pb.Role_ADMIN, &pb.Actor{Way: pb.Actor_SOCKET}))
	w.commit()
	after := w.views.Snapshot()
	defer after.Close()
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range memoAfter {
				ask(after, pb.Role_ADMIN)
				ask(before, pb.Role_USER)
			}
		})
	}
	readers.Wait()
	known := 0
	for _, s := range []*Snapshot{before, after} {
		known += len(s.memo.rows)
	}
	// Twice: alice's name, account and role, and a name that nobody has.
	if known != 8 {
		t.Errorf("%d rows are kept, want 8", known)
	}
}

// TestMemoIsBounded, and a snapshot that is hardly asked keeps nothing.
func TestMemoIsBounded(t *testing.T) {
	w := storyWorld(t)
	defer w.close()
	w.commit()
	s := w.views.Snapshot()
	defer s.Close()
	for n := range uint32(memoAfter + memoRows + 10) {
		if n < memoAfter && s.memo.rows != nil {
			t.Error("rows were kept at once")
		}
		id := ID{}
		binary.BigEndian.PutUint32(id[:], n)
		if _, err := RoleOf(s, id); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.memo.rows); n != memoRows {
		t.Errorf("%d rows are kept, want %d", n, memoRows)
	}
}
