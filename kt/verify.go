package kt

import (
	"bytes"
	"errors"
	"fmt"

	pb "quicprochat/proto/qpcv1"
)

// Answer is what a query found, under a head that holds. Besides Head exactly one
// field is set, by the kind of the query; none for a query of the head alone.
type Answer struct {
	Head     *VerifiedHead
	Person   *Person
	Identity *Identity
	// Identities are in the order of Query.IdentityKeys.
	Identities []*Identity
	Revocation *RevocationStatus
	bundle     func() *Bundle
}

// Bundle is the answer with all that it takes to check it again.
func (a *Answer) Bundle() *Bundle { return a.bundle() }

// Verify checks that p answers the question asked: note, CONFIGs, HEAD and its
// connection to what was known; then for every version that the query is about
// its label, commitment and place in the map, and that there is no version after
// the last; then what the versions say and who signed it. If all of it holds, the
// new head is stored in state. nowMS is the time, Unix milliseconds.
//
// An *EvidenceError means that the server lies, and carries the bundle to keep;
// state is as before. Other errors accuse nobody: ErrStale and ErrPolicy, for
// which the head is stored, because it holds; ErrOlder and ErrIncomplete, after
// which one asks again; ErrNote, ErrLogKey, ErrFormat, ErrMalformed, ErrState and
// *NewGenerationError.
func (v *Verifier) Verify(state *State, asked *Question, p *pb.KeyProof, nowMS uint64) (*Answer, error) {
	before := *state
	answer, next, err := v.verify(state, asked, p, nowMS)
	if err != nil {
		answer = nil
	} else {
		answer.bundle = func() *Bundle { return v.bundle(before, asked, p, nowMS, nil) }
	}
	if next != nil {
		*state = *next
	}
	return answer, v.accuse(before, asked, p, nowMS, err)
}

func (v *Verifier) verify(state *State, asked *Question, p *pb.KeyProof, nowMS uint64) (*Answer, *State, error) {
	head, next, err := v.head(state, asked, p.GetHead(), nowMS)
	if err != nil {
		return nil, next, err
	}
	vrfKey, err := next.vrfKey()
	if err != nil {
		return nil, nil, err
	}
	if err := asked.Query.check(); err != nil {
		return nil, nil, err
	}
	if err := asked.Query.outgrows(head.Checkpoint); err != nil {
		return nil, next, err
	}
	h := &histories{serverName: v.ServerName, rest: p.GetHistories(), last: head.Size - 1}
	answer := &Answer{Head: head}
	switch q := asked.Query; {
	case q.Username != "":
		answer.Person, err = h.person(q.Username, q.Known)
	case q.IdentityKey != nil:
		answer.Identity, err = h.identity(q.IdentityKey, q.Known, false)
	case q.IdentityKeys != nil:
		for _, key := range q.IdentityKeys {
			var identity *Identity
			if identity, err = h.identity(key, nil, false); err != nil {
				break
			}
			answer.Identities = append(answer.Identities, identity)
		}
	case q.RevokedKey != nil:
		answer.Revocation, err = h.revocationOf(q.RevokedKey, q.Owner)
	}
	switch {
	case err != nil:
		return nil, nil, err
	case len(h.rest) > 0:
		return nil, nil, fmt.Errorf("%w: %d histories that nobody asked for", ErrMalformed, len(h.rest))
	}
	if err := h.check(vrfKey, head.Head.MapRoot, p.GetMap()); err != nil {
		return nil, nil, err
	}
	answer.seenAt(head.Size)
	return answer, next, nil
}

// outgrows is whether what is known came from a later head than the one shown.
func (q *Query) outgrows(shown Checkpoint) error {
	switch {
	case q.Known == nil || q.Known.Size <= shown.Size:
		return nil
	case q.Cosigned:
		return fmt.Errorf("%w: the newest head that enough witnesses have signed has %d leaves, and what is known comes from %d: ask again in a while", ErrPolicy, shown.Size, q.Known.Size)
	}
	return fmt.Errorf("%w: %d leaves, and what is known comes from %d", ErrOlder, shown.Size, q.Known.Size)
}

// seenAt notes in which log each identity was shown.
func (a *Answer) seenAt(size uint64) {
	identities := append([]*Identity{a.Identity}, a.Identities...)
	if a.Person != nil {
		identities = append(identities, a.Person.Identity)
	}
	for _, i := range identities {
		if i != nil {
			i.size = size
		}
	}
}

// vrfKey is that of the CONFIG at index 0.
func (s *State) vrfKey() (VRFPublicKey, error) {
	leaf, err := ParseLeaf(s.Configs[0].Leaf)
	return leaf.Config.VRFKey, err
}

// accuse adds the bundle to evidence.
func (v *Verifier) accuse(before State, asked *Question, p *pb.KeyProof, nowMS uint64, err error) error {
	var e *EvidenceError
	if errors.As(err, &e) {
		e.bundle = func() *Bundle { return v.bundle(before, asked, p, nowMS, e) }
	}
	return err
}

// histories reads the histories of a proof in the order in which the query wants
// them, and collects what remains to be checked about them.
type histories struct {
	serverName string
	rest       []*pb.HistoryProof
	// last is the index of the HEAD: everything else stands below it.
	last   uint64
	labels []labelClaim
	// statements are checks of signatures, which come last: they cost most and mean
	// nothing before the map holds.
	statements []func() error
}

