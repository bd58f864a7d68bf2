package kt

import (
	"fmt"
	"strings"
	"testing"

	pb "quicprochat/proto/qpcv1"
)

// mapProof writes a map of a few labels and a proof of some, present and absent.
func (v *vectors) mapProof(t *testing.T) {
	leaves := []MapLeaf{{label(0x07), Hash{1}}, {label(0x07, 0x40), Hash{2}}, {label(0xf0), Hash{3}}}
	m := mapOf(t)
	v.section("Map of three labels, and one proof of four")
	for _, leaf := range leaves {
		if err := m.Insert(leaf.Label, leaf.Commitment); err != nil {
			t.Fatal(err)
		}
		root := m.Root()
		v.hex("L", leaf.Label[:])
		v.hex("C", leaf.Commitment[:])
		v.hex("map root", root[:])
	}
	claims := []MapClaim{
		{Label: label(0x07), Present: true, Commitment: Hash{1}}, {Label: label(0x07, 0x20)},
		{Label: label(0x80)}, {Label: label(0x20)},
	}
	proof, err := ProveMap(m, labelsOf(claims))
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyMap(m.Root(), proof, claims); err != nil {
		t.Fatal(err)
	}
	for _, c := range []MapClaim{claims[0], claims[1], claims[3], claims[2]} {
		v.hex("label", c.Label[:])
	}
	v.terminals(proof)
	v.end()
}

// lookup writes a whole answer at first contact, field by field.
func (v *vectors) lookup(t *testing.T) {
	l := newTestLog(t)
	alice := l.register("alice", 10)
	l.revoke(public(testKey(12)), pb.Authority_IDENTITY, alice.identity)
	l.head()
	q := new(State).Ask(Query{RevokedKey: public(testKey(12)), Owner: alice.key()})
	p := l.answer(q, l.size())
	if _, err := testVerifier().Verify(new(State), q, p, l.nowMS); err != nil {
		t.Fatal(err)
	}
	v.section("Lookup of a revocation at first contact (log key: Ed25519 seed 01 × 32, VRF seed: 02 and 31 zero bytes)")
	v.hex("key", q.Query.RevokedKey)
	v.hex("identity key", q.Query.Owner)
	for i, leaf := range l.leaves {
		v.hex(fmt.Sprint("leaf ", i), leaf)
	}
	v.note(p.Head.Note)
	v.hex("head_leaf", p.Head.HeadLeaf)
	v.list("head_path", p.Head.HeadPath)
	for _, c := range p.Head.Configs {
		v.number("config", c.Index)
		v.list("config path", c.Path)
	}
	shown := p.Histories[0].Versions[0]
	label := must(vrfProofLabel(shown.VrfProof))
	v.hex("vrf_proof", shown.VrfProof)
	v.hex("L", label[:])
	v.hex("commitment", shown.Commitment)
	v.number("index", shown.Index)
	v.hex("opening", shown.Opening)
	v.hex("event", shown.Event)
	v.terminals(p.Map)
	v.end()
}

func (v *vectors) list(name string, hashes [][]byte) {
	for _, h := range hashes {
		v.hex(name, h)
	}
}

func (v *vectors) terminals(p *pb.MapProof) {
	for _, end := range p.GetTerminals() {
		v.text("terminal", strings.TrimSpace(fmt.Sprintf("%v depth %d %x %x", end.GetKind(), end.GetDepth(), end.GetOtherLabel(), end.GetOtherCommitment())))
	}
	v.list("sibling", p.GetSiblings())
}

func (v *vectors) delta(t *testing.T) {
	l := newTestLog(t)
	l.opaque(1)
	l.head()
	l.entry(KindAccount, []byte("alice"), nil)
	l.head()
	v.section("Delta 0 of a log of five leaves")
	v.hex("delta", AppendDelta(nil, l.deltas()[0]))
	v.end()
}

func TestProofVectorsInDocs(t *testing.T) {
	var v vectors
	v.mapProof(t)
	v.lookup(t)
	v.delta(t)
	checkVectors(t, "../docs/formats/proofs.md", strings.TrimPrefix(v.String(), "\n"))
}

// note writes a note line by line.
func (v *vectors) note(signed []byte) {
	for line := range strings.Lines(string(signed)) {
		v.text("note", strings.TrimSuffix(line, "\n"))
	}
}

func (v *vectors) checkpoint() {
	c, logKey := testCheckpoint(), testKey(1)
	v.section("Checkpoint (log key: Ed25519 seed 01 × 32)")
	v.text("verifier key", must(VerifierKey(c.Origin, public(logKey))))
	v.hex("root", c.Root[:])
	v.hex("signed text", c.Append(nil))
	signed := must(SignCheckpoint(c, logKey))
	v.note(signed)
	v.end()
	v.section("The same, cosigned by a witness (Ed25519 seed 05 × 32) at 1700000000")
	w := must(NewWitness("witness.example.org/w1", public(testKey(5))))
	v.text("verifier key", w.String())
	v.hex("signed bytes", cosignedBytes(1700000000, c.Append(nil)))
	v.note(append(signed, must(Cosign(signed, w.Name(), testKey(5), 1700000000))...))
	v.end()
}

func TestCheckpointVectorsInDocs(t *testing.T) {
	var v vectors
	v.checkpoint()
	checkVectors(t, "../docs/formats/checkpoints.md", strings.TrimPrefix(v.String(), "\n"))
}
