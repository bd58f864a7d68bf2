package auth

import (
	"testing"
	"time"
)

func TestAttemptServesOnce(t *testing.T) {
	table, now := newAttempts(), time.Unix(1, 0)
	put := func(connection uint64) loginID {
		id, ok := table.put(&attempt{connection: connection}, now)
		if !ok {
			t.Fatal("the table is full")
		}
		return id
	}
	first, second := put(1), put(1)
	if first == second {
		t.Fatal("two attempts have one id")
	}
	if a := table.take(first[:], 1, now); a == nil {
		t.Error("not found")
	}
	if a := table.take(first[:], 1, now); a != nil {
		t.Error("served twice")
	}
	if a := table.take(second[:], 2, now); a != nil {
		t.Error("served to another connection")
	}
	if a := table.take(second[:], 1, now); a != nil {
		t.Error("a try from another connection did not spend it")
	}
	third, fourth := put(3), put(3)
	if a := table.take(third[:], 3, now.Add(attemptLifetime-1)); a == nil {
		t.Error("expired too early")
	}
	if a := table.take(fourth[:], 3, now.Add(attemptLifetime)); a != nil {
		t.Error("served after its time")
	}
	for _, id := range [][]byte{nil, {}, first[:15], append(first[:], 0), make([]byte, 16)} {
		if a := table.take(id, 1, now); a != nil {
			t.Errorf("id %x was found", id)
		}
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	table, now := newAttempts(), time.Unix(1, 0)
	var last loginID
	for range maxAttempts {
		last, _ = table.put(&attempt{connection: 1}, now)
	}
	// What was taken still counts until its time: a fast client can't make the
	// table forget the others.
	table.take(last[:], 1, now)
	if _, ok := table.put(&attempt{}, now.Add(attemptLifetime-1)); ok {
		t.Error("one too many")
	}
	if _, ok := table.put(&attempt{}, now.Add(attemptLifetime)); !ok {
		t.Error("still full after their time")
	}
	if len(table.open) != 1 || len(table.order) != 1 {
		t.Errorf("left: %d and %d", len(table.open), len(table.order))
	}
}
