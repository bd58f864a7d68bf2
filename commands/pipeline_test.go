package commands

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

// isWAL matches the write-ahead log of the log store.
func isWAL(name string) bool {
	return strings.HasPrefix(name, bedDir+"/log/") && strings.HasSuffix(name, ".log")
}

func isAnchor(name string) bool { return name == bedDir+"/anchor" }

// replies collects the outcomes of commands that run at the same time.
type replies struct {
	mu   sync.Mutex
	done map[string]error
}

func (r *replies) start(name string, do func() error) {
	go func() {
		err := do()
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.done == nil {
			r.done = make(map[string]error)
		}
		r.done[name] = err
	}()
}

func (r *replies) list() map[string]error {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := make(map[string]error, len(r.done))
	for k, v := range r.done {
		got[k] = v
	}
	return got
}

// wait returns when n replies came.
func (r *replies) wait(n int) map[string]error {
	for {
		if got := r.list(); len(got) >= n {
			return got
		}
		time.Sleep(time.Millisecond)
	}
}

// While a group is not synced, or not anchored, nothing tells of it: not its
// reply, not a view, not the replay of its receipt, not a refusal that depends
// on it, not a hook.
func TestNothingIsRevealedBeforeItIsAnchored(t *testing.T) {
	for name, match := range map[string]func(string) bool{"sync": isWAL, "anchor": isAnchor} {
		t.Run(name, func(t *testing.T) {
			gate := newGateFS(vfs.NewMem(), match)
			b := newBed(t, gate)
			defer b.close()
			defer gate.set(false)
			alice, bob := b.register(1), b.register(2)
			var mu sync.Mutex
			told := 0
			b.engine.OnPublish(func(p Published) { mu.Lock(); told += len(p.Messages); mu.Unlock() })
			before := b.engine.Counters()
			gate.set(true)

			var r replies
			command := sending(alice, bob, requestID(b.engine.Now(), 1), []byte("x"))
			run := func(c *Command) func() error {
				return func() error { _, err := b.engine.Do(context.Background(), c); return err }
			}
			r.start("first", run(command))
			gate.waitHeld(1)
			r.start("replay", run(command))
			reused := *command
			reused.RequestHash[0]++
			r.start("refusal", run(&reused))
			r.start("no event", run(&Command{Auth: pb.Auth_NONE, Decide: nothing}))
			waitCommands(b.engine, before.Commands+4)
			time.Sleep(30 * time.Millisecond) // let what could go wrong go wrong
			if got := r.list(); len(got) != 0 {
				t.Errorf("answered before the group was durable: %v", got)
			}
			if n := len(b.items(bob)); n != 0 {
				t.Errorf("a view shows %d messages of an unpublished group", n)
			}
			anchored := before.Published
			if name == "sync" { // an anchor that is being written is locked
				anchored, _ = b.log.Anchored()
			}
			if now := b.engine.Counters(); now.Published != before.Published || anchored != before.Published || b.log.Size() == before.Published {
				t.Errorf("published %d, anchored %d, log %d; before %d", now.Published, anchored, b.log.Size(), before.Published)
			}
			mu.Lock()
			if told != 0 {
				t.Errorf("hooks were told of %d messages", told)
			}
			mu.Unlock()

			gate.set(false)
			got := r.wait(4)
			if got["first"] != nil || got["replay"] != nil || got["no event"] != nil {
				t.Errorf("outcomes %v", got)
			}
			wantRefusal(t, got["refusal"], pb.Status_BadRequest, pb.Reason_REQUEST_ID_REUSED)
			if n := len(b.items(bob)); n != 1 {
				t.Errorf("%d messages, want 1", n)
			}
		})
	}
}

// waitCommands waits until the writer has taken n commands in all.
func waitCommands(e *Engine, n uint64) {
	for e.Counters().Commands < n {
		time.Sleep(time.Millisecond)
	}
}

// While the disk is busy, groups fill up instead of becoming many.
func TestPipelineIsBounded(t *testing.T) {
	gate := newGateFS(vfs.NewMem(), isWAL)
	b := newBed(t, gate)
	defer b.close()
	defer gate.set(false)
	alice, bob := b.register(1), b.register(2)
	before := b.engine.Counters()
	gate.set(true)
	var r replies
	const senders = 200
	for i := range senders {
		r.start(fmt.Sprint(i), func() error { _, err := b.send(alice, bob, uint64(i), "x"); return err })
		if i < pipelineDepth { // each fills a group of its own
			waitCommands(b.engine, before.Commands+uint64(i)+1)
			time.Sleep(5 * time.Millisecond)
		}
	}
	waitCommands(b.engine, before.Commands+senders)
	if n := b.engine.Counters().Groups - before.Groups; n > pipelineDepth {
		t.Errorf("%d groups are in flight, at most %d may be", n, pipelineDepth)
	}
	gate.set(false)
	for name, err := range r.wait(senders) {
		if err != nil {
			t.Errorf("sender %s: %v", name, err)
		}
	}
	if n := b.engine.Counters().Groups - before.Groups; n > pipelineDepth+1 {
		t.Errorf("%d groups for what waited during one sync, want at most %d", n, pipelineDepth+1)
	}
	seen := make(map[uint64]bool)
	for _, item := range b.items(bob) {
		seen[item.Seq] = true
	}
	if len(seen) != senders {
		t.Errorf("%d positions for %d messages", len(seen), senders)
	}
}

