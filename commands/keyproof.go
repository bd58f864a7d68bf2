package commands

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// Proofs answers one request with one proof, under one checkpoint: histories are
// added in the order that the verifier expects, then Proof puts the multiproof of
// their labels under them. For one goroutine.
type Proofs struct {
	engine     *Engine
	checkpoint *Checkpoint
	request    *pb.ProofRequest
	histories  []*pb.HistoryProof
	labels     []kt.Label
}

// ProofView is a view of the state that the request's proof is made under, for a
// caller who was checked already. Release it. Refusals are those of CheckpointFor
// and HeadProof.
func (e *Engine) ProofView(ctx context.Context, caller Caller, req *pb.ProofRequest) (*View, error) {
	if len(req.GetKnownNote()) > 0 { // before waiting: it may end all signing
		if _, err := e.signer.known(req.GetKnownNote()); err != nil {
			return nil, err
		}
	}
	c, err := e.CheckpointFor(ctx, req)
	if err != nil {
		return nil, err
	}
	return &View{
		Reader: c.Views, Caller: caller, Now: e.clock.nowMS(), Payload: e.payload,
		Proofs: &Proofs{engine: e, checkpoint: c, request: req}, shared: c.state,
	}, nil
}

// ProveOwn gives the proof of what a mutation left behind, for its reply: add
// says what belongs to it. Nil when no checkpoint was signed in time, or none is
// signed any more: the change is made nevertheless. Errors are internal.
func (e *Engine) ProveOwn(ctx context.Context, req *pb.ProofRequest, add func(*Proofs) error) (*pb.KeyProof, error) {
	if req == nil {
		return nil, nil
	}
	v, err := e.ProofView(ctx, Caller{}, req)
	if err == nil {
		defer v.Release()
		if err = add(v.Proofs); err == nil {
			var proof *pb.KeyProof
			if proof, err = v.Proofs.Proof(); err == nil {
				return proof, nil
			}
		}
	}
	if AsRefusal(err) != nil {
		return nil, nil
	}
	return nil, err
}

// Proof is the proof of everything added.
func (p *Proofs) Proof() (*pb.KeyProof, error) {
	head, err := p.engine.HeadProof(p.checkpoint, p.request)
	if err != nil {
		return nil, err
	}
	proof := &pb.KeyProof{Head: head, Histories: p.histories}
	if len(p.labels) > 0 {
		if proof.Map, err = kt.ProveMap(p.checkpoint.Map, p.labels); err != nil {
			return nil, err
		}
	}
	return proof, nil
}

// Person adds what a lookup of a username shows: its bindings and, unless nobody
// has the name, the identity of the newest one.
func (p *Proofs) Person(username string) error {
	newest, err := p.history(kt.KindAccount, []byte(username), p.request.GetFromAccountVersion())
	if err != nil || newest == nil {
		return err
	}
	binding := new(pb.AccountBinding)
	if err := proto.Unmarshal(newest.GetValue(), binding); err != nil {
		return fmt.Errorf("commands: the binding of an account: %w", err)
	}
	if binding.GetTombstone() {
		return nil
	}
	return p.Identity(binding.GetIdentityKey())
}

// Identity adds an identity's KeySets and, for the identity key and each device
// key of the newest one, its revocation or that there is none.
func (p *Proofs) Identity(key []byte) error {
	newest, err := p.history(kt.KindIdentity, key, p.request.GetFromIdentityVersion())
	if err != nil {
		return err
	}
	keySet := new(pb.KeySet) // without devices: nobody's key, or a deleted identity
	if err := proto.Unmarshal(newest.GetValue(), keySet); err != nil {
		return fmt.Errorf("commands: the KeySet of an identity: %w", err)
	}
	if err := p.Revocation(key); err != nil {
		return err
	}
	for _, device := range keySet.GetDeviceKeys() {
		if bytes.Equal(device, key) {
			continue
		}
		if err := p.Revocation(device); err != nil {
			return err
		}
	}
	return nil
}

