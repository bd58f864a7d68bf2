package projections

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// TestApplyKnowsEveryEvent: an arm is missing when an empty event of a type is
// refused as unknown instead of malformed.
func TestApplyKnowsEveryEvent(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.commit()
	for i := range eventBody.Fields().Len() {
		field := eventBody.Fields().Get(i)
		ev := &pb.Event{TimeMs: w.now}
		ev.ProtoReflect().Set(field, ev.ProtoReflect().NewField(field))
		raw, err := proto.Marshal(ev)
		if err != nil {
			t.Fatal(err)
		}
		b := w.views.NewBatch()
		err = Apply(b, &Entry{Index: 1, Leaf: AppendLeaf(nil, ev, raw, kt.Opening{}, kt.Label{}), Raw: raw, Event: ev})
		if err != nil && (!errors.Is(err, ErrInvalidEvent) || strings.Contains(err.Error(), "known type")) {
			t.Errorf("%s: %v", field.Name(), err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if got := EventType(ev); got != uint16(field.Number()) {
			t.Errorf("type number of %s: %d", field.Name(), got)
		}
	}
	if got := EventType(&pb.Event{}); got != 0 {
		t.Errorf("type number without a body: %d", got)
	}
}

func TestOrderIsHeld(t *testing.T) {
	w := emptyWorld(t)
	defer w.close()
	w.refuse(registered("alice"), "begins with ServerConfigured")
	w.do(&pb.ServerConfigured{Config: testConfig()})
	w.refuse(&pb.ServerConfigured{Config: testConfig()}, "does not name index 0")
	w.register("alice")

	early := w.entry(registered("bob"), nil)
	early.Index--
	w.refuseEntry(early, "expect index 4")
	late := w.entry(registered("bob"), nil)
	late.Index++
	w.refuseEntry(late, "expect index 4")

	w.now--
	w.refuse(registered("bob"), "is before the last event's")
	w.now++
	w.do(registered("bob"))
	if last, err := LastEventTime(w.reader()); last != w.now || err != nil {
		t.Errorf("last event time: %d, %v, want %d", last, err, w.now)
	}
	w.refuse(nil, "no body of a known type")
}

func TestClassesAreHeld(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	opaque, ktEvent := w.entry(registered("alice"), nil), w.entry(accountEntry("alice", 0), nil)
	config := append([]byte{byte(kt.ClassConfig)}, testConfig()...)
	head := kt.AppendHeadLeaf(nil, kt.Head{})
	for _, c := range []struct {
		name string
		e    *Entry
		leaf []byte
	}{
		{"OPAQUE as KT", opaque, ktEvent.Leaf},
		{"KT as OPAQUE", ktEvent, opaque.Leaf},
		{"OPAQUE as CONFIG", opaque, config},
		{"OPAQUE as HEAD", opaque, head},
		{"short OPAQUE", opaque, opaque.Leaf[:32]},
		{"long KT", ktEvent, append(ktEvent.Leaf[:len(ktEvent.Leaf):len(ktEvent.Leaf)], 0)},
		{"unknown class", opaque, append([]byte{9}, opaque.Leaf[1:]...)},
	} {
		e := *c.e
		e.Leaf = c.leaf
		w.refuseEntry(&e, "leaf of class")
		if err := e.Verify(); !errors.Is(err, ErrInvalidEvent) {
			t.Errorf("%s: Verify: %v", c.name, err)
		}
	}
	e := *opaque
	e.Leaf = nil
	w.refuseEntry(&e, "no leaf")
}

func TestConfigIsTheLeaf(t *testing.T) {
	w := emptyWorld(t)
	defer w.close()
	if _, found, err := ServerConfig(w.reader()); found || err != nil {
		t.Errorf("configuration before the first event: %v, %v", found, err)
	}
	e := w.entry(&pb.ServerConfigured{Config: testConfig()}, nil)
	other := testConfig()
	other[len(other)-1] ^= 1
	e.Leaf = append([]byte{byte(kt.ClassConfig)}, other...)
	w.refuseEntry(e, "not the configuration's")
	w.refuse(&pb.ServerConfigured{Config: other}, "configuration:")
	w.refuse(&pb.ServerConfigured{}, "configuration:")
	w.do(&pb.ServerConfigured{Config: testConfig()})
	got, found, err := ServerConfig(w.reader())
	if err != nil || !found || string(got) != string(testConfig()) {
		t.Errorf("configuration: %x, %v, %v", got, found, err)
	}
}

func TestSnapshotTakenIsRecorded(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice")
	w.do(&pb.SnapshotTaken{Size: 3, Digest: bytesOf("digest")})
	if got, found, err := LastSnapshot(w.reader()); err != nil || !found || got != (SnapshotRecord{3, Hash(bytesOf("digest"))}) {
		t.Errorf("snapshot: %+v, %v, %v", got, found, err)
	}
	w.refuse(&pb.SnapshotTaken{Size: 6, Digest: bytesOf("digest")}, "6 events at index 5")
	w.refuse(&pb.SnapshotTaken{Size: 2, Digest: bytesOf("digest")}, "after one of 3")
	w.refuse(&pb.SnapshotTaken{Size: 4}, "digest of 0 bytes")
}

func TestVerifyFindsWhatWasChanged(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	good := w.entry(accountEntry("alice", 0), nil)
	if err := good.Verify(); err != nil {
		t.Fatal(err)
	}
	opaque := w.entry(registered("alice"), nil)
	for name, e := range map[string]Entry{
		"another opening": {Leaf: good.Leaf, Opening: kt.Opening{1}, Raw: good.Raw, Event: good.Event},
		"another event":   {Leaf: good.Leaf, Opening: good.Opening, Raw: append(good.Raw[:len(good.Raw):len(good.Raw)], 0), Event: good.Event},
		"another context": {Leaf: good.Leaf, Opening: good.Opening, Raw: good.Raw, Event: w.entry(accountEntry("alice", 1), nil).Event},
		"another type":    {Leaf: opaque.Leaf, Opening: opaque.Opening, Raw: opaque.Raw, Event: w.entry(&pb.SnapshotTaken{}, nil).Event},
		"another leaf":    {Leaf: opaque.Leaf, Opening: good.Opening, Raw: good.Raw, Event: good.Event},
		"a long id":       {Leaf: good.Leaf, Opening: good.Opening, Raw: good.Raw, Event: &pb.Event{Body: &pb.Event_KeyTransparencyEntry{KeyTransparencyEntry: &pb.KeyTransparencyEntry{Id: make([]byte, 1<<17)}}}},
	} {
		e.Index = 77
		var where *ApplyError
		if err := e.Verify(); !errors.Is(err, ErrInvalidEvent) || !errors.As(err, &where) || where.Index != 77 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecodeEventRefusesWhatItDoesNotKnow(t *testing.T) {
	good := makeEntry(t, 1, testStart, enqueued(1, "alice", "bob", 1, 2, target(deviceKey("bob"), 1)), receiptOf("alice", 200, requestID(1, 1), "x"))
	if ev, err := DecodeEvent(good.Raw); err != nil || !proto.Equal(ev, good.Event) {
		t.Fatalf("a good event: %v", err)
	}
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 1)
	spoiled := map[string][]byte{
		"empty":         {},
		"no body":       protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 5),
		"truncated":     good.Raw[:len(good.Raw)-1],
		"garbage":       {0xff, 0xff},
		"unknown field": append(append([]byte(nil), good.Raw...), unknown...),
		"unknown body":  protowire.AppendBytes(protowire.AppendTag(nil, 77, protowire.BytesType), nil),
	}
	for name, where := range map[string]func(*pb.Event) proto.Message{
		"unknown field in the receipt": func(ev *pb.Event) proto.Message { return ev.GetReceipt() },
		"unknown field in the body":    func(ev *pb.Event) proto.Message { return ev.GetMessageEnqueued() },
		"unknown field in a list":      func(ev *pb.Event) proto.Message { return ev.GetMessageEnqueued().GetTargets()[0] },
	} {
		ev := proto.Clone(good.Event).(*pb.Event)
		where(ev).ProtoReflect().SetUnknown(unknown)
		raw, err := proto.Marshal(ev)
		if err != nil {
			t.Fatal(err)
		}
		spoiled[name] = raw
	}
	for name, raw := range spoiled {
		if _, err := DecodeEvent(raw); !errors.Is(err, ErrInvalidEvent) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
