package kt

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// FuzzParsers gives arbitrary bytes to one of the parsers, which the selector
// names: what is parsed is appended to the same bytes, and what is not says so with
// the parser's own error.
func FuzzParsers(f *testing.F) {
	parsers := []func(*testing.T, []byte){fuzzLeaf, fuzzDelta, fuzzNote, fuzzAddCheckpoint, fuzzTilePath, fuzzUsername}
	seeds := [][][]byte{leafSeeds(f), deltaSeeds(f), noteSeeds(f), {
		[]byte("old 1\nPlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\nnote"), []byte("old 0\n\nnote\n\n— x y\n"),
	}, {
		[]byte("tile/3/x001/x234/067.p/1"), []byte("tile/entries/012"), []byte("kt/delta/000"),
	}, usernameSeeds()}
	for selector, of := range seeds {
		for _, seed := range of {
			f.Add(uint8(selector), seed)
		}
	}
	f.Fuzz(func(t *testing.T, selector uint8, raw []byte) { parsers[int(selector)%len(parsers)](t, raw) })
}

func leafSeeds(f *testing.F) (seeds [][]byte) {
	for _, leaf := range sampleLeaves(f) {
		seeds = append(seeds, leaf, leaf[:len(leaf)-1], append(slices.Clone(leaf), 0))
	}
	return append(seeds, []byte{}, []byte{0xff})
}

func fuzzLeaf(t *testing.T, leaf []byte) {
	l, err := ParseLeaf(leaf)
	if err != nil {
		if !errors.Is(err, ErrLeaf) {
			t.Fatalf("unclassified error: %v", err)
		}
		return
	}
	if got := reappend(l); !bytes.Equal(got, leaf) {
		t.Fatalf("appended again: %x, was %x", got, leaf)
	}
}

func deltaSeeds(f *testing.F) [][]byte {
	delta := AppendDelta(nil, busyLog(f).deltas()[0])
	return [][]byte{delta, delta[:len(deltaMagic)+8]}
}

func noteSeeds(f *testing.F) [][]byte {
	good := signedNote(f)
	return [][]byte{
		good, append(bytes.Clone(good), must(Cosign(good, "w1", testKey(5), 1700000000))...),
		append(bytes.Clone(good), "— w1 AAAAAAAAAAAA\n"...), []byte("\n\n— w1 AAAAAAAAAAAA\n"),
	}
}

// fuzzNote: a note that opens is exactly what was signed, with whatever lines of
// others behind it, and what a policy counts is what the witness signed.
func fuzzNote(t *testing.T, signed []byte) {
	c, err := OpenCheckpoint(signed, "chat.example.org/1", public(testKey(1)))
	if err != nil {
		if !errors.Is(err, ErrNote) {
			t.Fatalf("unclassified error: %v", err)
		}
		return
	}
	peeked, err := peekCheckpoint(signed)
	if c != testCheckpoint() || !bytes.HasPrefix(signed, c.Append(nil)) || err != nil || peeked != c {
		t.Fatalf("opened %+v (%+v, %v), which nobody signed", c, peeked, err)
	}
	policy := must(ParsePolicy(1, []string{must(NewWitness("w1", public(testKey(5)))).String()}))
	good := signedNote(t)
	if line := must(Cosign(good, "w1", testKey(5), 1700000000)); policy.Met(signed) == nil && !bytes.Contains(signed, line) {
		t.Fatalf("a cosignature that nobody made: %q", signed)
	}
}

func fuzzAddCheckpoint(t *testing.T, body []byte) {
	a, err := ParseAddCheckpoint(body)
	if err == nil && !bytes.Equal(a.Append(nil), body) {
		t.Errorf("%q came back as %q", body, a.Append(nil))
	}
}

func fuzzTilePath(t *testing.T, path []byte) {
	p, err := ParseTilePath(string(path))
	if err != nil {
		if !reflect.DeepEqual(p, TilePath{}) {
			t.Errorf("%+v beside an error", p)
		}
		return
	}
	if p.String() != string(path) {
		t.Errorf("%q came back as %q", path, p)
	}
}

func usernameSeeds() (seeds [][]byte) {
	for _, raw := range []string{"alice", "Alice", "Ａｌｉｃｅ", "\u212aelvin", "a.b_c-d", ".a", "", "a", "al\u200bice", "a\xff", "İstanbul", "e\u0301"} {
		seeds = append(seeds, []byte(raw))
	}
	return seeds
}

