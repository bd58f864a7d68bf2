package bench

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
)

// TestEveryConnectionReads: with virtual time the numbers are exact.
func TestEveryConnectionReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := Drain{Connections: 4}
		got := d.each(t.Context(), func(_ context.Context, connection int, note noter) (uint64, error) {
			for range connection + 1 {
				began := time.Now()
				time.Sleep(10 * time.Millisecond)
				note(began)
			}
			return uint64(100 * (connection + 1)), nil
		})
		if got.Answered != 1000 || got.Elapsed != 40*time.Millisecond || got.Latencies.total != 10 || got.PerSecond() != 25_000 {
			t.Errorf("%d messages in %v, %d calls", got.Answered, got.Elapsed, got.Latencies.total)
		}
	})
	broken := errors.New("broken")
	got := Drain{Connections: 3}.each(t.Context(), func(_ context.Context, connection int, _ noter) (uint64, error) {
		if connection == 1 {
			return 0, broken
		}
		return 1, nil
	})
	if got.Answered != 2 || !errors.Is(got.FirstError, broken) {
		t.Errorf("%d answered, %v", got.Answered, got.FirstError)
	}
}

func TestPageAnswerHasTheSizeOfAPage(t *testing.T) {
	answer := PageAnswer(100, 1024)
	if n := proto.Size(answer); len(answer.GetEnvelopes()) != 100 || n < 104_000 || n > 110_000 {
		t.Errorf("%d envelopes, %d bytes", len(answer.GetEnvelopes()), n)
	}
}

func TestLibraryMakesMessages(t *testing.T) {
	l, err := newLibrary()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := l.run(20 * time.Millisecond); err != nil || n < 1 {
		t.Errorf("%d messages, %v", n, err)
	}
}
