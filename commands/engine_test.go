package commands

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// wantRefusal checks status and reason of an error.
func wantRefusal(t testing.TB, err error, status pb.Status, reason pb.Reason) {
	t.Helper()
	if r := AsRefusal(err); r == nil || r.Status != status || r.Reason != reason {
		t.Errorf("got %v, want %v %v", err, status, reason)
	}
}

// do runs a decide function for a session.
func (b *bed) do(token [32]byte, level pb.Auth_Level, decide func(*Tx) (proto.Message, error)) (proto.Message, error) {
	return b.engine.Do(context.Background(), &Command{Auth: level, Token: token, Decide: decide})
}

func nothing(*Tx) (proto.Message, error) { return nil, nil }

func TestReplyMeansVisible(t *testing.T) {
	b := newBed(t, vfs.NewMem())
	defer b.close()
	alice, bob := b.register(1), b.register(2)
	for i := range 20 {
		id := b.mustSend(alice, bob, uint64(i), "hello")
		items := b.items(bob)
		if len(items) != i+1 || !bytes.Equal(items[i].MessageID[:], id) {
			t.Fatalf("after reply %d the published queue holds %d items", i, len(items))
		}
		data, found, err := b.engine.Payload(bob.account, items[i].MessageID)
		if err != nil || !found || string(data) != "hello" {
			t.Fatalf("payload: %q, %v, %v", data, found, err)
		}
	}
	size, root := b.log.Anchored()
	if size != b.log.Size() || root != b.log.Root() {
		t.Errorf("everything is answered, but only %d of %d records are anchored", size, b.log.Size())
	}
}

