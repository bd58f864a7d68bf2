package projections

import (
	"encoding/binary"
	"testing"

	pb "quicprochat/proto/qpcv1"
)

// requestID is a UUIDv7 of a time.
func requestID(ms uint64, n int) ID {
	id := idOf("request", ms, n)
	var t [8]byte
	binary.BigEndian.PutUint64(t[:], ms<<16)
	copy(id[:6], t[:6])
	id[6] = id[6]&0x0f | 0x70
	return id
}

func receiptOf(name string, method uint32, id ID, outcome string) *pb.Receipt {
	caller := deviceKey(name)
	return &pb.Receipt{
		Caller: caller[:], Method: method, RequestId: id[:], RequestHash: bytesOf("request", id), Outcome: []byte(outcome),
	}
}

func TestReceiptsAreKeptByCallerMethodAndRequest(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	id := requestID(w.now, 1)
	w.now += 7
	q := w.queue("bob")
	w.doWith(enqueued(1, "alice", "bob", 1, w.now+dayMS, target(deviceKey("bob"), q.NextSeq)), receiptOf("alice", 200, id, "done"))
	w.doWith(&pb.RequestAnswered{}, receiptOf("alice", 205, id, ""))
	got, found, err := Receipt(w.reader(), deviceKey("alice"), 200, id)
	if err != nil || !found || string(got.Outcome) != "done" || got.RequestHash != Hash(bytesOf("request", id)) || got.TimeMS != w.now {
		t.Errorf("receipt: %+v, %v, %v", got, found, err)
	}
	if got, found, err := Receipt(w.reader(), deviceKey("alice"), 205, id); err != nil || !found || len(got.Outcome) != 0 {
		t.Errorf("receipt of the other method: %+v, %v, %v", got, found, err)
	}
	for _, c := range []struct {
		caller Key
		method uint32
		id     ID
	}{
		{deviceKey("bob"), 200, id},
		{deviceKey("alice"), 204, id},
		{deviceKey("alice"), 200, requestID(w.now, 2)},
	} {
		if _, found, err := Receipt(w.reader(), c.caller, c.method, c.id); found || err != nil {
			t.Errorf("receipt of %v: found %v, %v", c, found, err)
		}
	}
}

func TestReceiptsExpireByTheirRequestsTime(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice")
	base := w.now
	for n := range 10 {
		// Their order in the log is not that of their times.
		w.doWith(&pb.RequestAnswered{}, receiptOf("alice", 200, requestID(base+uint64(n*7%10), n), "x"))
	}
	if due, err := ExpiredReceipts(w.reader(), base); due || err != nil {
		t.Errorf("due at %d: %v, %v", base, due, err)
	}
	if due, err := ExpiredReceipts(w.reader(), base+1); !due || err != nil {
		t.Errorf("due after %d: %v, %v", base, due, err)
	}
	w.do(&pb.ReceiptsExpired{BeforeMs: base + 4})
	for n := range 10 {
		at := base + uint64(n*7%10)
		_, found, err := Receipt(w.reader(), deviceKey("alice"), 200, requestID(at, n))
		if want := at >= base+4; found != want || err != nil {
			t.Errorf("receipt of time +%d: found %v, %v", at-base, found, err)
		}
	}
	if due, err := ExpiredReceipts(w.reader(), base+4); due || err != nil {
		t.Errorf("due again: %v, %v", due, err)
	}
	w.do(&pb.ReceiptsExpired{BeforeMs: 1 << 60}) // beyond what a UUIDv7 can hold
	if n := w.rows(prefixReceipt); n != 0 {
		t.Errorf("%d receipts are left", n)
	}
}

func TestStrictReceipts(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	for _, c := range []struct {
		reason string
		spoil  func(*pb.Receipt)
	}{
		{"receipt's caller of 31 bytes", func(r *pb.Receipt) { r.Caller = r.Caller[1:] }},
		{"request id of 0 bytes", func(r *pb.Receipt) { r.RequestId = nil }},
		{"request hash of 33 bytes", func(r *pb.Receipt) { r.RequestHash = append(r.RequestHash, 0) }},
	} {
		r := receiptOf("alice", 200, requestID(w.now, 1), "x")
		c.spoil(r)
		w.refuseEntry(w.entry(&pb.RequestAnswered{}, r), c.reason)
	}
	w.refuse(&pb.RequestAnswered{}, "without a receipt")
}