// labelClaim is one version of one id and what the map must show about it.
type labelClaim struct {
	kind    Kind
	id      []byte
	version uint32
	proof   []byte
	MapClaim
}

// version is one version of a history: opened if value is not nil.
type version struct {
	number uint32
	opened bool
	value  []byte
}

// next takes the history of one id, which starts at a version that the caller
// knows or at 0, and checks all but labels and map.
func (h *histories) next(kind Kind, id []byte, from uint32) ([]version, error) {
	if len(h.rest) == 0 {
		return nil, fmt.Errorf("%w: it lacks the history of %v %x", ErrMalformed, kind, id)
	}
	p := h.rest[0]
	h.rest = h.rest[1:]
	if p.GetKind() != uint32(kind) || !bytes.Equal(p.GetId(), id) {
		return nil, fmt.Errorf("%w: a history of kind %d, %x, where %v %x belongs", ErrMalformed, p.GetKind(), p.GetId(), kind, id)
	}
	first, n := p.GetFromVersion(), len(p.GetVersions())
	switch {
	case uint64(first)+uint64(n) > 1<<32-1, first > 0 && n == 0, kind == KindRevocation && (first > 0 || n > 1):
		return nil, fmt.Errorf("%w: %d versions of %v from %d on", ErrMalformed, n, kind, first)
	case first > from:
		return nil, fmt.Errorf("%w: of %v %x, which starts at %d", ErrIncomplete, kind, id, first)
	}
	versions := make([]version, n)
	before := uint64(0)
	for i, shown := range p.GetVersions() {
		number := first + uint32(i)
		opened, err := h.open(kind, id, number, shown)
		if err != nil {
			return nil, err
		}
		if i == n-1 && !opened.opened {
			return nil, evidence(StepOpening, "version %d of %v %x is the newest and not opened", number, kind, id)
		}
		if shown.GetIndex() <= before || shown.GetIndex() >= h.last {
			return nil, fmt.Errorf("%w: version %d of %v %x at index %d", ErrMalformed, number, kind, id, shown.GetIndex())
		}
		before, versions[i] = shown.GetIndex(), opened
	}
	if kind == KindRevocation && n == 1 {
		if len(p.GetAbsentVrfProof()) > 0 {
			return nil, fmt.Errorf("%w: a revocation with a next version", ErrMalformed)
		}
		return versions, nil
	}
	absent := labelClaim{kind: kind, id: id, version: first + uint32(n), proof: p.GetAbsentVrfProof()}
	return versions, h.claim(absent)
}

// open checks one version's commitment and event.
func (h *histories) open(kind Kind, id []byte, number uint32, p *pb.VersionProof) (version, error) {
	if len(p.GetCommitment()) != len(Hash{}) {
		return version{}, fmt.Errorf("%w: a commitment of %d bytes", ErrMalformed, len(p.GetCommitment()))
	}
	c := labelClaim{kind: kind, id: id, version: number, proof: p.GetVrfProof()}
	c.Present, c.Commitment = true, Hash(p.GetCommitment())
	v := version{number: number}
	if len(p.GetOpening()) == 0 && len(p.GetEvent()) == 0 {
		return v, h.claim(c)
	}
	if len(p.GetOpening()) != len(Opening{}) {
		return version{}, fmt.Errorf("%w: an opening of %d bytes", ErrMalformed, len(p.GetOpening()))
	}
	if Commit(Opening(p.GetOpening()), VRFInput(kind, id, number), p.GetEvent()) != c.Commitment {
		return version{}, evidence(StepCommitment, "version %d of %v %x is not what its commitment says", number, kind, id)
	}
	value, err := entryValue(kind, id, number, p.GetEvent())
	if err != nil {
		return version{}, err
	}
	v.opened, v.value = true, value
	return v, h.claim(c)
}

// claim notes a label. Which label it is the proof itself says; that it is the
// right one is checked when the map holds.
func (h *histories) claim(c labelClaim) error {
	label, err := vrfProofLabel(c.proof)
	if err != nil {
		return evidence(StepVRF, "version %d of %v %x: %w", c.version, c.kind, c.id, err)
	}
	c.Label = label
	h.labels = append(h.labels, c)
	return nil
}

// check checks the map, all labels and then all statements.
func (h *histories) check(key VRFPublicKey, root Hash, p *pb.MapProof) error {
	if len(h.labels) == 0 {
		if p != nil {
			return fmt.Errorf("%w: a map proof of no label", ErrMalformed)
		}
		return nil
	}
	claims := make([]MapClaim, len(h.labels))
	for i, c := range h.labels {
		claims[i] = c.MapClaim
	}
	inMap := VerifyMap(root, p, claims)
	// A wrong label is usually not in the map either: name the cause.
	for _, c := range h.labels {
		if _, err := key.VerifyLabel(c.kind, c.id, c.version, c.proof); err != nil {
			return evidence(StepVRF, "version %d of %v %x: %w", c.version, c.kind, c.id, err)
		}
	}
	if inMap != nil {
		return evidence(StepMap, "%d labels under the map root: %w", len(claims), inMap)
	}
	for _, check := range h.statements {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}