// Revocation adds a key's revocation, or that there is none.
func (p *Proofs) Revocation(key []byte) error {
	views := p.checkpoint.Views
	where, found := projections.RevocationProof{}, false
	if len(key) == KeySize {
		var err error
		if where, found, err = projections.RevocationLabel(views, [KeySize]byte(key)); err != nil {
			return err
		}
	}
	if !found {
		where.Label, where.VRF = p.engine.absent.label(p.engine.vrf, kt.KindRevocation, key)
	}
	h := &pb.HistoryProof{Kind: uint32(kt.KindRevocation), Id: key}
	if entry, found, err := projections.KTEntry(views, kt.KindRevocation, key, 0); err != nil {
		return err
	} else if found {
		h.Versions = []*pb.VersionProof{versionProof(&entry)}
		where.Label = entry.Label
	} else {
		h.AbsentVrfProof = where.VRF[:]
	}
	p.add(h, where.Label)
	return nil
}

func (p *Proofs) add(h *pb.HistoryProof, labels ...kt.Label) {
	p.histories = append(p.histories, h)
	p.labels = append(p.labels, labels...)
}

// history adds the versions of an identifier from a version on and the absence of
// the next one; it returns the newest version's entry, nil without one.
func (p *Proofs) history(kind kt.Kind, id []byte, from uint32) (*pb.KeyTransparencyEntry, error) {
	views := p.checkpoint.Views
	h := &pb.HistoryProof{Kind: uint32(kind), Id: id}
	newest, found, err := projections.KTNewest(views, kind, id)
	if err != nil {
		return nil, err
	}
	if !found {
		label, vrf := p.engine.absent.label(p.engine.vrf, kind, id)
		h.AbsentVrfProof = vrf[:]
		p.add(h, label)
		return nil, nil
	}
	h.FromVersion = min(from, newest)
	next, _, err := projections.KTAbsent(views, kind, id)
	if err != nil {
		return nil, err
	}
	labels := []kt.Label{next}
	for version := h.FromVersion; ; version++ {
		entry, found, err := projections.KTEntry(views, kind, id, version)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, fmt.Errorf("commands: version %d of %v is missing", version, kind)
		}
		h.Versions = append(h.Versions, versionProof(&entry)) // shares its arrays
		labels = append(labels, entry.Label)
		if version == newest {
			h.AbsentVrfProof = entry.Entry.GetNextVrfProof()
			p.add(h, labels...)
			return entry.Entry, nil
		}
	}
}

func versionProof(v *projections.KTVersion) *pb.VersionProof {
	return &pb.VersionProof{
		VrfProof: v.Entry.GetVrfProof(), Commitment: v.Commitment[:], Index: v.Index, Opening: v.Opening[:], Event: v.Raw,
	}
}

// absentLabels keeps the labels of version 0 that were asked for and that no
// event holds: of names and keys that nobody registered. A VRF evaluation costs
// more than the rest of a lookup.
type absentLabels struct {
	mu     sync.Mutex
	labels map[string]absentLabel
}

type absentLabel struct {
	label kt.Label
	proof kt.VRFProof
}

// maxAbsentLabels bounds the labels kept. One takes about 250 bytes.
const maxAbsentLabels = 8192

func (a *absentLabels) label(vrf *kt.VRFPrivateKey, kind kt.Kind, id []byte) (kt.Label, kt.VRFProof) {
	input := string(kt.VRFInput(kind, id, 0))
	a.mu.Lock()
	found, ok := a.labels[input]
	a.mu.Unlock()
	if ok {
		return found.label, found.proof
	}
	found.label, found.proof = vrf.Label(kind, id, 0)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.labels == nil || len(a.labels) >= maxAbsentLabels {
		a.labels = make(map[string]absentLabel)
	}
	a.labels[input] = found
	return found.label, found.proof
}