func TestHooksTellNewMessagesAndEndedSessions(t *testing.T) {
	b := newBed(t, vfs.NewMem())
	defer b.close()
	alice, bob := b.register(1), b.register(2)
	var got []NewMessage
	var ended []projections.Hash
	b.engine.OnPublish(func(p Published) {
		got = append(got, p.Messages...)
		ended = append(ended, p.Ended...)
	})
	id := b.mustSend(alice, bob, 1, "four")
	other := [32]byte{9}
	if _, err := b.do(alice.token, pb.Auth_SESSION, func(tx *Tx) (proto.Message, error) {
		return nil, startPersona(tx, alice, other)
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.do(alice.token, pb.Auth_SESSION, func(tx *Tx) (proto.Message, error) {
		return nil, tx.Emit(&pb.Event{Body: &pb.Event_PasswordChanged{PasswordChanged: &pb.PasswordChanged{
			AccountId: alice.account[:], KeptSession: alice.token[:],
			Opaque: &pb.OpaqueRecord{Upload: make([]byte, 192), CredentialId: make([]byte, 32), KeyVersion: 1, Version: 1},
		}}})
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.do(bob.token, pb.Auth_SESSION, endSession(bob.token)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.do([32]byte{}, pb.Auth_NONE, nothing); err != nil {
		t.Fatal(err)
	}
	want := NewMessage{DeviceKey: bob.device, Seq: 1, MessageID: projections.ID(id), Owner: bob.account, Size: 4}
	if len(got) != 1 || got[0] != want {
		t.Errorf("new messages %+v, want %+v", got, want)
	}
	if len(ended) != 2 || ended[0] != other || ended[1] != bob.token {
		t.Errorf("ended sessions %x, want the other one of alice and bob's", ended)
	}
}

func endSession(token [32]byte) func(*Tx) (proto.Message, error) {
	return func(tx *Tx) (proto.Message, error) {
		return nil, tx.Emit(&pb.Event{Body: &pb.Event_SessionsEnded{SessionsEnded: &pb.SessionsEnded{
			TokenHashes: [][]byte{token[:]}, Cause: pb.SessionsEnded_LOGGED_OUT,
		}}})
	}
}

func TestCallerIsCheckedAgainBeforeDeciding(t *testing.T) {
	b := newBed(t, vfs.NewMem())
	defer b.close()
	alice := b.register(1)
	enroll := [32]byte{7}
	if _, err := b.do([32]byte{}, pb.Auth_NONE, func(tx *Tx) (proto.Message, error) {
		return nil, tx.Emit(&pb.Event{Body: &pb.Event_SessionStarted{SessionStarted: &pb.SessionStarted{
			TokenHash: enroll[:], AccountId: alice.account[:], Scope: pb.SessionScope_ENROLL_ONLY, ExpiresMs: tx.Now() + dayMS,
		}}})
	}); err != nil {
		t.Fatal(err)
	}
	ran := 0
	count := func(tx *Tx) (proto.Message, error) { ran++; return nil, nil }
	for _, c := range []struct {
		name   string
		token  [32]byte
		level  pb.Auth_Level
		status pb.Status
		reason pb.Reason
	}{
		{"no token", [32]byte{}, pb.Auth_SESSION, pb.Status_Unauthorized, pb.Reason_TOKEN_MISSING},
		{"no token for enroll", [32]byte{}, pb.Auth_ENROLL, pb.Status_Unauthorized, pb.Reason_TOKEN_MISSING},
		{"unknown token", [32]byte{1}, pb.Auth_SESSION, pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID},
		{"unknown optional token", [32]byte{1}, pb.Auth_OPTIONAL, pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID},
		{"enroll scope", enroll, pb.Auth_SESSION, pb.Status_Forbidden, pb.Reason_SCOPE},
		{"enroll scope, fresh", enroll, pb.Auth_FRESH, pb.Status_Forbidden, pb.Reason_SCOPE},
		{"moderator", alice.token, pb.Auth_MODERATOR, pb.Status_Forbidden, pb.Reason_ROLE},
		{"admin", alice.token, pb.Auth_ADMIN, pb.Status_Forbidden, pb.Reason_ROLE},
		{"peer", alice.token, pb.Auth_PEER, pb.Status_Forbidden, pb.Reason_ROLE},
		{"level of no rule", alice.token, pb.Auth_UNSPECIFIED, pb.Status_Forbidden, pb.Reason_ROLE},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := b.do(c.token, c.level, count)
			wantRefusal(t, err, c.status, c.reason)
			_, err = b.engine.Query(c.token, c.level)
			wantRefusal(t, err, c.status, c.reason)
		})
	}
	if ran != 0 {
		t.Errorf("%d refused commands were decided", ran)
	}
	for _, c := range []struct {
		token [32]byte
		level pb.Auth_Level
	}{
		{[32]byte{}, pb.Auth_NONE}, {[32]byte{}, pb.Auth_OPTIONAL}, {enroll, pb.Auth_ENROLL}, {enroll, pb.Auth_OPTIONAL},
		{alice.token, pb.Auth_ENROLL}, {alice.token, pb.Auth_SESSION}, {alice.token, pb.Auth_FRESH},
	} {
		if _, err := b.do(c.token, c.level, count); err != nil {
			t.Errorf("level %v: %v", c.level, err)
		}
	}
	if ran != 7 {
		t.Errorf("%d of 7 allowed commands were decided", ran)
	}
}

// Whoever acts after the end of their session, even in the same group, doesn't.
func TestSessionEndsWithinItsGroup(t *testing.T) {
	b := newBed(t, vfs.NewMem())
	defer b.close()
	alice := b.register(1)
	hold, held := make(chan struct{}), make(chan struct{})
	results := make(chan error, 3)
	go func() {
		_, err := b.do([32]byte{}, pb.Auth_NONE, func(*Tx) (proto.Message, error) { close(held); <-hold; return nil, nil })
		results <- err
	}()
	<-held
	waitAlone(b.engine)
	// Both wait while the writer decides the first, so they share its group.
	for i, decide := range []func(*Tx) (proto.Message, error){endSession(alice.token), nothing} {
		go func() {
			_, err := b.do(alice.token, pb.Auth_SESSION, decide)
			results <- err
		}()
		waitQueued(b.engine, 2+i)
	}
	close(hold)
	refused := 0
	for range 3 {
		if err := <-results; err != nil {
			refused++
			wantRefusal(t, err, pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID)
		}
	}
	if refused != 1 {
		t.Errorf("%d commands were refused, want the one after the log-out", refused)
	}
}

// waitAlone waits until the command that holds the writer is the only one that
// counts: others count until a moment after they were answered.
func waitAlone(e *Engine) {
	for {
		if count, _ := e.queue.load(); count == 1 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// waitQueued waits until n commands wait or are decided.
func waitQueued(e *Engine, n int) {
	for {
		if count, _ := e.queue.load(); count >= n {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestReceiptsMakeRetriesSafe(t *testing.T) {
	b := newBed(t, vfs.NewMem())
	defer b.close()
	alice, bob := b.register(1), b.register(2)
	ctx, now := context.Background(), b.engine.Now()
	id := requestID(now, 1)
	first, err := b.engine.Do(ctx, sending(alice, bob, id, []byte("a")))
	if err != nil {
		t.Fatal(err)
	}
	size := b.log.Size()
	again, err := b.engine.Do(ctx, sending(alice, bob, id, []byte("a")))
	if err != nil || !proto.Equal(first, again) {
		t.Errorf("retry: %v, %v; first was %v", again, err, first)
	}
	_, err = b.engine.Do(ctx, sending(alice, bob, id, []byte("b")))
	wantRefusal(t, err, pb.Status_BadRequest, pb.Reason_REQUEST_ID_REUSED)
	if b.log.Size() != size {
		t.Errorf("retries wrote %d events", b.log.Size()-size)
	}
	if _, err := b.engine.Do(ctx, sending(bob, alice, id, []byte("b"))); err != nil {
		t.Errorf("the same id from another device: %v", err)
	}
	_, err = b.engine.Do(ctx, sending(alice, bob, bytes.Repeat([]byte{1}, 16), []byte("c")))
	wantRefusal(t, err, pb.Status_BadRequest, pb.Reason_REQUEST_ID_INVALID)
	for _, ms := range []uint64{now - RequestIDWindowMS - 1000, now + RequestIDWindowMS + 60_000} {
		_, err = b.engine.Do(ctx, sending(alice, bob, requestID(ms, 1), []byte("c")))
		wantRefusal(t, err, pb.Status_BadRequest, pb.Reason_REQUEST_ID_TIME)
	}

	b.close()
	b.open(Options{})
	again, err = b.engine.Do(ctx, sending(alice, bob, id, []byte("a")))
	if err != nil || !proto.Equal(first, again) {
		t.Errorf("retry after a restart: %v, %v; first was %v", again, err, first)
	}
}

// A refusal keeps no receipt: the same id may be tried again.
func TestRefusalsAreNotKept(t *testing.T) {
	b := newBed(t, vfs.NewMem())
	defer b.close()
	alice, bob := b.register(1), personaOf(2)
	id := requestID(b.engine.Now(), 1)
	_, err := b.engine.Do(context.Background(), sending(alice, bob, id, []byte("x")))
	wantRefusal(t, err, pb.Status_NotFound, pb.Reason_NO_DEVICE)
	b.register(2)
	if _, err := b.engine.Do(context.Background(), sending(alice, bob, id, []byte("x"))); err != nil {
		t.Error(err)
	}
}

// A command that reads its own effects has its last event applied before the
// outcome is known: the receipt stands on an event of its own.
func TestReceiptAfterReadingOwnEffects(t *testing.T) {
	b := newBed(t, vfs.NewMem())
	defer b.close()
	alice, bob := b.register(1), b.register(2)
	c := sending(alice, bob, requestID(b.engine.Now(), 1), []byte("x"))
	c.Decide = func(tx *Tx) (proto.Message, error) {
		resp, err := sendFake(tx, bob, []byte("x"))
		if err != nil {
			return nil, err
		}
		queue, _, err := projections.Queue(tx.View(), bob.device)
		if err != nil || queue.Count != 1 {
			t.Errorf("own message is not seen: %+v, %v", queue, err)
		}
		return resp, err
	}
	size := b.log.Size()
	first, err := b.engine.Do(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	if b.log.Size() != size+2 {
		t.Errorf("%d events, want the message and its receipt", b.log.Size()-size)
	}
	rec, err := b.log.Record(size + 1)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := projections.DecodeEvent(rec.Event)
	if err != nil || ev.GetRequestAnswered() == nil || ev.GetReceipt() == nil {
		t.Errorf("event %v, %v: want RequestAnswered with the receipt", ev, err)
	}
	again, err := b.engine.Do(context.Background(), c)
	if err != nil || !proto.Equal(first, again) {
		t.Errorf("retry: %v, %v; first was %v", again, err, first)
	}
}

func TestErrorsBeforeEmitHarmNobody(t *testing.T) {
	b := newBed(t, vfs.NewMem())
	defer b.close()
	for _, cause := range []error{ErrStale, errors.New("internal"), errScope} {
		if _, err := b.do([32]byte{}, pb.Auth_NONE, func(*Tx) (proto.Message, error) { return nil, cause }); !errors.Is(err, cause) {
			t.Errorf("got %v, want %v", err, cause)
		}
	}
	if err := b.engine.Ready(); err != nil {
		t.Error(err)
	}
	b.register(1)
}

func TestBugsInDecidingAreFatal(t *testing.T) {
	bob := personaOf(2)
	for name, decide := range map[string]func(*Tx) (proto.Message, error){
		"panic": func(*Tx) (proto.Message, error) { panic("boom") },
		"refusal after Emit": func(tx *Tx) (proto.Message, error) {
			if _, err := sendFake(tx, bob, []byte("x")); err != nil {
				return nil, err
			}
			return nil, errScope
		},
		"payload without event": func(tx *Tx) (proto.Message, error) {
			tx.PutPayload(bob.account, tx.NewID(), []byte("x"))
			return nil, nil
		},
		"refusal after a payload": func(tx *Tx) (proto.Message, error) {
			tx.PutPayload(bob.account, tx.NewID(), []byte("x"))
			return nil, errScope
		},
		"event of a wrong shape": func(tx *Tx) (proto.Message, error) {
			return nil, tx.Emit(&pb.Event{Body: &pb.Event_MessageEnqueued{MessageEnqueued: &pb.MessageEnqueued{}}})
		},
		"event without a body": func(tx *Tx) (proto.Message, error) { return nil, tx.Emit(&pb.Event{}) },
		"key event without EmitKT": func(tx *Tx) (proto.Message, error) {
			return nil, tx.Emit(&pb.Event{Body: &pb.Event_KeyTransparencyEntry{KeyTransparencyEntry: &pb.KeyTransparencyEntry{}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, vfs.NewMem())
			alice := b.register(1)
			b.register(2)
			size, digest := b.log.Size(), b.digest()
			_, err := b.do(alice.token, pb.Auth_SESSION, decide)
			wantRefusal(t, err, pb.Status_Unavailable, pb.Reason_STORAGE)
			select {
			case <-b.engine.Failed():
			case <-time.After(time.Minute):
				t.Fatal("the engine did not fail")
			}
			if b.engine.Err() == nil || (name == "panic" && !strings.Contains(b.engine.Err().Error(), "boom")) {
				t.Errorf("cause %v", b.engine.Err())
			}
			_, err = b.do([32]byte{}, pb.Auth_NONE, nothing)
			wantRefusal(t, err, pb.Status_Unavailable, pb.Reason_STORAGE)
			wantRefusal(t, b.engine.Ready(), pb.Status_Unavailable, pb.Reason_STORAGE)
			if b.log.Size() != size {
				t.Errorf("half a decision reached the log")
			}
			b.close()
			b.open(Options{}) // what was half decided is nowhere
			defer b.close()
			if err := b.sameViews(size, digest); err != nil {
				t.Error(err)
			}
			b.mustSend(alice, bob, 1, "works again")
		})
	}
}

func TestStopFinishesWhatWaits(t *testing.T) {
	b := newBed(t, vfs.NewMem())
	alice, bob := b.register(1), b.register(2)
	hold, held := make(chan struct{}), make(chan struct{})
	results := make(chan error, 11)
	go func() {
		_, err := b.do([32]byte{}, pb.Auth_NONE, func(*Tx) (proto.Message, error) { close(held); <-hold; return nil, nil })
		results <- err
	}()
	<-held
	waitAlone(b.engine)
	for i := range 10 {
		go func() {
			_, err := b.send(alice, bob, uint64(i), "x")
			results <- err
		}()
	}
	waitQueued(b.engine, 11)
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := b.engine.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop with a busy writer: %v", err)
	}
	_, err := b.do([32]byte{}, pb.Auth_NONE, nothing)
	wantRefusal(t, err, pb.Status_Unavailable, pb.Reason_STOPPING)
	wantRefusal(t, b.engine.Ready(), pb.Status_Unavailable, pb.Reason_STOPPING)
	close(hold)
	for range 11 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	b.close()
	if _, err := b.engine.View(); err == nil {
		t.Error("a stopped engine has no view")
	}
	b.open(Options{})
	defer b.close()
	if n := len(b.items(bob)); n != 10 {
		t.Errorf("%d of 10 messages after the restart", n)
	}
}

func TestStopWaitsForReaders(t *testing.T) {
	b := newBed(t, vfs.NewMem())
	v, err := b.engine.View()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := b.engine.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop with a view in use: %v", err)
	}
	if _, err := projections.LastEventTime(v.Reader); err != nil {
		t.Errorf("a view in use became unreadable: %v", err)
	}
	v.Release()
	v.Release() // harmless
	b.close()
}

// Old views stay as they were while new groups are published.
func TestViewIsFrozen(t *testing.T) {
	b := newBed(t, vfs.NewMem())
	defer b.close()
	alice, bob := b.register(1), b.register(2)
	v, err := b.engine.Query(bob.token, pb.Auth_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Release()
	for i := range 5 {
		b.mustSend(alice, bob, uint64(i), "x")
	}
	queue, found, err := projections.Queue(v.Reader, v.Caller.DeviceKey)
	if err != nil || !found || queue.Count != 0 {
		t.Errorf("old view shows %+v, %v, %v", queue, found, err)
	}
}

func TestDeadlinesTellTheTruth(t *testing.T) {
	b := newBed(t, vfs.NewMem())
	defer b.close()
	alice, bob := b.register(1), b.register(2)
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := b.engine.Do(over, sending(alice, bob, requestID(b.engine.Now(), 1), []byte("never")))
	wantRefusal(t, err, pb.Status_DeadlineExceeded, pb.Reason_DEADLINE)

	hold, held := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	results := make(chan error, 2)
	go func() { // taken by the writer when its context ends: outcome unknown
		_, err := b.engine.Do(ctx, &Command{Auth: pb.Auth_SESSION, Token: alice.token, Decide: func(tx *Tx) (proto.Message, error) {
			close(held)
			<-hold
			return sendFake(tx, bob, []byte("taken"))
		}})
		results <- err
	}()
	<-held
	waitAlone(b.engine)
	go func() { // still in the queue when its context ends: never executed
		_, err := b.engine.Do(ctx, sending(alice, bob, requestID(b.engine.Now(), 2), []byte("queued")))
		results <- err
	}()
	waitQueued(b.engine, 2)
	cancel()
	texts := ""
	for range 2 {
		err := <-results
		wantRefusal(t, err, pb.Status_DeadlineExceeded, pb.Reason_DEADLINE)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v does not tell the context's error", err)
		}
		texts += AsRefusal(err).Message + "\n"
	}
	if !strings.Contains(texts, "not executed") || !strings.Contains(texts, "outcome is unknown") {
		t.Errorf("the refusals say:\n%s", texts)
	}
	close(hold)
	if _, err := b.do([32]byte{}, pb.Auth_NONE, nothing); err != nil {
		t.Fatal(err)
	}
	if n := len(b.items(bob)); n != 1 {
		t.Errorf("%d messages, want the one that the writer had taken", n)
	}
	// The last one counts until a moment after it was answered.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		count, bytes := b.engine.queue.load()
		if count == 0 && bytes == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("queue still counts %d commands, %d bytes", count, bytes)
		}
	}
}

func TestOverloadIsRefusedAtOnce(t *testing.T) {
	for name, size := range map[string]int{"commands": 0, "bytes": maxQueuedBytes / 100} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, vfs.NewMem())
			defer b.close()
			hold, held := make(chan struct{}), make(chan struct{})
			go b.do([32]byte{}, pb.Auth_NONE, func(*Tx) (proto.Message, error) { close(held); <-hold; return nil, nil })
			<-held
			waitAlone(b.engine)
			var err error
			pushed := 0
			for ; pushed <= maxQueuedCommands && err == nil; pushed++ {
				err = b.engine.queue.push(b.engine.newCall(&Command{Auth: pb.Auth_NONE, Size: size, Decide: nothing}))
			}
			wantRefusal(t, err, pb.Status_Unavailable, pb.Reason_OVERLOADED)
			if r := AsRefusal(err); r != nil && r.RetryAfterMS == 0 {
				t.Error("no time to retry is told")
			}
			if want := map[string]int{"commands": maxQueuedCommands, "bytes": 100}[name]; pushed != want {
				t.Errorf("refused at command %d, want %d", pushed, want)
			}
			close(hold)
			for err := errors.New("busy"); err != nil; time.Sleep(time.Millisecond) {
				_, err = b.do([32]byte{}, pb.Auth_NONE, nothing) // room comes back
			}
		})
	}
}
