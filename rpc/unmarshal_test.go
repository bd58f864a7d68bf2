package rpc

import (
	"bytes"
	"errors"
	"runtime"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	pb "quicprochat/proto/qpcv1"
)

func method(t testing.TB, name string) *Method {
	t.Helper()
	m, ok := MethodByName(name)
	if !ok {
		t.Fatalf("no method %s", name)
	}
	return m
}

func TestUnmarshalRequest(t *testing.T) {
	req := &pb.EnqueueRequest{
		SessionToken: bytes.Repeat([]byte{1}, 32),
		Recipient:    &pb.EnqueueRequest_RecipientKey{RecipientKey: []byte("key")},
		Payload:      []byte("payload"),
		TtlS:         60,
	}
	body, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	got, err := method(t, "Enqueue").UnmarshalRequest(body)
	if err != nil || !proto.Equal(got, req) {
		t.Fatalf("got %v, %v", got, err)
	}
	// The message owns its bytes: buffers are pooled.
	for i := range body {
		body[i] = 0xff
	}
	if !proto.Equal(got, req) {
		t.Error("the message refers to the buffer")
	}
}

func TestUnmarshalAllowsUnknownFields(t *testing.T) {
	body, err := proto.Marshal(&pb.AckRequest{UpTo: 5})
	if err != nil {
		t.Fatal(err)
	}
	body = protowire.AppendTag(body, 900, protowire.BytesType)
	body = protowire.AppendBytes(body, []byte("from a newer client"))
	got, err := method(t, "Ack").UnmarshalRequest(body)
	if err != nil {
		t.Fatal(err)
	}
	if ack := got.(*pb.AckRequest); ack.UpTo != 5 || len(ack.ProtoReflect().GetUnknown()) != 0 {
		t.Errorf("got %v, unknown %x", ack, ack.ProtoReflect().GetUnknown())
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	emptyItems := func(n int) (b []byte) {
		for range n {
			b = append(b, 0x1a, 0x00) // items = 3, empty
		}
		return b
	}
	packed := func(n int) []byte { // seqs = 3, packed
		b := protowire.AppendTag(nil, 3, protowire.BytesType)
		return protowire.AppendBytes(b, bytes.Repeat([]byte{1}, n))
	}
	unpacked := func(n int) (b []byte) {
		for range n {
			b = protowire.AppendTag(b, 3, protowire.VarintType)
			b = protowire.AppendVarint(b, 1)
		}
		return b
	}
	keys := func(n int) (b []byte) { // identity_keys = 2
		for range n {
			b = protowire.AppendTag(b, 2, protowire.BytesType)
			b = protowire.AppendBytes(b, nil)
		}
		return b
	}
	for _, tt := range []struct {
		name, method string
		body         []byte
		want         error
	}{
		{"empty", "Ack", nil, nil},
		{"not protobuf", "Ack", []byte{0xff, 0xff, 0xff}, ErrMalformed},
		{"a field cut short", "Enqueue", []byte{0x2a, 0x05, 'a'}, ErrMalformed},
		{"a length beyond the end, in a list", "BatchEnqueue", []byte{0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f}, ErrMalformed},
		{"field number 0", "BatchEnqueue", []byte{0x02, 0x00}, ErrMalformed},
		{"no UTF-8 in a string", "ResolveUser", []byte{0x12, 0x01, 0xff}, ErrMalformed},
		{"most sub-messages", "BatchEnqueue", emptyItems(MaxElements), nil},
		{"one sub-message more", "BatchEnqueue", emptyItems(MaxElements + 1), ErrTooManyElements},
		{"1 MiB of empty sub-messages", "BatchEnqueue", emptyItems(1 << 19), ErrTooManyElements},
		{"most packed numbers", "Ack", packed(MaxElements), nil},
		{"one packed number more", "Ack", packed(MaxElements + 1), ErrTooManyElements},
		{"packed in two parts", "Ack", append(packed(MaxElements), packed(1)...), ErrTooManyElements},
		{"numbers one by one", "Ack", unpacked(MaxElements + 1), ErrTooManyElements},
		{"empty keys", "FetchHybridKeys", keys(MaxElements + 1), ErrTooManyElements},
		{"a singular sub-message over and over", "UploadHybridKey", emptyItems(MaxElements + 1), ErrTooManyElements},
	} {
		_, err := method(t, tt.method).UnmarshalRequest(tt.body)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestUnmarshalBoundsDepth(t *testing.T) {
	nested := func(depth int) []byte {
		v := structpb.NewNullValue()
		for range (depth - 1) / 2 { // ListValue in Value: two levels each
			v = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{v}})
		}
		b, err := proto.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if err := Unmarshal(nested(15), new(structpb.Value)); err != nil {
		t.Errorf("depth 15: %v", err)
	}
	for _, depth := range []int{17, 19, 1001} {
		if err := Unmarshal(nested(depth), new(structpb.Value)); !errors.Is(err, ErrTooDeep) {
			t.Errorf("depth %d: %v, want ErrTooDeep", depth, err)
		}
	}
}

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestProtobufBombIsCheap(t *testing.T) {
	m := method(t, "BatchEnqueue")
	bomb := bytes.Repeat([]byte{0x1a, 0x00}, 1<<19) // 1 MiB
	var err error
	if got := allocated(func() { _, err = m.UnmarshalRequest(bomb) }); got > 64<<10 {
		t.Errorf("1 MiB of empty sub-messages cost %d bytes", got)
	}
	if !errors.Is(err, ErrTooManyElements) {
		t.Error(err)
	}
}

func FuzzUnmarshalRequest(f *testing.F) {
	for _, m := range Methods() {
		f.Add(m.ID, []byte{})
		f.Add(m.ID, []byte{0x0a, 0x02, 'a', 'b', 0x12, 0x01, 'c', 0x1a, 0x00, 0x1a, 0x00})
		f.Add(m.ID, []byte{0x1a, 0x03, 0x22, 0x01, 'd', 0xc2, 0x3e, 0x00})
	}
	f.Fuzz(func(t *testing.T, id uint16, body []byte) {
		m, ok := MethodByID(id)
		if !ok {
			return
		}
		var req proto.Message
		var err error
		got := allocated(func() { req, err = m.UnmarshalRequest(body) })
		if limit := uint64(64*len(body) + 64<<10); got > limit {
			t.Fatalf("%s: %d bytes of input cost %d", m, len(body), got)
		}
		if err != nil {
			return
		}
		again, err := proto.Marshal(req)
		if err != nil {
			t.Fatalf("%s: what was read can't be written: %v", m, err)
		}
		second, err := m.UnmarshalRequest(again)
		if err != nil || !proto.Equal(req, second) {
			t.Fatalf("%s: %v read again is %v, %v", m, req, second, err)
		}
	})
}

func BenchmarkUnmarshalEnqueue(b *testing.B) {
	m := method(b, "Enqueue")
	body, err := proto.Marshal(&pb.EnqueueRequest{
		SessionToken: make([]byte, 32), RequestId: make([]byte, 16),
		Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: make([]byte, 32)},
		Payload:   make([]byte, 1024),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.UnmarshalRequest(body); err != nil {
			b.Fatal(err)
		}
	}
}
