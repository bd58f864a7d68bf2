package log

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"quicprochat/kt"
)

func encodeSegment(first uint64, records []Record) []byte {
	var w segmentWriter
	w.reset(first)
	for i := range records {
		w.add(&records[i])
	}
	value := make([]byte, w.size())
	w.encode(value)
	return value
}

// reseal gives a changed value a right checksum, so that the checks behind it are reached.
func reseal(value []byte) []byte {
	n := len(value) - 4
	binary.BigEndian.PutUint32(value[n:], crc32.Checksum(value[:n], castagnoli))
	return value
}

func genRecord(t *rapid.T) Record {
	r := Record{
		Leaf:   rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "leaf"),
		Erased: rapid.Bool().Draw(t, "erased"),
	}
	if !r.Erased {
		r.Opening = kt.Opening(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "opening"))
		r.Event = rapid.SliceOf(rapid.Byte()).Draw(t, "event")
	}
	return r
}

func TestSegmentRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.Uint64Max(1<<62).Draw(t, "first")
		records := rapid.SliceOfN(rapid.Custom(genRecord), 1, 20).Draw(t, "records")
		s, err := parseSegment(first, encodeSegment(first, records))
		if err != nil {
			t.Fatal(err)
		}
		if s.first != first || s.next() != first+uint64(len(records)) {
			t.Fatalf("segment holds %d to %d", s.first, s.next())
		}
		for i, want := range records {
			if diff := cmp.Diff(want, s.record(uint64(i)), cmp.Transformer("bytes", func(b []byte) string { return string(b) })); diff != "" {
				t.Fatalf("record %d (-want +got):\n%s", i, diff)
			}
		}
	})
}

// The bytes of a segment are a format: they must not change.
func TestSegmentBytes(t *testing.T) {
	records := []Record{
		{Leaf: []byte("leaf"), Opening: kt.Opening{1, 2, 3}, Event: []byte("event")},
		{Leaf: []byte("L"), Erased: true},
	}
	want := "\x01" + "\x00\x00\x00\x00\x00\x00\x01\x00" +
		"\x00" + "\x00\x04leaf" + "\x01\x02\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" + "event" +
		"\x01" + "\x00\x01L" +
		"\x00\x00\x00\x25" + "\x00\x00\x00\x29" + "\x00\x00\x00\x02" + "\x00\x00\x00\x00"
	if got := encodeSegment(256, records); string(got) != string(reseal([]byte(want))) {
		t.Errorf("segment is\n%q, want\n%q", got, want)
	}
}

// Every flipped bit and every truncation of a segment is noticed.
func TestSegmentDamage(t *testing.T) {
	value := encodeSegment(7, []Record{testRecord(7), testRecord(8), {Leaf: []byte{1}, Erased: true}})
	for i := range len(value) * 8 {
		bad := bytes.Clone(value)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := parseSegment(7, bad); err == nil {
			t.Fatalf("flipped bit %d went unnoticed", i)
		}
	}
	for n := range value {
		if _, err := parseSegment(7, value[:n]); err == nil {
			t.Fatalf("truncation to %d bytes went unnoticed", n)
		}
	}
	if _, err := parseSegment(8, value); err == nil {
		t.Fatal("segment under another key went unnoticed")
	}
}

func TestSegmentStructure(t *testing.T) {
	good := encodeSegment(7, []Record{testRecord(7), testRecord(8)})
	n := len(good)
	for name, change := range map[string]func(b []byte){
		"version":              func(b []byte) { b[0] = 2 },
		"flags":                func(b []byte) { b[segmentHead] = 2 },
		"erased with body":     func(b []byte) { b[segmentHead] = flagErased },
		"no leaf":              func(b []byte) { b[segmentHead+1], b[segmentHead+2] = 0, 0 },
		"leaf beyond record":   func(b []byte) { b[segmentHead+1] = 0xff },
		"no records":           func(b []byte) { binary.BigEndian.PutUint32(b[n-8:], 0) },
		"fewer records":        func(b []byte) { binary.BigEndian.PutUint32(b[n-8:], 1) },
		"far too many records": func(b []byte) { binary.BigEndian.PutUint32(b[n-8:], 1<<31) },
		"end before start":     func(b []byte) { binary.BigEndian.PutUint32(b[n-16:], 1) },
		"end beyond data":      func(b []byte) { binary.BigEndian.PutUint32(b[n-12:], 1<<30) },
	} {
		bad := bytes.Clone(good)
		change(bad)
		if _, err := parseSegment(7, reseal(bad)); err == nil {
			t.Errorf("%s: went unnoticed", name)
		}
	}
}

func TestRecordThatDoesNotFit(t *testing.T) {
	for name, r := range map[string]Record{
		"empty leaf": {},
		"long leaf":  {Leaf: make([]byte, MaxLeafLen+1)},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			var w segmentWriter
			w.add(&r)
		}()
	}
	r := Record{Leaf: bytes.Repeat([]byte{9}, MaxLeafLen)}
	s, err := parseSegment(0, encodeSegment(0, []Record{r}))
	if err != nil || !bytes.Equal(s.record(0).Leaf, r.Leaf) {
		t.Errorf("longest leaf: %v", err)
	}
}

// FuzzStored gives arbitrary bytes to the reader that the selector names: what is
// accepted is what the writer writes.
func FuzzStored(f *testing.F) {
	f.Add(uint8(0), uint64(0), encodeSegment(0, []Record{testRecord(0)}))
	f.Add(uint8(0), uint64(5), encodeSegment(5, []Record{testRecord(5), {Leaf: []byte{2}, Erased: true}, testRecord(7)}))
	f.Add(uint8(0), uint64(1), []byte{})
	for _, text := range []string{testFormatText, "quicprochat data directory, format 1\n", ""} {
		f.Add(uint8(1), uint64(0), []byte(text))
	}
	f.Fuzz(func(t *testing.T, selector uint8, first uint64, raw []byte) {
		if selector%2 == 0 {
			fuzzSegment(t, first, raw)
		} else {
			fuzzFormat(t, string(raw))
		}
	})
}

// fuzzSegment: a parsed segment, encoded again from its records, is the same bytes:
// there is one encoding for each content.
func fuzzSegment(t *testing.T, first uint64, value []byte) {
	if len(value) >= 4 {
		value = reseal(bytes.Clone(value)) // or the checksum would keep the fuzzer out
	}
	s, err := parseSegment(first, value)
	if err != nil {
		return
	}
	var records []Record
	for i := range s.count {
		records = append(records, s.record(i))
	}
	if again := encodeSegment(first, records); !bytes.Equal(again, value) {
		t.Fatalf("encoded again:\n%x, want\n%x", again, value)
	}
}
