package rpc

import (
	"bytes"
	"errors"
	"io"
	"math"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

// The exact bytes of the three frames, as docs/formats/wire.md shows them.
func TestFrameBytes(t *testing.T) {
	body := []byte{0xaa, 0xbb}
	for _, tt := range []struct {
		name      string
		got, want []byte
	}{
		{"request", AppendRequest(nil, 200, 0x01020304, body),
			[]byte{0x00, 0xc8, 1, 2, 3, 4, 0, 0, 0, 2, 0xaa, 0xbb}},
		{"response", AppendResponse(nil, pb.Status_NotFound, 0x01020304, body),
			[]byte{0x04, 1, 2, 3, 4, 0, 0, 0, 2, 0xaa, 0xbb}},
		{"push", AppendPush(nil, 1000, body),
			[]byte{0x03, 0xe8, 0, 0, 0, 2, 0xaa, 0xbb}},
		{"appended behind", AppendPush([]byte{9}, 1000, nil),
			[]byte{9, 0x03, 0xe8, 0, 0, 0, 0}},
		{"status that no byte holds", AppendResponse(nil, pb.Status(300), 0, nil),
			[]byte{0x0a, 0, 0, 0, 0, 0, 0, 0, 0}},
	} {
		if !bytes.Equal(tt.got, tt.want) {
			t.Errorf("%s: %x, want %x", tt.name, tt.got, tt.want)
		}
	}
}

func TestAppendMessage(t *testing.T) {
	m := &pb.HealthResponse{Status: "ok", UptimeMs: 7}
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := AppendResponseMessage([]byte("x"), pb.Status_Ok, 5, m)
	if want := AppendResponse([]byte("x"), pb.Status_Ok, 5, body); err != nil || !bytes.Equal(got, want) {
		t.Errorf("AppendResponseMessage = %x, %v, want %x", got, err, want)
	}
	got, err = AppendPushMessage([]byte("x"), 1000, m)
	if want := AppendPush([]byte("x"), 1000, body); err != nil || !bytes.Equal(got, want) {
		t.Errorf("AppendPushMessage = %x, %v, want %x", got, err, want)
	}
	bad := &pb.HealthResponse{Status: "\xff"} // proto3 strings are UTF-8
	got, err = AppendResponseMessage([]byte("x"), pb.Status_Ok, 5, bad)
	if err == nil || string(got) != "x" {
		t.Errorf("AppendResponseMessage of an unmarshallable message = %x, %v; want dst back and an error", got, err)
	}
}

func TestParseErrors(t *testing.T) {
	frame := AppendRequest(nil, 200, 1, []byte("body"))
	huge := AppendRequestHeader(nil, RequestHeader{Method: 200, Length: math.MaxUint32})
	for _, tt := range []struct {
		name  string
		frame []byte
		limit uint32
		want  error
	}{
		{"whole", frame, 4, nil},
		{"empty", nil, 4, ErrTruncated},
		{"inside the header", frame[:RequestHeaderSize-1], 4, ErrTruncated},
		{"header only", frame[:RequestHeaderSize], 4, ErrTruncated},
		{"inside the body", frame[:len(frame)-1], 4, ErrTruncated},
		{"one byte more", append(bytes.Clone(frame), 0), 4, ErrTrailing},
		{"over the limit", frame, 3, ErrTooLarge},
		{"largest length", huge, math.MaxUint32 - 1, ErrTooLarge},
		{"largest length, no limit", huge, math.MaxUint32, ErrTruncated},
	} {
		_, body, err := ParseRequest(tt.frame, tt.limit)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: ParseRequest: %v, want %v", tt.name, err, tt.want)
		}
		if tt.want == nil && string(body) != "body" {
			t.Errorf("%s: body %q", tt.name, body)
		}
		// Reading from a stream finds the same, whatever the portions.
		for _, portion := range portions {
			_, read, err := ReadRequest(portion.of(bytes.NewReader(tt.frame)), nil,
				func(RequestHeader) (uint32, error) { return tt.limit, nil })
			if !errors.Is(err, tt.want) {
				t.Errorf("%s, %s: ReadRequest: %v, want %v", tt.name, portion.name, err, tt.want)
			}
			if tt.want == nil && !bytes.Equal(read, tt.frame) {
				t.Errorf("%s, %s: read %x", tt.name, portion.name, read)
			}
		}
	}
}

// portions are ways in which a stream may hand out its bytes.
var portions = []struct {
	name string
	of   func(io.Reader) io.Reader
}{
	{"all at once", func(r io.Reader) io.Reader { return r }},
	{"byte by byte", iotest.OneByteReader},
	{"halves", iotest.HalfReader},
	{"data with EOF", iotest.DataErrReader},
}

func TestFrameErrorSaysHowMuch(t *testing.T) {
	var frame *FrameError
	_, _, err := ParseResponse(AppendResponse(nil, pb.Status_Ok, 1, make([]byte, 10)), 9)
	if !errors.As(err, &frame) || frame.Reason != pb.Reason_FRAME_TOO_LARGE || frame.Announced != 10 || frame.Limit != 9 {
		t.Errorf("too large: %+v", frame)
	}
	_, _, err = ParsePush(AppendPush(nil, 1000, make([]byte, 10))[:PushHeaderSize+4], 100)
	if !errors.As(err, &frame) || frame.Reason != pb.Reason_FRAME_TRUNCATED || frame.Announced != 10 || frame.Got != 4 {
		t.Errorf("truncated: %+v", frame)
	}
	if got, want := err.Error(), "frame truncated: 4 of 10 bytes"; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
}

