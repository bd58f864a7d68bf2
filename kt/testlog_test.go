package kt

import (
	"crypto/ed25519"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
	"google.golang.org/protobuf/proto"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

const (
	testServer = "chat.example.org"
	testStart  = uint64(1_700_000_000_000)
)

// testLog is a log in memory that proves what a server proves. It is honest; a
// test that wants a lie forks it, appends a leaf unchecked, or changes a proof.
type testLog struct {
	t       testing.TB
	keys    []ed25519.PrivateKey // of each CONFIG
	configs []uint64
	vrf     *VRFPrivateKey
	leaves  [][]byte
	tree    *testonly.Tree
	heads   []uint64
	entries map[string][]testEntry
	r       *Replayer
	nowMS   uint64
	// unopened is what a lying server says is erased.
	unopened func(kind Kind, version uint32) bool
}

// testEntry is a version as a server keeps it.
type testEntry struct {
	index      uint64
	proof      VRFProof
	commitment Hash
	opening    Opening
	event      []byte
	label      Label
}

func newTestLog(t testing.TB) *testLog { return newTestLogOf(t, NewVRFPrivateKey([32]byte{2})) }

func newTestLogOf(t testing.TB, vrf *VRFPrivateKey) *testLog {
	l := &testLog{
		t: t, vrf: vrf, tree: testonly.New(rfc6962.DefaultHasher),
		entries: map[string][]testEntry{}, r: NewReplayer(), nowMS: testStart,
	}
	c := must(NewConfig(testServer, public(testKey(1)), l.vrf.PublicKey()))
	c.FormatVersion = FormatVersion
	l.config(c, testKey(1))
	return l
}

// add appends a leaf that the replayer accepts.
func (l *testLog) add(leaf []byte) {
	l.t.Helper()
	if err := l.r.Append(leaf); err != nil {
		l.t.Fatal(err)
	}
	l.note(leaf)
}

func (l *testLog) note(leaf []byte) {
	switch Class(leaf[0]) {
	case ClassHead:
		l.heads = append(l.heads, l.size())
	case ClassConfig:
		l.configs = append(l.configs, l.size())
	}
	l.leaves = append(l.leaves, leaf)
	l.tree.AppendData(leaf)
}

// unchecked appends a leaf that no replayer accepts, and goes on as if it were
// right.
func (l *testLog) unchecked(leaf []byte) {
	rangeAppend(l.r.tree, leaf)
	if parsed := must(ParseLeaf(leaf)); parsed.Class == ClassHead {
		rangeAppend(l.r.heads, leaf)
		l.r.head, l.r.headIndex, l.r.headLeaf = parsed.Head, l.size(), leaf
	}
	l.note(leaf)
}

func (l *testLog) size() uint64 { return uint64(len(l.leaves)) }

func (l *testLog) config(c Config, key ed25519.PrivateKey) {
	l.keys = append(l.keys, key)
	l.add(AppendConfigLeaf(nil, c))
}

// rotate appends a CONFIG with another key and generation.
func (l *testLog) rotate(seed byte, generation uint32) {
	c, index, _ := l.r.Config()
	c.LogKey, c.Origin = public(testKey(seed)), Origin(testServer, generation)
	c.Link(index, l.keys[len(l.keys)-1])
	l.config(c, testKey(seed))
}

func (l *testLog) opaque(n int) {
	for range n {
		l.add(AppendOpaqueLeaf(nil, Hash{byte(l.size()), byte(l.size() >> 8), 1}))
	}
}

// entry appends the next version of an id.
func (l *testLog) entry(kind Kind, id, value []byte) { l.entryID(kind, id, id, value) }

// entryID is entry, with another id in the event than the label is made of.
func (l *testLog) entryID(kind Kind, id, named, value []byte) {
	l.t.Helper()
	key := string(VRFInput(kind, id, 0))
	number := uint32(len(l.entries[key]))
	next, _ := l.vrf.Label(kind, id, number+1)
	e := testEntry{index: l.size()}
	e.label, e.proof = l.vrf.Label(kind, id, number)
	binary.BigEndian.PutUint64(e.opening[:], l.size())
	e.event = must(proto.Marshal(&pb.Event{TimeMs: l.nowMS, Body: &pb.Event_KeyTransparencyEntry{KeyTransparencyEntry: &pb.KeyTransparencyEntry{
		Kind: uint32(kind), Id: named, Version: number, Value: value, VrfProof: e.proof[:], NextVrfProof: next[:],
	}}}))
	e.commitment = Commit(e.opening, VRFInput(kind, id, number), e.event)
	l.add(AppendKTLeaf(nil, e.label, e.commitment))
	l.entries[key] = append(l.entries[key], e)
}

// head appends the HEAD that belongs here, a minute later.
func (l *testLog) head() uint64 {
	l.t.Helper()
	l.nowMS += 60_000
	l.add(AppendHeadLeaf(nil, l.r.NextHead(l.nowMS)))
	return l.size()
}

// fork is a log with the same first leaves.
func (l *testLog) fork(size uint64) *testLog {
	f := *l
	f.leaves, f.tree, f.r = nil, testonly.New(rfc6962.DefaultHasher), NewReplayer()
	f.heads, f.configs, f.entries = nil, nil, map[string][]testEntry{}
	for _, leaf := range l.leaves[:size] {
		f.add(leaf)
	}
	f.keys = slices.Clone(l.keys[:len(f.configs)])
	for key, versions := range l.entries {
		f.entries[key] = versionsBelow(versions, size)
	}
	return &f
}

func versionsBelow(versions []testEntry, size uint64) []testEntry {
	n := 0
	for n < len(versions) && versions[n].index < size {
		n++
	}
	return slices.Clone(versions[:n])
}

// signed is the note of the first size leaves.
func (l *testLog) signed(size uint64) []byte {
	i := len(l.configs) - 1
	for l.configs[i] >= size {
		i--
	}
	c := must(ParseLeaf(l.leaves[l.configs[i]])).Config
	return must(SignCheckpoint(Checkpoint{c.Origin, size, Hash(l.tree.HashAt(size))}, l.keys[i]))
}

// person is somebody who registers with a testLog.
type person struct {
	log      *testLog
	name     string
	identity ed25519.PrivateKey
	devices  []ed25519.PrivateKey
	hybrid   []byte
	keySets  []*pb.KeySet
}

// key is the identity's public key.
func (p *person) key() []byte { return public(p.identity) }

// register makes a person whose keys follow from seed, with two devices.
func (l *testLog) register(name string, seed byte) *person {
	l.t.Helper()
	p := &person{log: l, name: name, identity: testKey(seed), devices: []ed25519.PrivateKey{testKey(seed + 1), testKey(seed + 2)}}
	l.bind(name, &pb.AccountBinding{IdentityKey: p.key(), Authority: pb.Authority_FIRST})
	p.publish()
	l.opaque(1)
	return p
}

func (l *testLog) bind(name string, b *pb.AccountBinding) {
	l.t.Helper()
	l.entry(KindAccount, []byte(name), must(proto.Marshal(b)))
}

// nextKeySet is the KeySet that the person signs next.
func (p *person) nextKeySet() *pb.KeySet {
	ks := &pb.KeySet{IdentityKey: p.key(), Version: uint32(len(p.keySets)), TimeMs: p.log.nowMS}
	for _, device := range p.devices {
		ks.DeviceKeys = append(ks.DeviceKeys, public(device))
	}
	if ks.HybridKey = p.hybrid; p.hybrid != nil {
		ks.KemId = statement.KEMXWing
	}
	if n := len(p.keySets); n > 0 {
		hash := statement.KeySetHash(testServer, p.keySets[n-1])
		ks.PreviousHash = hash[:]
	}
	statement.SignKeySet(testServer, ks, p.identity)
	return ks
}

// publish appends the person's next KeySet.
func (p *person) publish() {
	p.log.t.Helper()
	ks := p.nextKeySet()
	p.keySets = append(p.keySets, ks)
	p.log.entry(KindIdentity, p.key(), must(proto.Marshal(ks)))
}

// succeed hands the name over to a new identity, which both keys sign.
func (p *person) succeed(seed byte) *person {
	p.log.t.Helper()
	next := &person{log: p.log, name: p.name, identity: testKey(seed), devices: p.devices}
	p.log.bind(p.name, p.handOver(next))
	next.publish()
	return next
}

func (p *person) handOver(next *person) *pb.AccountBinding {
	s := statement.Successor{
		ServerName: testServer, Username: p.name, OldKey: p.key(), NewKey: next.key(),
		KeySetHash: statement.KeySetHash(testServer, next.nextKeySet()),
	}
	return &pb.AccountBinding{
		IdentityKey: next.key(), Authority: pb.Authority_OLD_KEY, KeySetHash: s.KeySetHash[:],
		OldSignature: s.Sign(p.identity), NewSignature: s.Sign(next.identity),
	}
}

// revoke appends the revocation of a key; the signer is the key itself, the
// identity, or nil for the server's word.
func (l *testLog) revoke(key []byte, authority pb.Authority, signer ed25519.PrivateKey) {
	l.t.Helper()
	r := &pb.Revocation{Reason: uint32(statement.ReasonKeyCompromise), TimeMs: l.nowMS, Authority: authority}
	if signer != nil {
		r.Signature = statement.Revoke{ServerName: testServer, Key: key, Reason: statement.ReasonKeyCompromise}.Sign(signer)
	}
	l.entry(KindRevocation, key, must(proto.Marshal(r)))
}