// fuzzUsername: a canonical name is its own canonical form, and has none but the
// characters that one may have.
func fuzzUsername(t *testing.T, raw []byte) {
	name, err := statement.CanonicalUsername(string(raw))
	if err != nil {
		if name != "" {
			t.Fatalf("%q beside an error", name)
		}
		return
	}
	if again, err := statement.CanonicalUsername(name); err != nil || again != name {
		t.Fatalf("%q is made of %q, and again %q, %v", name, raw, again, err)
	}
	if left := bytes.Trim([]byte(name), "abcdefghijklmnopqrstuvwxyz0123456789._-"); len(left) > 0 || bytes.ContainsAny([]byte(name[:1]), "._-") {
		t.Fatalf("%q has a character outside of the set", name)
	}
}

// FuzzProofs gives arbitrary bytes to one of the verifiers, which the selector
// names; what they accept is right, by other means.
func FuzzProofs(f *testing.F) {
	v, all, _ := answeredQuestions(f)
	for i, a := range all {
		f.Add(uint8(0), []byte{byte(i)}, []byte{}, must(proto.Marshal(a.p)))
	}
	key := NewVRFPrivateKey([32]byte{7})
	honest := key.PublicKey()
	for _, alpha := range []string{"", "r", "input"} {
		proof, _ := key.Prove([]byte(alpha))
		f.Add(uint8(1), honest[:], []byte(alpha), proof[:])
		f.Add(uint8(1), honest[:], []byte(alpha+"x"), proof[:])
		f.Add(uint8(1), honest[:], []byte(alpha), proof[:79])
	}
	for _, v := range rfcVectors {
		f.Add(uint8(1), unhex(f, v.pk), unhex(f, v.alpha), unhex(f, v.pi))
	}
	f.Add(uint8(1), make([]byte, 32), []byte("zero key"), make([]byte, 80))
	f.Add(uint8(2), []byte{1}, []byte{}, []byte{})
	f.Add(uint8(2), []byte{2}, []byte{}, []byte{1, 2, 3, 0x81, 2, 4, 0, 0, 0})
	f.Add(uint8(2), []byte{3}, []byte{}, []byte{7, 31, 1, 7, 31, 2, 7, 0, 7})
	for _, sizes := range [][]byte{{1, 1}, {3, 7}, {4, 8}, {0, 200}, {64, 65}} {
		f.Add(uint8(3), sizes, []byte{}, []byte("leaves"))
	}
	f.Fuzz(func(t *testing.T, selector uint8, a, b, c []byte) {
		switch selector % 4 {
		case 0:
			if len(a) == 1 {
				fuzzVerify(t, v, all[int(a[0])%len(all)], c)
			}
		case 1:
			fuzzVRF(t, key, a, b, c)
		case 2:
			if len(a) == 1 {
				fuzzMap(t, uint64(a[0]), c)
			}
		case 3:
			if len(a) == 2 {
				fuzzTree(t, uint64(a[0]), uint64(a[1]), c)
			}
		}
	})
}

// fuzzVerify: whatever bytes a server sends, the verifier does not panic, and it
// accepts nothing but right answers.
func fuzzVerify(t *testing.T, v *Verifier, a answered, raw []byte) {
	p := new(pb.KeyProof)
	if proto.Unmarshal(raw, p) != nil {
		return
	}
	state := a.state
	answer, err := v.Verify(&state, a.q, p, a.nowMS)
	if err != nil {
		return
	}
	want := a.state
	right, err := v.Verify(&want, a.q, a.p, a.nowMS)
	if err != nil || answer.Head.Checkpoint != right.Head.Checkpoint || !bytes.Equal(must(state.Marshal()), must(want.Marshal())) {
		t.Fatalf("%s: another answer passed: %v", a.name, p)
	}
}

// fuzzVRF: whatever verifies under an honest key has the key's output, and every
// failure names its side.
func fuzzVRF(t *testing.T, key *VRFPrivateKey, public, alpha, proof []byte) {
	if len(public) != 32 {
		return
	}
	out, err := VRFPublicKey(public).Verify(alpha, proof)
	if err != nil {
		if !errors.Is(err, ErrVRFProof) && !errors.Is(err, ErrVRFKey) {
			t.Fatalf("unclassified error: %v", err)
		}
		if out != (VRFOutput{}) {
			t.Fatal("an output beside an error")
		}
		return
	}
	if honest := key.PublicKey(); !bytes.Equal(public, honest[:]) {
		return
	}
	if _, want := key.Prove(alpha); out != want {
		t.Fatalf("verified output %x, the key's is %x", out, want)
	}
}

