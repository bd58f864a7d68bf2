package log

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkAppend is the cost of a record in memory: encoding, leaf hash and compact range.
func BenchmarkAppend(b *testing.B) {
	l := newLogForTest(b)
	r := testRecord(1)
	r.Event = make([]byte, 300)
	b.ReportAllocs()
	for b.Loop() {
		g := l.NewGroup()
		for range 512 {
			g.Append(r)
		}
		g.Discard()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/512, "ns/record")
}

// BenchmarkCommit is the whole path of a group on the disk of TMPDIR, three groups deep.
func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("records=%d", size), func(b *testing.B) { benchmarkCommit(b, size) })
	}
}

func benchmarkCommit(b *testing.B, size int) {
	dir := b.TempDir()
	if err := Create(vfs.Default, dir, testStore, testRecord(0)); err != nil {
		b.Fatal(err)
	}
	l, err := Open(vfs.Default, dir, testOptions())
	if err != nil {
		b.Fatal(err)
	}
	defer mustClose(b, l)
	pending := make(chan *Pending, 2)
	done := make(chan error)
	go func() {
		var first error
		for p := range pending {
			if err := p.Wait(); err != nil && first == nil {
				first = err
			}
		}
		done <- first
	}()
	r := testRecord(1)
	r.Event = make([]byte, 300)
	payload := make([]byte, 1024)
	var id uint64
	var k PayloadKey
	b.ReportAllocs()
	for b.Loop() {
		g := l.NewGroup()
		for range size {
			g.Append(r)
			binary.BigEndian.PutUint64(k.ID[:], id)
			id++
			g.PutPayload(k, payload)
		}
		p, err := g.Commit()
		if err != nil {
			b.Fatal(err)
		}
		pending <- p
	}
	close(pending)
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(size), "ns/record")
}

// BenchmarkIterate is a replay from the store, with leaf hash and compact range as a verified replay has them.
func BenchmarkIterate(b *testing.B) {
	l := newLogForTest(b)
	for range 200 {
		appendRecords(b, l, 500)
	}
	size := l.Size()
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			if err := l.Iterate(0, size, func(uint64, Record) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(size), "ns/record")
	})
	b.Run("hashed", func(b *testing.B) {
		for b.Loop() {
			if _, err := l.rootOfSegments(size); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(size), "ns/record")
	})
}

func BenchmarkInclusionProof(b *testing.B) {
	l := newLogForTest(b)
	for range 200 {
		appendRecords(b, l, 500)
	}
	size := l.Size()
	for name, index := range map[string]uint64{"stored": 100, "edge": size - 3} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.InclusionProof(index, size); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
