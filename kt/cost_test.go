package kt

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// maxLabelSize is the budget for a label in a proof, bytes on the wire.
const maxLabelSize = 4096

// crowd adds n labels of strangers to a map.
func crowd(t testing.TB, m *Map, n int) {
	t.Helper()
	random := rand.New(rand.NewPCG(uint64(n), 1))
	for range n {
		var leaf MapLeaf
		for i := 0; i < len(leaf.Label); i += 8 {
			binary.BigEndian.PutUint64(leaf.Label[i:], random.Uint64())
			binary.BigEndian.PutUint64(leaf.Commitment[i:], random.Uint64())
		}
		if err := m.Insert(leaf.Label, leaf.Commitment); err != nil {
			t.Fatal(err)
		}
	}
}

// TestProofSize: at 10^5 keys and 10^6 leaves no label costs more than the budget,
// the hybrid key of a KeySet, which is the largest value, included.
func TestProofSize(t *testing.T) {
	l := newTestLog(t)
	alice := l.register("alice", 10)
	alice.hybrid = make([]byte, statement.HybridKeySize)
	alice.publish()
	l.head()
	m := l.mapAt(l.size())
	crowd(t, m, 100_000)
	for _, query := range []Query{{Username: "alice"}, {IdentityKey: alice.key()}, {RevokedKey: alice.key()}} {
		q := new(State).Ask(query)
		p := l.answer(q, l.size())
		var claims []MapClaim
		for _, h := range p.Histories {
			for _, version := range h.Versions {
				claims = append(claims, MapClaim{Label: must(vrfProofLabel(version.VrfProof)), Present: true, Commitment: Hash(version.Commitment)})
			}
			if len(h.AbsentVrfProof) > 0 {
				claims = append(claims, MapClaim{Label: must(vrfProofLabel(h.AbsentVrfProof))})
			}
		}
		p.Map = must(ProveMap(m, labelsOf(claims)))
		if err := VerifyMap(m.Root(), p.Map, claims); err != nil {
			t.Fatal(err)
		}
		// A tree of 2^20 leaves: paths of 20 hashes, and as many for consistency.
		path := make([][]byte, 20)
		for i := range path {
			path[i] = make([]byte, 32)
		}
		h := p.Head
		h.HeadPath, h.LogConsistency, h.KnownHeadPath, h.HeadsConsistency, h.Configs = path, path, path, path, nil
		head, whole := proto.Size(h), proto.Size(p)
		perLabel := (whole - head) / len(claims)
		t.Logf("%d labels: %d bytes, of which the head %d; %d a label", len(claims), whole, head, perLabel)
		if perLabel > maxLabelSize || head > maxLabelSize {
			t.Errorf("%d bytes a label, the head %d: the budget is %d", perLabel, head, maxLabelSize)
		}
	}
}

// BenchmarkVerifyPerson checks a person with two devices under the next head.
func BenchmarkVerifyPerson(b *testing.B) {
	l := newTestLog(b)
	alice := l.register("alice", 10)
	alice.publish()
	l.head()
	v, known := testVerifier(), new(State)
	mustAsk(b, l, v, known, Query{})
	l.opaque(20)
	l.head()
	q := known.Ask(Query{Username: "alice"})
	p := l.answer(q, l.size())
	b.ReportAllocs()
	for b.Loop() {
		state := *known
		if _, err := v.Verify(&state, q, p, l.nowMS); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifyHead checks the next head alone.
func BenchmarkVerifyHead(b *testing.B) {
	l := newTestLog(b)
	l.head()
	v, known := testVerifier(), new(State)
	mustAsk(b, l, v, known, Query{})
	l.opaque(20)
	l.head()
	q := known.Ask(Query{})
	p := l.headProof(q, l.size())
	b.ReportAllocs()
	for b.Loop() {
		state := *known
		if _, err := v.Head(&state, q, p, l.nowMS); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMapInsert adds labels one by one to a map of 10^5, with a root after
// each 16, as a replay does.
func BenchmarkMapInsert(b *testing.B) {
	m := new(Map)
	crowd(b, m, 100_000)
	var label Label
	n := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		n++
		binary.BigEndian.PutUint64(label[:], n*0x9e3779b97f4a7c15)
		if err := m.Insert(label, Hash{}); err != nil {
			b.Fatal(err)
		}
		if n%16 == 0 {
			m.Root()
		}
	}
}

// BenchmarkProveMap proves ten labels in a map of 10^5.
func BenchmarkProveMap(b *testing.B) {
	m := new(Map)
	crowd(b, m, 100_000)
	labels := make([]Label, 10)
	for i := range labels {
		binary.BigEndian.PutUint64(labels[i][:], uint64(i)*0x9e3779b97f4a7c15)
	}
	m.Root()
	var p *pb.MapProof
	for b.Loop() {
		p = must(ProveMap(m, labels))
	}
	b.ReportMetric(float64(proto.Size(p))/float64(len(labels)), "bytes/label")
}
