package sim

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	"quicprochat/log"
	pb "quicprochat/proto/qpcv1"
)

// FalseLog is a log in the hands of a liar, who has the server's keys: any leaf is
// appended, signed and proved, whether it holds or not. Left alone it proves what
// the log shows that it was copied from; each lie is one change to it. Everything
// is made anew from the leaves, by other means than the server's. It panics where
// only the test itself can be wrong. It is not safe for concurrent use.
type FalseLog struct {
	ServerName string
	// Key signs checkpoints.
	Key ed25519.PrivateKey
	// VRF makes the labels; another one than CONFIG names is a second label space.
	VRF *kt.VRFPrivateKey
	// Size is how many leaves are shown; 0 for all.
	Size uint64
	// Unopened tells which versions are called erased.
	Unopened func(kind kt.Kind, id []byte, version uint32) bool
	// Change has every proof before it is sent.
	Change func(*pb.KeyProof)
	// Word has every reply, with its proof, before it is sent.
	Word func(reply proto.Message)

	leaves  [][]byte
	tree    *testonly.Tree
	entries map[string][]falseEntry // versions of an id, as they are shown
	// unmapped are KT leaves that the map lacks, hidden leaves that no delta shows,
	// and disowned HEADs that the tree of heads lacks, by index.
	unmapped, hidden, disowned map[uint64]bool
}

// falseEntry is one version of one id.
type falseEntry struct {
	index      uint64
	label      kt.Label
	proof      kt.VRFProof
	commitment kt.Hash
	opening    kt.Opening
	event      []byte
}

// CopyLog makes a FalseLog of a server's log, up to its newest HEAD.
func CopyLog(l *log.Log, serverName string, key ed25519.PrivateKey, vrf *kt.VRFPrivateKey) (*FalseLog, error) {
	f := &FalseLog{
		ServerName: serverName, Key: key, VRF: vrf, tree: testonly.New(rfc6962.DefaultHasher),
		entries: map[string][]falseEntry{}, unmapped: map[uint64]bool{}, hidden: map[uint64]bool{}, disowned: map[uint64]bool{},
	}
	err := l.Iterate(0, l.Size(), func(index uint64, r log.Record) error {
		ev := new(pb.Event)
		if err := proto.Unmarshal(r.Event, ev); err != nil {
			return err
		}
		if e := ev.GetKeyTransparencyEntry(); e != nil {
			leaf, err := kt.ParseLeaf(r.Leaf)
			if err != nil {
				return err
			}
			f.keep(kt.Kind(e.GetKind()), e.GetId(), falseEntry{
				index, leaf.Label, kt.VRFProof(e.GetVrfProof()), leaf.Commitment, r.Opening, slices.Clone(r.Event),
			})
		}
		f.Append(slices.Clone(r.Leaf))
		return nil
	})
	if err != nil {
		return nil, err
	}
	heads := f.heads(f.size())
	if len(heads) == 0 {
		return nil, fmt.Errorf("a log of %d leaves without HEAD", f.size())
	}
	return f.Fork(heads[len(heads)-1] + 1), nil
}

// Fork is a log with the same first leaves.
func (f *FalseLog) Fork(size uint64) *FalseLog {
	g := *f
	g.leaves, g.tree, g.entries = nil, testonly.New(rfc6962.DefaultHasher), map[string][]falseEntry{}
	g.unmapped, g.hidden, g.disowned = cloneSet(f.unmapped), cloneSet(f.hidden), cloneSet(f.disowned)
	for _, leaf := range f.leaves[:size] {
		g.Append(leaf)
	}
	for id, versions := range f.entries {
		g.entries[id] = below(versions, size)
	}
	return &g
}

func cloneSet(set map[uint64]bool) map[uint64]bool {
	c := map[uint64]bool{}
	for k, v := range set {
		c[k] = v
	}
	return c
}

func below(versions []falseEntry, size uint64) []falseEntry {
	n := 0
	for n < len(versions) && versions[n].index < size {
		n++
	}
	return slices.Clone(versions[:n])
}

func (f *FalseLog) size() uint64 { return uint64(len(f.leaves)) }

// Shown is the number of leaves that are shown.
func (f *FalseLog) Shown() uint64 {
	if f.Size > 0 {
		return f.Size
	}
	return f.size()
}

// Leaf is the leaf at an index.
func (f *FalseLog) Leaf(index uint64) []byte { return slices.Clone(f.leaves[index]) }

// Append appends any leaf.
func (f *FalseLog) Append(leaf []byte) {
	f.leaves = append(f.leaves, leaf)
	f.tree.AppendData(leaf)
}