// fuzzMap: whatever labels a map is made of, its root is the naive one, and a proof
// made from the map or from the naive list shows what is there, and no more.
func fuzzMap(t *testing.T, seed uint64, data []byte) {
	var leaves []MapLeaf
	m := new(Map)
	for ; len(data) >= 3 && len(leaves) < 16; data = data[3:] {
		leaf := MapLeaf{Commitment: Hash{data[2]}}
		leaf.Label[0], leaf.Label[data[1]%32] = data[0], data[2]
		_, known := m.Find(leaf.Label)
		if err := m.Insert(leaf.Label, leaf.Commitment); known != errors.Is(err, ErrMapDuplicate) {
			t.Fatalf("inserted a known label, or not an unknown one: %v", err)
		}
		if !known {
			leaves = append(leaves, leaf)
		}
	}
	root := naiveRoot(leaves, 0)
	if m.Root() != root {
		t.Fatalf("root %x, want %x", m.Root(), root)
	}
	random := rand.New(rand.NewPCG(seed, 0))
	claims := claimsOf(leaves, random)
	proof := proveBoth(t, m, leaves, claims)
	if err := VerifyMap(root, proof, claims); err != nil {
		t.Fatal(err)
	}
	i := random.IntN(len(claims))
	lie := slices.Clone(claims)
	if lie[i].Present = !lie[i].Present; VerifyMap(root, proof, lie) == nil {
		t.Fatalf("the opposite of claim %+v passed", claims[i])
	}
}

// fuzzTree: roots are those of two libraries, and a path or a consistency proof,
// spoiled in any way, passes with the verifier exactly if it does with
// x/mod/sumdb/tlog.
func fuzzTree(t *testing.T, m, n uint64, spoil []byte) {
	n++
	m %= n
	tree, other, ours := testonly.New(rfc6962.DefaultHasher), new(tlogTree), ranges.NewEmptyRange(0)
	leaf := func(i uint64) []byte { return AppendOpaqueLeaf(nil, Hash{byte(i), byte(len(spoil))}) }
	for i := range n {
		tree.AppendData(leaf(i))
		rangeAppend(ours, leaf(i))
		other.add(t, leaf(i))
	}
	root := must(tlog.TreeHash(int64(n), other))
	if Hash(root) != Hash(tree.Hash()) || Hash(root) != rangeRoot(ours) {
		t.Fatalf("%d leaves: roots %x, %x, %x", n, root, tree.Hash(), rangeRoot(ours))
	}
	path := spoiled(must(tree.InclusionProof(m, n)), spoil)
	err := includes(Checkpoint{Size: n, Root: Hash(root)}, m, leaf(m), path)
	theirs := tlog.CheckRecord(tlogHashes(path), int64(n), root, int64(m), tlog.RecordHash(leaf(m)))
	if (err == nil) != (theirs == nil) || len(spoil) == 0 && err != nil {
		t.Fatalf("leaf %d of %d: %v, tlog says %v", m, n, err, theirs)
	}
	if m == 0 {
		return
	}
	older := tree.HashAt(m)
	path = spoiled(must(tree.ConsistencyProof(m, n)), spoil)
	err = proof.VerifyConsistency(rfc6962.DefaultHasher, m, n, path, older, root[:])
	theirs = tlog.CheckTree(tlogHashes(path), int64(n), root, int64(m), tlog.Hash(older))
	if (err == nil) != (theirs == nil) || len(spoil) == 0 && err != nil {
		t.Fatalf("from %d to %d: %v, tlog says %v", m, n, err, theirs)
	}
}

// spoiled changes a path by operations: each takes a byte that says what and one
// that says where.
func spoiled(path [][]byte, operations []byte) [][]byte {
	path = slices.Clone(path)
	for ; len(operations) >= 2; operations = operations[2:] {
		if len(path) == 0 {
			path = append(path, bytes.Repeat(operations[1:2], 32))
			continue
		}
		at := int(operations[1]) % len(path)
		switch operations[0] % 5 {
		case 0:
			path = slices.Delete(path, at, at+1)
		case 1:
			path = slices.Insert(path, at, bytes.Repeat(operations[1:2], 32))
		case 2:
			path[0], path[at] = path[at], path[0]
		case 3:
			path[at] = bytes.Clone(path[at])
			path[at][operations[0]%32] ^= 1
		}
	}
	return path
}

func tlogHashes(path [][]byte) (hashes []tlog.Hash) {
	for _, h := range path {
		hashes = append(hashes, tlog.Hash(h))
	}
	return hashes
}

// tlogTree is a tree as x/mod/sumdb/tlog stores it.
type tlogTree struct {
	size   int64
	hashes []tlog.Hash
}

func (r *tlogTree) add(t *testing.T, leaf []byte) {
	stored, err := tlog.StoredHashes(r.size, leaf, r)
	if err != nil {
		t.Fatal(err)
	}
	r.size++
	r.hashes = append(r.hashes, stored...)
}

// ReadHashes implements tlog.HashReader.
func (r *tlogTree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, at := range indexes {
		out[i] = r.hashes[at]
	}
	return out, nil
}
