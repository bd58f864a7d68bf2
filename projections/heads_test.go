package projections

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// head is the event that the views expect next, after change.
func (w *world) head(change func(*kt.Head)) *pb.HeadSealed {
	w.t.Helper()
	h, err := NextHead(w.reader(), w.now)
	if err != nil {
		w.t.Fatalf("next head: %v", err)
	}
	if change != nil {
		change(&h)
	}
	return &pb.HeadSealed{Head: kt.AppendHeadLeaf(nil, h)[1:]}
}

// seal applies the next head and returns it.
func (w *world) seal() (kt.Head, *Entry) {
	w.t.Helper()
	e := w.do(w.head(nil))
	leaf, err := kt.ParseLeaf(e.Leaf)
	if err != nil {
		w.t.Fatalf("head: %v", err)
	}
	return leaf.Head, e
}

func TestHeadsSumUp(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	first, at := w.seal()
	want := kt.Head{TimeMS: w.now, HeadsRoot: kt.EmptyHeadsRoot}
	if first != want {
		t.Errorf("first head: %+v", first)
	}
	w.register("alice", "bob")
	w.now += 5
	second, _ := w.seal()
	var leaves []kt.MapLeaf
	for _, e := range w.entries {
		if leaf, err := kt.ParseLeaf(e.Leaf); err == nil && leaf.Class == kt.ClassKT {
			leaves = append(leaves, kt.MapLeaf{Label: leaf.Label, Commitment: leaf.Commitment})
		}
	}
	want = kt.Head{
		Epoch: 1, TimeMS: w.now, PrevHead: at.Index, KTCount: 4,
		MapRoot: newNaiveMap(leaves).node("").Hash(), HeadsRoot: kt.LeafHash(at.Leaf),
	}
	if second != want {
		t.Errorf("second head: %+v\nwant %+v", second, want)
	}
	if index, found, err := HeadIndex(w.reader(), 0); index != at.Index || !found || err != nil {
		t.Errorf("epoch 0 at %d, %v, %v", index, found, err)
	}
	if _, found, err := HeadIndex(w.reader(), 2); found || err != nil {
		t.Errorf("epoch 2: %v, %v", found, err)
	}
	var order []kt.Label
	if err := KTOrder(w.reader(), 0, 4, func(_ uint64, label kt.Label) error { order = append(order, label); return nil }); err != nil {
		t.Fatal(err)
	}
	for i, label := range order {
		if label != leaves[i].Label {
			t.Errorf("KT leaf %d is out of order", i)
		}
	}
	if err := KTOrder(w.reader(), 3, 5, func(uint64, kt.Label) error { return nil }); err == nil {
		t.Error("there are five KT leaves of four")
	}
}

func TestStrictHeads(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.refuse(&pb.HeadSealed{}, "malformed leaf")
	other := w.entry(w.head(nil), nil)
	other.Leaf = kt.AppendHeadLeaf(nil, kt.Head{TimeMS: w.now + 1, HeadsRoot: kt.EmptyHeadsRoot})
	w.refuseEntry(other, "the leaf is not the head's")
	w.seal()
	w.register("alice")
	w.seal()
	for field, change := range map[string]func(*kt.Head){
		"epoch":      func(h *kt.Head) { h.Epoch-- },
		"time_ms":    func(h *kt.Head) { h.TimeMS++ },
		"prev_head":  func(h *kt.Head) { h.PrevHead++ },
		"config":     func(h *kt.Head) { h.Config = 1 },
		"kt_count":   func(h *kt.Head) { h.KTCount++ },
		"map_root":   func(h *kt.Head) { h.MapRoot[31] ^= 1 },
		"heads_root": func(h *kt.Head) { h.HeadsRoot[0] ^= 1 },
	} {
		w.refuse(w.head(change), field+" of the head differs")
	}
	w.refuse(&pb.HeadSealed{Head: make([]byte, 103)}, "leaf: malformed leaf")
	w.seal()
}

// TestHeadsTree proves every head in every later tree, and each tree from each
// earlier one, and checks that with the library's verifier alone.
func TestHeadsTree(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	const n = 37
	roots, leaves := make([]kt.Hash, n+1), make([]kt.Hash, n)
	roots[0] = kt.EmptyHeadsRoot
	for i := range n {
		h, e := w.seal()
		if h.HeadsRoot != roots[i] {
			t.Fatalf("head %d has another heads_root", i)
		}
		leaves[i] = kt.LeafHash(e.Leaf)
		var err error
		if roots[i+1], err = HeadsRoot(w.reader(), uint64(i+1)); err != nil {
			t.Fatal(err)
		}
		if want := naiveTree(leaves[:i+1]); roots[i+1] != want {
			t.Fatalf("root of %d heads: %x, want %x", i+1, roots[i+1], want)
		}
	}
	for size := uint64(1); size <= n; size++ {
		for epoch := range size {
			path, err := HeadInclusion(w.reader(), epoch, size)
			if err == nil {
				err = proof.VerifyInclusion(rfc6962.DefaultHasher, epoch, size, leaves[epoch][:], path, roots[size][:])
			}
			if err != nil {
				t.Fatalf("head %d of %d: %v", epoch, size, err)
			}
			path, err = HeadsConsistency(w.reader(), epoch, size)
			if err == nil {
				err = proof.VerifyConsistency(rfc6962.DefaultHasher, epoch, size, path, roots[epoch][:], roots[size][:])
			}
			if err != nil {
				t.Fatalf("%d heads to %d: %v", epoch, size, err)
			}
		}
	}
	if _, err := HeadInclusion(w.reader(), n, n); err == nil {
		t.Error("a head that is not there was proved")
	}
}