// One group is one log batch and at most one log sync; one acker round is at
// most one anchor sync.
func TestIOBudget(t *testing.T) {
	wal := newGateFS(vfs.NewMem(), isWAL)
	anchor := newGateFS(wal, isAnchor)
	b := newBed(t, anchor)
	defer b.close()
	alice, bob := b.register(1), b.register(2)
	engine, store := b.engine.Counters(), b.log.Counters()
	walSyncs, anchorSyncs := wal.count(), anchor.count()
	var wg sync.WaitGroup
	const workers, each = 16, 50
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				if _, err := b.send(alice, bob, uint64(w*each+i), "x"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	engineNow, storeNow := b.engine.Counters(), b.log.Counters()
	groups, rounds := engineNow.Groups-engine.Groups, engineNow.Rounds-engine.Rounds
	t.Logf("%d commands in %d groups, %d rounds; %d log syncs, %d anchor syncs", workers*each, groups, rounds, wal.count()-walSyncs, anchor.count()-anchorSyncs)
	if batches := storeNow.Batches - store.Batches; batches != groups {
		t.Errorf("%d log batches for %d groups", batches, groups)
	}
	if records := storeNow.Records - store.Records; records != workers*each || engineNow.Events-engine.Events != records {
		t.Errorf("%d records for %d commands of one event", records, workers*each)
	}
	if syncs := wal.count() - walSyncs; uint64(syncs) > groups {
		t.Errorf("%d log syncs for %d groups", syncs, groups)
	}
	if syncs := anchor.count() - anchorSyncs; uint64(syncs) > rounds {
		t.Errorf("%d anchor syncs for %d acker rounds", syncs, rounds)
	}
	if payloads := storeNow.Payloads - store.Payloads; payloads != workers*each {
		t.Errorf("%d payloads for %d messages", payloads, workers*each)
	}
}

func (g *gateFS) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.passed
}

// holdWriter lets n commands wait behind one that is under decision, and
// returns what lets the writer go on.
func (b *bed) holdWriter() (release func()) {
	hold, held := make(chan struct{}), make(chan struct{})
	go b.do([32]byte{}, pb.Auth_NONE, func(*Tx) (proto.Message, error) { close(held); <-hold; return nil, nil })
	<-held
	waitAlone(b.engine)
	return func() { close(hold) }
}

func TestGroupBounds(t *testing.T) {
	big := bytes.Repeat([]byte{1}, 1<<20)
	for _, c := range []struct {
		name    string
		payload []byte
		entries int
		count   int
		groups  uint64
	}{
		// The command that holds the writer is the first of the first group.
		{"commands", []byte("x"), 0, 2*maxGroupCommands + 1, 3},
		{"bytes", big, 0, 21, 3}, // 7 of a little over 1 MiB fit 8 MiB
		{"entries", []byte("x"), maxGroupEntries - 2, 9, 3},
		{"alone", []byte("x"), 2 * maxGroupEntries, 3, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, vfs.NewMem())
			defer b.close()
			alice, bob := b.register(1), b.register(2)
			before := b.engine.Counters()
			release := b.holdWriter()
			var r replies
			for i := range c.count {
				command := sending(alice, bob, requestID(b.engine.Now(), uint64(i)), c.payload)
				command.Entries = c.entries
				r.start(fmt.Sprint(i), func() error { _, err := b.engine.Do(context.Background(), command); return err })
			}
			waitQueued(b.engine, c.count+1)
			release()
			for name, err := range r.wait(c.count) {
				if err != nil {
					t.Errorf("command %s: %v", name, err)
				}
			}
			if n := b.engine.Counters().Groups - before.Groups; n != c.groups {
				t.Errorf("%d groups, want %d", n, c.groups)
			}
			if n := len(b.items(bob)); n != c.count {
				t.Errorf("%d messages, want %d", n, c.count)
			}
		})
	}
}

// A group with key events ends with a HEAD, and no other group does.
func TestHeadsEndGroupsWithKeyEvents(t *testing.T) {
	b := newBed(t, vfs.NewMem())
	defer b.close()
	if size := b.log.Size(); size != 2 || !b.endsWithHead() {
		t.Errorf("after the start the log has size %d", size)
	}
	alice := b.register(1)
	size := b.log.Size()
	if !b.endsWithHead() {
		t.Error("a registration does not end with a HEAD")
	}
	b.mustSend(alice, alice, 1, "no key event")
	if b.log.Size() != size+1 || b.endsWithHead() {
		t.Errorf("a message took the log from %d to %d", size, b.log.Size())
	}
}

// endsWithHead tells whether the newest record is a HEAD.
func (b *bed) endsWithHead() bool {
	b.t.Helper()
	rec, err := b.log.Record(b.log.Size() - 1)
	if err != nil {
		b.t.Fatal(err)
	}
	return mustDecode(b.t, rec.Event).GetHeadSealed() != nil
}

func TestHeadsComeByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, vfs.NewMem())
		defer b.close()
		alice := b.register(1)
		size := b.log.Size()
		time.Sleep(headEvery - time.Second)
		synctest.Wait()
		if b.log.Size() != size {
			t.Errorf("%d records without a cause", b.log.Size()-size)
		}
		b.mustSend(alice, alice, 1, "a message")
		time.Sleep(time.Second)
		synctest.Wait()
		if b.log.Size() != size+2 || !b.endsWithHead() {
			t.Errorf("a minute took the log from %d to %d", size, b.log.Size())
		}
		time.Sleep(3 * headEvery)
		synctest.Wait()
		if n := b.log.Size() - size - 2; n != 3 {
			t.Errorf("%d HEADs in three minutes", n)
		}
	})
}