// Opaque appends leaves that are not about keys.
func (f *FalseLog) Opaque(n int) {
	for range n {
		var c kt.Hash
		rand.Read(c[:])
		f.Append(kt.AppendOpaqueLeaf(nil, c))
	}
}

// Enter appends the next version of an id.
func (f *FalseLog) Enter(kind kt.Kind, id []byte, value proto.Message) {
	number := uint32(len(f.entries[idOf(kind, id)]))
	e := falseEntry{index: f.size()}
	e.label, e.proof = f.VRF.Label(kind, id, number)
	_, next := f.VRF.Label(kind, id, number+1)
	rand.Read(e.opening[:])
	e.event = mustMarshal(&pb.Event{TimeMs: f.lastMS(), Body: &pb.Event_KeyTransparencyEntry{KeyTransparencyEntry: &pb.KeyTransparencyEntry{
		Kind: uint32(kind), Id: id, Version: number, Value: mustMarshal(value), VrfProof: e.proof[:], NextVrfProof: next[:],
	}}})
	e.commitment = kt.Commit(e.opening, kt.VRFInput(kind, id, number), e.event)
	f.keep(kind, id, e)
	f.Append(kt.AppendKTLeaf(nil, e.label, e.commitment))
}

// Bind binds a name to an identity on the server's word, or as a first
// registration, with a KeySet that this identity signs.
func (f *FalseLog) Bind(username string, identity ed25519.PrivateKey) {
	authority := pb.Authority_ADMINISTRATOR
	if !f.Newest(kt.KindAccount, []byte(username), new(pb.AccountBinding)) {
		authority = pb.Authority_FIRST
	}
	key := identity.Public().(ed25519.PublicKey)
	f.Enter(kt.KindAccount, []byte(username), &pb.AccountBinding{IdentityKey: key, Authority: authority})
	seed := sha256.Sum256(identity.Seed())
	device := ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)
	ks := &pb.KeySet{IdentityKey: key, TimeMs: 1, DeviceKeys: [][]byte{device}}
	statement.SignKeySet(f.ServerName, ks, identity)
	f.Enter(kt.KindIdentity, key, ks)
}

// NextKeySet is the KeySet that follows an identity's newest, not signed.
func (f *FalseLog) NextKeySet(identity ed25519.PublicKey) *pb.KeySet {
	before := new(pb.KeySet)
	f.Newest(kt.KindIdentity, identity, before)
	hash := statement.KeySetHash(f.ServerName, before)
	return &pb.KeySet{
		IdentityKey: identity, Version: before.GetVersion() + 1, PreviousHash: hash[:], DeviceKeys: before.GetDeviceKeys(), TimeMs: before.GetTimeMs() + 1,
	}
}

// Publish is an identity's next KeySet, signed, with a hybrid key or none.
func (f *FalseLog) Publish(identity ed25519.PrivateKey, hybridKey []byte) {
	ks := f.NextKeySet(identity.Public().(ed25519.PublicKey))
	if ks.HybridKey = hybridKey; hybridKey != nil {
		ks.KemId = statement.KEMXWing
	}
	statement.SignKeySet(f.ServerName, ks, identity)
	f.Enter(kt.KindIdentity, ks.IdentityKey, ks)
}

func (f *FalseLog) keep(kind kt.Kind, id []byte, e falseEntry) {
	f.entries[idOf(kind, id)] = append(f.entries[idOf(kind, id)], e)
}

// Newest is the value of an id's newest version, into value; false if there is
// none.
func (f *FalseLog) Newest(kind kt.Kind, id []byte, value proto.Message) bool {
	versions := f.entries[idOf(kind, id)]
	if len(versions) == 0 {
		return false
	}
	must(0, proto.Unmarshal(entryOf(versions[len(versions)-1].event).GetValue(), value))
	return true
}

// Junk appends n keys of nobody: key events that make up a number.
func (f *FalseLog) Junk(n int) {
	for range n {
		var leaf [2]kt.Hash
		rand.Read(leaf[0][:])
		rand.Read(leaf[1][:])
		f.Append(kt.AppendKTLeaf(nil, kt.Label(leaf[0]), leaf[1]))
	}
}

// Replace puts another leaf in the place of one.
func (f *FalseLog) Replace(index uint64, leaf []byte) {
	f.leaves[index] = leaf
	f.tree = testonly.New(rfc6962.DefaultHasher)
	f.tree.AppendData(f.leaves...)
}