// naiveTree is the root of RFC 6962 section 2.1, as it is written there.
func naiveTree(leaves []kt.Hash) kt.Hash {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	left, right := naiveTree(leaves[:k]), naiveTree(leaves[k:])
	return kt.Hash(rfc6962.DefaultHasher.HashChildren(left[:], right[:]))
}

func TestLaterConfigurations(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.seal()
	next := func(previous uint64, signer int, change func(*kt.Config)) *pb.ServerConfigured {
		body, _, err := ServerConfig(w.reader())
		if err != nil {
			t.Fatal(err)
		}
		c, err := kt.ParseConfig(body)
		if err != nil {
			t.Fatal(err)
		}
		c.LogKey = logKeyOf(2).Public().(ed25519.PublicKey)
		if change != nil {
			change(&c)
		}
		c.Link(previous, logKeyOf(signer))
		return &pb.ServerConfigured{Config: kt.AppendConfig(nil, c)}
	}
	w.refuse(&pb.ServerConfigured{Config: testConfig()}, "does not name index 0")
	w.refuse(next(1, 1, nil), "does not name index 0")
	w.refuse(next(0, 2, nil), "not signed by the log key before it")
	w.refuse(next(0, 1, func(c *kt.Config) { c.VRFKey = kt.NewVRFPrivateKey([32]byte{9}).PublicKey() }), "changes the VRF key")
	w.refuse(next(0, 1, func(c *kt.Config) { c.FormatVersion = 0 }), "format 0")
	w.do(next(0, 1, nil))
	w.do(next(2, 2, func(c *kt.Config) { c.Origin = kt.Origin("localhost", 2) }))
	w.refuse(next(3, 2, func(c *kt.Config) { c.Origin = kt.Origin("localhost", 1) }), "changes the origin")
	if h, _ := w.seal(); h.Config != 3 {
		t.Errorf("head with config %d, want 3", h.Config)
	}
	refs, err := ConfigsFrom(w.reader(), 0)
	if err != nil || fmt.Sprint(indexesOf(refs)) != "[0 2 3]" {
		t.Errorf("configurations: %v, %v", indexesOf(refs), err)
	}
	if refs, err := ConfigsFrom(w.reader(), 3); err != nil || fmt.Sprint(indexesOf(refs)) != "[3]" {
		t.Errorf("configurations from 3: %v, %v", indexesOf(refs), err)
	}
}

func indexesOf(refs []ConfigRef) (indexes []uint64) {
	for _, ref := range refs {
		indexes = append(indexes, ref.Index)
	}
	return indexes
}

func TestFormatZeroIsRefused(t *testing.T) {
	w := emptyWorld(t)
	defer w.close()
	c, err := kt.ParseConfig(testConfig())
	if err != nil {
		t.Fatal(err)
	}
	c.FormatVersion = 0
	w.refuse(&pb.ServerConfigured{Config: kt.AppendConfig(nil, c)}, "format 0")
	c.FormatVersion = kt.FormatVersion
	c.Link(0, logKeyOf(1))
	w.refuse(&pb.ServerConfigured{Config: kt.AppendConfig(nil, c)}, "names one before it")
}

func TestRevocationLabels(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	identity, device := identityKey("alice"), deviceKey("alice")
	with := func(key Key, proof []byte) *pb.AccountRegistered {
		ev := registered("alice")
		ev.RevocationLabels = []*pb.RevocationLabel{
			{Key: identity[:], VrfProof: vrfProofOf(kt.KindRevocation, identity[:], 0)}, {Key: key[:], VrfProof: proof},
		}
		return ev
	}
	good := vrfProofOf(kt.KindRevocation, device[:], 0)
	w.refuse(with(keyOfName("other"), good), "of another key")
	w.refuse(with(device, good[1:]), "VRF proof of 79 bytes")
	w.refuse(with(device, bytes.Repeat([]byte{0xff}, 80)), "VRF proof of a revocation")
	w.do(with(device, good))
	got, found, err := RevocationLabel(w.reader(), device)
	if want, _ := kt.VRFProof(good).Label(); err != nil || !found || got.Label != want || string(got.VRF[:]) != string(good) {
		t.Errorf("label of the device: %v, %v, %v", got, found, err)
	}
	if _, found, err := RevocationLabel(w.reader(), keyOfName("nobody")); found || err != nil {
		t.Errorf("label of nobody's key: %v, %v", found, err)
	}
}

func TestDamagedMapIsNoticed(t *testing.T) {
	w := newWorld(t)
	w.register("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan")
	w.commit()
	b := w.views.NewBatch()
	err := scanView(b, keyOf(nil, prefixMapPage), func(key, _ []byte) (bool, error) {
		if key[1] == 1 {
			return true, b.remove(append([]byte(nil), key...))
		}
		return true, nil
	})
	if err == nil {
		err = b.Commit()
	}
	if err != nil {
		t.Fatal(err)
	}
	snap := w.views.Snapshot()
	view := NewMapView(snap)
	var damage *RebuildError
	for _, e := range w.entries {
		if leaf, err := kt.ParseLeaf(e.Leaf); err == nil && leaf.Class == kt.ClassKT {
			if _, err := view.MapNode(leaf.Label, 256); err != nil && !errors.As(err, &damage) {
				t.Errorf("a missing page: %v", err)
			}
		}
	}
	if damage == nil {
		t.Error("no missing page was noticed")
	}
	snap.Close()
	w.close()
}
