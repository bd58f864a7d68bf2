package sim

import (
	"bytes"
	"encoding/binary"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// Person proves what a username is bound to.
func (f *FalseLog) Person(r *pb.ProofRequest, username string) *pb.KeyProof {
	b := f.prove(r)
	binding := new(pb.AccountBinding)
	if value := b.history(kt.KindAccount, []byte(username), r.GetFromAccountVersion()); value != nil {
		must(0, unmarshal(value, binding))
	}
	if !binding.GetTombstone() && len(binding.GetIdentityKey()) > 0 {
		b.identity(binding.GetIdentityKey(), r.GetFromIdentityVersion())
	}
	return b.end()
}

// Identities proves the KeySets of identities.
func (f *FalseLog) Identities(r *pb.ProofRequest, keys ...[]byte) *pb.KeyProof {
	b := f.prove(r)
	for _, key := range keys {
		b.identity(key, r.GetFromIdentityVersion())
	}
	return b.end()
}

// Revocation proves whether a key is revoked.
func (f *FalseLog) Revocation(r *pb.ProofRequest, key []byte) *pb.KeyProof {
	b := f.prove(r)
	b.history(kt.KindRevocation, key, 0)
	return b.end()
}

// Head proves the head alone.
func (f *FalseLog) Head(r *pb.ProofRequest) *pb.HeadProof {
	size := f.Shown()
	p := &pb.HeadProof{Note: f.Note(size), HeadLeaf: f.Leaf(size - 1), HeadPath: must(f.tree.InclusionProof(size-1, size))}
	after := -1
	if known := r.GetKnownNote(); known != nil {
		after = int(r.GetKnownConfig())
		text, _, _ := bytes.Cut(known, []byte("\n\n"))
		f.connect(p, must(kt.ParseCheckpoint(append(bytes.Clone(text), '\n'))).Size, size)
	}
	for _, index := range f.configs(size) {
		if int(index) > after {
			p.Configs = append(p.Configs, &pb.ConfigProof{Index: index, Leaf: f.Leaf(index), Path: must(f.tree.InclusionProof(index, size))})
		}
	}
	return p
}

// connect proves the older of two sizes under the newer one, as well as it can.
func (f *FalseLog) connect(p *pb.HeadProof, known, size uint64) {
	older, newer := min(known, size), max(known, size)
	if older == newer || newer > f.size() {
		return
	}
	p.LogConsistency = must(f.tree.ConsistencyProof(older, newer))
	if kt.Class(f.leaves[older-1][0]) != kt.ClassHead || kt.Class(f.leaves[newer-1][0]) != kt.ClassHead {
		return
	}
	a, b := f.parsed(older-1).Head.Epoch, f.parsed(newer-1).Head.Epoch
	heads := f.headsTree(newer - 1)
	if b > heads.Size() || a >= b {
		return
	}
	p.KnownHeadPath = must(heads.InclusionProof(a, b))
	if a > 0 {
		p.HeadsConsistency = must(heads.ConsistencyProof(a, b))
	}
}

// Consistency is the proof, for a witness, from a size to all that is shown; none
// from 0 or from beyond.
func (f *FalseLog) Consistency(from uint64) (hashes []kt.Hash) {
	if from == 0 || from > f.Shown() {
		return nil
	}
	for _, h := range must(f.tree.ConsistencyProof(from, f.Shown())) {
		hashes = append(hashes, kt.Hash(h))
	}
	return hashes
}

// proofBuilder collects histories under one head.
type proofBuilder struct {
	log    *FalseLog
	size   uint64
	p      *pb.KeyProof
	labels []kt.Label
}

func (f *FalseLog) prove(r *pb.ProofRequest) *proofBuilder {
	return &proofBuilder{log: f, size: f.Shown(), p: &pb.KeyProof{Head: f.Head(r)}}
}

func (b *proofBuilder) end() *pb.KeyProof {
	if len(b.labels) > 0 {
		b.p.Map = must(kt.ProveMap(b.log.mapAt(b.size), b.labels))
	}
	if b.log.Change != nil {
		b.log.Change(b.p)
	}
	return b.p
}

func (b *proofBuilder) identity(key []byte, from uint32) {
	ks := new(pb.KeySet)
	must(0, unmarshal(b.history(kt.KindIdentity, key, from), ks))
	b.history(kt.KindRevocation, key, 0)
	for _, device := range ks.GetDeviceKeys() {
		if !bytes.Equal(device, key) {
			b.history(kt.KindRevocation, device, 0)
		}
	}
}

// history proves the versions of an id and gives the newest one's value.
func (b *proofBuilder) history(kind kt.Kind, id []byte, from uint32) (value []byte) {
	versions := below(b.log.entries[idOf(kind, id)], b.size)
	n := uint32(len(versions))
	if n == 0 {
		from = 0
	} else {
		from = min(from, n-1)
	}
	h := &pb.HistoryProof{Kind: uint32(kind), Id: id, FromVersion: from}
	for i, v := range versions[from:] {
		p := &pb.VersionProof{VrfProof: v.proof[:], Commitment: v.commitment[:], Index: v.index, Opening: v.opening[:], Event: v.event}
		if b.log.Unopened != nil && b.log.Unopened(kind, id, from+uint32(i)) {
			p.Opening, p.Event = nil, nil
		}
		h.Versions = append(h.Versions, p)
		b.labels = append(b.labels, v.label)
		value = entryOf(v.event).GetValue()
	}
	if kind != kt.KindRevocation || n == 0 {
		label, proof := b.log.VRF.Label(kind, id, n)
		h.AbsentVrfProof = proof[:]
		b.labels = append(b.labels, label)
	}
	b.p.Histories = append(b.p.Histories, h)
	return value
}

// Resource is a public resource of the log by its path, as an auditor reads it;
// nil if there is none.
func (f *FalseLog) Resource(path string) []byte {
	size := f.Shown()
	if path == "checkpoint" {
		return f.Note(size)
	}
	p, err := kt.ParseTilePath(path)
	if err != nil {
		return nil
	}
	first, last := p.N*kt.TileWidth, p.N*kt.TileWidth+uint64(p.Width)
	switch {
	case p.Kind == kt.EntryBundle && last <= size:
		var b []byte
		for _, leaf := range f.leaves[first:last] {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(leaf))), leaf...)
		}
		return b
	case p.Kind == kt.HashTile && last<<(8*p.Level) <= size:
		var b []byte
		for i := first; i < last; i++ {
			b = append(b, f.node(uint(8*p.Level), i)...)
		}
		return b
	case p.Kind == kt.DeltaBundle:
		return f.delta(p, size)
	}
	return nil
}

// node is the root over the leaves of one perfect subtree.
func (f *FalseLog) node(level uint, index uint64) []byte {
	r := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	for _, leaf := range f.leaves[index<<level : (index+1)<<level] {
		must(0, r.Append(rfc6962.DefaultHasher.HashLeaf(leaf), nil))
	}
	return must(r.GetRootHash(nil))
}

// delta is what an auditor of key events alone reads.
func (f *FalseLog) delta(p kt.TilePath, size uint64) []byte {
	heads := f.heads(size)
	first, last := p.N*kt.TileWidth, p.N*kt.TileWidth+uint64(p.Width)
	if last > uint64(len(heads)) {
		return nil
	}
	d := kt.Delta{Number: p.N}
	begin := uint64(0)
	if first > 0 {
		begin = heads[first-1] + 1
	}
	for i := begin; i <= heads[last-1]; i++ {
		if kt.Class(f.leaves[i][0]) != kt.ClassOpaque && !f.hidden[i] {
			d.Leaves = append(d.Leaves, kt.IndexedLeaf{Index: i, Leaf: f.leaves[i]})
		}
	}
	return kt.AppendDelta(nil, d)
}
