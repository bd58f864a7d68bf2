package kt

import (
	"bytes"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

// headProof answers a question with the head of the first size leaves.
func (l *testLog) headProof(q *Question, size uint64) *pb.HeadProof {
	l.t.Helper()
	request := must(q.Request())
	leaf := l.leaves[size-1]
	p := &pb.HeadProof{Note: l.signed(size), HeadLeaf: leaf, HeadPath: must(l.tree.InclusionProof(size-1, size))}
	after := -1
	if known := request.GetKnownNote(); known != nil {
		after = int(request.GetKnownConfig())
		l.connect(p, must(peekCheckpoint(known)).Size, size)
	}
	for _, index := range l.configs {
		if int(index) > after && index < size {
			p.Configs = append(p.Configs, &pb.ConfigProof{Index: index, Leaf: l.leaves[index], Path: must(l.tree.InclusionProof(index, size))})
		}
	}
	return p
}

// connect proves the older of two sizes under the newer one.
func (l *testLog) connect(p *pb.HeadProof, known, size uint64) {
	older, newer := min(known, size), max(known, size)
	if older == newer || newer > l.size() || Class(l.leaves[older-1][0]) != ClassHead || Class(l.leaves[newer-1][0]) != ClassHead {
		return
	}
	a, b := must(ParseLeaf(l.leaves[older-1])).Head.Epoch, must(ParseLeaf(l.leaves[newer-1])).Head.Epoch
	heads := testonly.New(rfc6962.DefaultHasher)
	for _, index := range l.heads {
		heads.AppendData(l.leaves[index])
	}
	p.LogConsistency = must(l.tree.ConsistencyProof(older, newer))
	p.KnownHeadPath = must(heads.InclusionProof(a, b))
	if a > 0 {
		p.HeadsConsistency = must(heads.ConsistencyProof(a, b))
	}
}

// answer proves what a query asks for under the head of the first size leaves.
func (l *testLog) answer(q *Question, size uint64) *pb.KeyProof {
	l.t.Helper()
	request := must(q.Request())
	b := &answerBuilder{log: l, size: size, p: &pb.KeyProof{Head: l.headProof(q, size)}}
	identity := q.Query.IdentityKey
	switch {
	case q.Query.Username != "":
		newest := b.history(KindAccount, []byte(q.Query.Username), request.GetFromAccountVersion())
		if newest == nil {
			break
		}
		binding := new(pb.AccountBinding)
		if err := proto.Unmarshal(newest, binding); err != nil {
			l.t.Fatal(err)
		}
		if identity = binding.GetIdentityKey(); binding.GetTombstone() {
			identity = nil
		}
	case q.Query.RevokedKey != nil:
		b.history(KindRevocation, q.Query.RevokedKey, 0)
	}
	identities := q.Query.IdentityKeys
	if identity != nil {
		identities = [][]byte{identity}
	}
	for _, identity := range identities {
		ks := new(pb.KeySet)
		// A lying server's KeySet may be none.
		_ = proto.Unmarshal(b.history(KindIdentity, identity, request.GetFromIdentityVersion()), ks)
		b.history(KindRevocation, identity, 0)
		for _, device := range ks.GetDeviceKeys() {
			if !bytes.Equal(device, identity) && len(device) == 32 {
				b.history(KindRevocation, device, 0)
			}
		}
	}
	if len(b.labels) > 0 {
		b.p.Map = must(ProveMap(l.mapAt(size), b.labels))
	}
	return b.p
}

// mapAt is the map under the head of the first size leaves.
func (l *testLog) mapAt(size uint64) *Map {
	m := new(Map)
	for _, leaf := range l.leaves[:size] {
		if parsed := must(ParseLeaf(leaf)); parsed.Class == ClassKT {
			if err := m.Insert(parsed.Label, parsed.Commitment); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	return m
}

type answerBuilder struct {
	log    *testLog
	size   uint64
	p      *pb.KeyProof
	labels []Label
}

// history proves the versions of an id and returns the newest one's value.
func (b *answerBuilder) history(kind Kind, id []byte, from uint32) (value []byte) {
	versions := versionsBelow(b.log.entries[string(VRFInput(kind, id, 0))], b.size)
	n := uint32(len(versions))
	if n > 0 {
		from = min(from, n-1)
	} else {
		from = 0
	}
	h := &pb.HistoryProof{Kind: uint32(kind), Id: id, FromVersion: from}
	for i, v := range versions[from:] {
		p := &pb.VersionProof{VrfProof: v.proof[:], Commitment: v.commitment[:], Index: v.index, Opening: v.opening[:], Event: v.event}
		if b.log.unopened != nil && b.log.unopened(kind, from+uint32(i)) {
			p.Opening, p.Event = nil, nil
		}
		h.Versions = append(h.Versions, p)
		b.labels = append(b.labels, v.label)
		ev := new(pb.Event)
		if err := proto.Unmarshal(v.event, ev); err != nil {
			b.log.t.Fatal(err)
		}
		value = ev.GetKeyTransparencyEntry().GetValue()
	}
	if kind != KindRevocation || n == 0 {
		label, proof := b.log.vrf.Label(kind, id, n)
		h.AbsentVrfProof = proof[:]
		b.labels = append(b.labels, label)
	}
	b.p.Histories = append(b.p.Histories, h)
	return value
}