// Hide shows only the first n versions of an id. The map still has them all.
func (f *FalseLog) Hide(kind kt.Kind, id []byte, n int) {
	f.entries[idOf(kind, id)] = f.entries[idOf(kind, id)][:n]
}

// Unmap shows only the first n versions of an id, and takes the others out of the
// map too: HEADs that follow do not know them. With unseen no delta has them.
func (f *FalseLog) Unmap(kind kt.Kind, id []byte, n int, unseen bool) {
	for _, e := range f.entries[idOf(kind, id)][n:] {
		f.unmapped[e.index], f.hidden[e.index] = true, unseen
	}
	f.Hide(kind, id, n)
}

// Disown takes the last leaf, a HEAD, out of the tree of heads and of all deltas:
// it was for one victim.
func (f *FalseLog) Disown() { f.disowned[f.size()-1], f.hidden[f.size()-1] = true, true }

// NextHead is the HEAD that holds at the end, a minute after the one before but
// not in the future.
func (f *FalseLog) NextHead() kt.Head {
	h := kt.Head{TimeMS: max(f.lastMS(), min(f.lastMS()+60_000, uint64(time.Now().UnixMilli())))}
	heads := f.heads(f.size())
	if h.Epoch = uint64(len(heads)); h.Epoch > 0 {
		h.PrevHead = heads[len(heads)-1]
	}
	h.HeadsRoot = kt.Hash(f.headsTree(f.size()).Hash())
	configs := f.configs(f.size())
	h.Config = configs[len(configs)-1]
	m := f.mapAt(f.size())
	h.KTCount, h.MapRoot = m.Len(), m.Root()
	return h
}

// Seal appends the HEAD that holds here, after change has had it.
func (f *FalseLog) Seal(change func(*kt.Head)) {
	h := f.NextHead()
	if change != nil {
		change(&h)
	}
	f.Append(kt.AppendHeadLeaf(nil, h))
}

// lastMS is the time of the newest HEAD.
func (f *FalseLog) lastMS() uint64 {
	for i := len(f.leaves) - 1; i >= 0; i-- {
		if kt.Class(f.leaves[i][0]) == kt.ClassHead {
			return f.parsed(uint64(i)).Head.TimeMS
		}
	}
	return 0
}

func (f *FalseLog) parsed(index uint64) kt.Leaf { return must(kt.ParseLeaf(f.leaves[index])) }

// heads are the indexes of the HEADs below size, without those disowned.
func (f *FalseLog) heads(size uint64) []uint64 { return f.indexes(kt.ClassHead, size, f.disowned) }

func (f *FalseLog) configs(size uint64) []uint64 { return f.indexes(kt.ClassConfig, size, nil) }

func (f *FalseLog) indexes(class kt.Class, size uint64, without map[uint64]bool) (found []uint64) {
	for i, leaf := range f.leaves[:size] {
		if kt.Class(leaf[0]) == class && !without[uint64(i)] {
			found = append(found, uint64(i))
		}
	}
	return found
}

func (f *FalseLog) headsTree(size uint64) *testonly.Tree {
	t := testonly.New(rfc6962.DefaultHasher)
	for _, index := range f.heads(size) {
		t.AppendData(f.leaves[index])
	}
	return t
}

// mapAt is the map of the first size leaves, of which a label counts once.
func (f *FalseLog) mapAt(size uint64) *kt.Map {
	m := new(kt.Map)
	for _, index := range f.indexes(kt.ClassKT, size, f.unmapped) {
		leaf := f.parsed(index)
		_ = m.Insert(leaf.Label, leaf.Commitment) // a second one for a label is a lie of its own
	}
	return m
}

// Note is the checkpoint of the first size leaves, signed under the newest CONFIG.
func (f *FalseLog) Note(size uint64) []byte {
	configs := f.configs(size)
	origin := f.parsed(configs[len(configs)-1]).Config.Origin
	return must(kt.SignCheckpoint(kt.Checkpoint{Origin: origin, Size: size, Root: kt.Hash(f.tree.HashAt(size))}, f.Key))
}

func idOf(kind kt.Kind, id []byte) string { return string(kt.VRFInput(kind, id, 0)) }

func entryOf(event []byte) *pb.KeyTransparencyEntry {
	ev := new(pb.Event)
	must(0, proto.Unmarshal(event, ev))
	return ev.GetKeyTransparencyEntry()
}

func mustMarshal(m proto.Message) []byte { return must(proto.Marshal(m)) }

func must[T any](value T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("sim: %v", err))
	}
	return value
}