func TestReadRequestAdmission(t *testing.T) {
	refused := errors.New("no such method")
	frame := AppendRequest(nil, 4711, 9, make([]byte, 100_000))
	calls := 0
	h, _, err := ReadRequest(bytes.NewReader(frame), nil, func(h RequestHeader) (uint32, error) {
		calls++
		return 0, refused
	})
	if err != refused || h.Method != 4711 || h.RequestID != 9 || calls != 1 {
		t.Errorf("header %+v, error %v, %d calls", h, err, calls)
	}
	broken := errors.New("reset by peer")
	r := io.MultiReader(bytes.NewReader(frame[:50]), iotest.ErrReader(broken))
	if _, _, err := ReadResponse(r, nil, 1<<30); !errors.Is(err, broken) {
		t.Errorf("ReadResponse from a broken stream: %v", err)
	}
}

// A peer that announces 4 GiB and sends little must cost little.
func TestReadersGrowWithTheData(t *testing.T) {
	for _, sent := range []int{0, 1, 100, 5_000, 70_000} {
		frame := AppendPushHeader(nil, PushHeader{Type: 1, Length: math.MaxUint32})
		frame = append(frame, make([]byte, sent)...)
		_, got, err := ReadPush(iotest.HalfReader(bytes.NewReader(frame)), nil, math.MaxUint32)
		if !errors.Is(err, ErrTruncated) {
			t.Fatalf("%d bytes of 4 GiB: %v", sent, err)
		}
		if limit := 2*len(frame) + minRead; cap(got) > limit {
			t.Errorf("%d bytes sent: buffer of %d bytes, want ≤ %d", sent, cap(got), limit)
		}
	}
}

// A pooled buffer of the right size is used as it is.
func TestReadReusesTheBuffer(t *testing.T) {
	frame := AppendResponse(nil, pb.Status_Ok, 3, make([]byte, 500))
	buf := make([]byte, 0, minRead)
	r := bytes.NewReader(frame)
	allocs := testing.AllocsPerRun(100, func() {
		r.Reset(frame)
		_, got, err := ReadResponse(r, buf, MaxResponse)
		if err != nil || &got[0] != &buf[:1][0] {
			t.Fatal("the buffer was not used", err)
		}
	})
	if allocs > 1 { // the header's closure
		t.Errorf("%v allocations per read", allocs)
	}
}

// FuzzFrames gives arbitrary bytes to the readers of one kind of frame, which the
// selector names: parser and reader agree, and what is parsed is appended to the
// same bytes.
func FuzzFrames(f *testing.F) {
	for _, m := range Methods() {
		f.Add(uint8(0), AppendRequest(nil, m.ID, 1, []byte("body")))
	}
	f.Add(uint8(0), []byte{})
	f.Add(uint8(0), AppendRequestHeader(nil, RequestHeader{Method: 200, Length: math.MaxUint32}))
	f.Add(uint8(0), append(AppendRequest(nil, 802, 1, nil), 0))
	for status := range pb.Status_name {
		f.Add(uint8(1), AppendResponse(nil, pb.Status(status), 1, []byte("body")))
	}
	f.Add(uint8(1), []byte{0xff, 0, 0, 0, 1, 0, 0, 0, 0})
	f.Add(uint8(2), AppendPush(nil, 1000, []byte("body")))
	f.Add(uint8(2), []byte{0x03, 0xe8, 0xff, 0xff, 0xff, 0xff})
	frames := []func(*testing.T, []byte){fuzzRequestFrame, fuzzResponseFrame, fuzzPushFrame}
	f.Fuzz(func(t *testing.T, selector uint8, b []byte) { frames[int(selector)%len(frames)](t, b) })
}

func fuzzRequestFrame(t *testing.T, b []byte) {
	const limit = 1 << 16
	h, body, err := ParseRequest(b, limit)
	rh, frame, rerr := ReadRequest(iotest.HalfReader(bytes.NewReader(b)), nil,
		func(RequestHeader) (uint32, error) { return limit, nil })
	if (err == nil) != (rerr == nil) {
		t.Fatalf("ParseRequest: %v, ReadRequest: %v", err, rerr)
	}
	if cap(frame) > 2*len(b)+minRead {
		t.Fatalf("buffer of %d bytes for %d", cap(frame), len(b))
	}
	if err != nil {
		return
	}
	if again := AppendRequest(nil, h.Method, h.RequestID, body); !bytes.Equal(again, b) || h != rh {
		t.Fatalf("%x parsed and appended is %x", b, again)
	}
}

func fuzzResponseFrame(t *testing.T, b []byte) {
	h, body, err := ParseResponse(b, 1<<16)
	rh, _, rerr := ReadResponse(iotest.OneByteReader(bytes.NewReader(b)), nil, 1<<16)
	if (err == nil) != (rerr == nil) {
		t.Fatalf("ParseResponse: %v, ReadResponse: %v", err, rerr)
	}
	if err != nil {
		return
	}
	if again := AppendResponse(nil, h.Status, h.RequestID, body); !bytes.Equal(again, b) || h != rh {
		t.Fatalf("%x parsed and appended is %x", b, again)
	}
}

func fuzzPushFrame(t *testing.T, b []byte) {
	h, body, err := ParsePush(b, 1<<16)
	rh, _, rerr := ReadPush(iotest.DataErrReader(bytes.NewReader(b)), nil, 1<<16)
	if (err == nil) != (rerr == nil) {
		t.Fatalf("ParsePush: %v, ReadPush: %v", err, rerr)
	}
	if err != nil {
		return
	}
	if again := AppendPush(nil, h.Type, body); !bytes.Equal(again, b) || h != rh {
		t.Fatalf("%x parsed and appended is %x", b, again)
	}
}
