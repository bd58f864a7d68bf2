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
		if proof.Map, err = p.checkpoint.finished.mapProof(p.checkpoint.Map, p.labels); err != nil {
			return nil, err
		}
	}
	return proof, nil
}

// Person adds what a lookup of a username shows: its bindings and, unless nobody
// has the name, the identity of the newest one.
func (p *Proofs) Person(username string) error {
	h, err := p.history(kt.KindAccount, []byte(username), p.request.GetFromAccountVersion())
	if err != nil || h.binding == nil || h.binding.GetTombstone() {
		return err
	}
	return p.Identity(h.binding.GetIdentityKey())
}

// Identity adds an identity's KeySets and, for the identity key and each device
// key of the newest one, its revocation or that there is none.
func (p *Proofs) Identity(key []byte) error {
	h, err := p.history(kt.KindIdentity, key, p.request.GetFromIdentityVersion())
	if err != nil {
		return err
	}
	if err := p.Revocation(key); err != nil {
		return err
	}
	for _, device := range h.keySet.GetDeviceKeys() { // none: nobody's key, or a deleted identity
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
	_, err := p.history(kt.KindRevocation, key, 0)
	return err
}

// history adds the versions of an identifier from a version on and the absence of
// the next one.
func (p *Proofs) history(kind kt.Kind, id []byte, from uint32) (*history, error) {
	key := historyKey{kind, string(id), from}
	h := p.checkpoint.finished.history(key)
	if h == nil {
		var err error
		if kind == kt.KindRevocation {
			h, err = p.proveRevocation(id)
		} else {
			h, err = p.proveHistory(kind, id, from)
		}
		if err != nil {
			return nil, err
		}
		p.checkpoint.finished.keep(key, h)
	}
	p.histories = append(p.histories, h.proof)
	p.labels = append(p.labels, h.labels...)
	return h, nil
}

func (p *Proofs) proveRevocation(key []byte) (*history, error) {
	views := p.checkpoint.Views
	where, found := projections.RevocationProof{}, false
	if len(key) == KeySize {
		var err error
		if where, found, err = projections.RevocationLabel(views, [KeySize]byte(key)); err != nil {
			return nil, err
		}
	}
	if !found {
		where.Label, where.VRF = p.engine.absent.label(p.engine.vrf, kt.KindRevocation, key)
	}
	h := &history{proof: &pb.HistoryProof{Kind: uint32(kt.KindRevocation), Id: key}}
	if entry, found, err := projections.KTEntry(views, kt.KindRevocation, key, 0); err != nil {
		return nil, err
	} else if found {
		h.proof.Versions = []*pb.VersionProof{versionProof(&entry)}
		where.Label = entry.Label
	} else {
		h.proof.AbsentVrfProof = where.VRF[:]
	}
	h.labels = []kt.Label{where.Label}
	return h, nil
}

func (p *Proofs) proveHistory(kind kt.Kind, id []byte, from uint32) (*history, error) {
	views := p.checkpoint.Views
	h := &history{proof: &pb.HistoryProof{Kind: uint32(kind), Id: id}}
	newest, next, found, err := projections.KTAbsent(views, kind, id)
	if err != nil {
		return nil, err
	}
	if !found {
		label, vrf := p.engine.absent.label(p.engine.vrf, kind, id)
		h.proof.AbsentVrfProof, h.labels = vrf[:], []kt.Label{label}
		return h, nil
	}
	h.proof.FromVersion = min(from, newest)
	h.labels = []kt.Label{next}
	for version := h.proof.FromVersion; ; version++ {
		entry, found, err := projections.KTEntry(views, kind, id, version)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, fmt.Errorf("commands: version %d of %v is missing", version, kind)
		}
		h.proof.Versions = append(h.proof.Versions, versionProof(&entry)) // shares its arrays
		h.labels = append(h.labels, entry.Label)
		if version == newest {
			h.proof.AbsentVrfProof = entry.Entry.GetNextVrfProof()
			return h, h.decode(kind, entry.Entry.GetValue())
		}
	}
}

// decode reads the newest value of a history.
func (h *history) decode(kind kt.Kind, value []byte) error {
	switch kind {
	case kt.KindAccount:
		h.binding = new(pb.AccountBinding)
		if err := proto.Unmarshal(value, h.binding); err != nil {
			return fmt.Errorf("commands: the binding of an account: %w", err)
		}
	case kt.KindIdentity:
		h.keySet = new(pb.KeySet)
		if err := proto.Unmarshal(value, h.keySet); err != nil {
			return fmt.Errorf("commands: the KeySet of an identity: %w", err)
		}
	}
	return nil
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
