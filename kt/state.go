package kt

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	pb "quicprochat/proto/qpcv1"
)

// ErrState is in the chain of errors about a state that is no state of a verifier.
var ErrState = errors.New("damaged transparency state")

// State is what a verifier remembers of one log: the newest signed note and the
// newest that met its witness policy, each with its HEAD, and the chain of CONFIGs.
// It is everything that a third person needs to check it again. The zero value
// knows nothing: first contact. It is not safe for concurrent use; its values are
// replaced, never changed, so a copy is a snapshot.
type State struct {
	Newest   *KnownHead `json:"newest,omitempty"`
	Cosigned *KnownHead `json:"cosigned,omitempty"`
	// Configs are all CONFIGs from index 0 to the newest.
	Configs []KnownConfig `json:"configs,omitempty"`
	// Consented is the generation that the person agreed to go on with after the
	// log was begun anew; 0 if that never happened.
	Consented uint32 `json:"consented,omitempty"`
}

// KnownHead is a note with the HEAD it stands at, and that HEAD's path in its tree.
type KnownHead struct {
	Note     []byte   `json:"note"`
	HeadLeaf []byte   `json:"head_leaf"`
	HeadPath [][]byte `json:"head_path"`
}

// KnownConfig is a CONFIG leaf, with its path in the tree of the note under which
// it was verified.
type KnownConfig struct {
	Index uint64   `json:"index"`
	Leaf  []byte   `json:"leaf"`
	Note  []byte   `json:"note"`
	Path  [][]byte `json:"path"`
}

// Marshal is the state as a file: JSON, byte strings in base64.
func (s *State) Marshal() ([]byte, error) { return json.MarshalIndent(s, "", "  ") }

// ParseState reads what Marshal made. Errors wrap ErrState.
func ParseState(b []byte) (*State, error) {
	s := new(State)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	if _, err := s.read(); err != nil {
		return nil, err
	}
	return s, nil
}

// Consent begins anew with a log whose operator went on after a loss, as shown by
// a *NewGenerationError. It is the person's decision, never a program's. Server
// name and VRF key stay those of the CONFIG at index 0.
func (s *State) Consent(generation uint32) {
	s.Newest, s.Cosigned, s.Consented = nil, nil, generation
	s.Configs = slices.Clone(s.Configs[:min(1, len(s.Configs))])
}

// Generation is the N of the log's origin as it is known; 0 at first contact.
// Errors wrap ErrState.
func (s *State) Generation() (uint32, error) {
	k, err := s.read()
	if err != nil || k.newest == nil {
		return s.Consented, err
	}
	_, generation, err := ParseOrigin(k.newest.Origin)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrState, err)
	}
	return generation, nil
}

// Query says what is looked up: the person behind Username, the identity
// IdentityKey, several IdentityKeys at once, the revocation of RevokedKey, or with
// none of them the newest head.
type Query struct {
	Username     string   `json:"username,omitempty"`
	IdentityKey  []byte   `json:"identity_key,omitempty"`
	IdentityKeys [][]byte `json:"identity_keys,omitempty"`
	RevokedKey   []byte   `json:"revoked_key,omitempty"`
	// Owner is, with RevokedKey, the identity key that the key belongs to, if it is
	// known: without it a revocation by the identity can't be checked.
	Owner []byte `json:"owner,omitempty"`
	// Cosigned asks for the newest note that meets the witness policy.
	Cosigned bool `json:"cosigned,omitempty"`
	// Known is what an earlier answer about the same person or identity showed; nil
	// to see all versions from 0 on. Not with IdentityKeys.
	Known *KnownPerson `json:"known,omitempty"`
}

// check keeps ids that no label can be made of away from the proof.
func (q Query) check() error {
	for _, key := range append([][]byte{q.IdentityKey, q.RevokedKey, q.Owner}, q.IdentityKeys...) {
		if key != nil && len(key) != 32 {
			return fmt.Errorf("%w: a query for a key of %d bytes", ErrMalformed, len(key))
		}
	}
	if len(q.Username) > 255 {
		return fmt.Errorf("%w: a query for a name of %d bytes", ErrMalformed, len(q.Username))
	}
	return nil
}

// KnownPerson is what to remember of an answer, so that the next one need not
// show it again.
type KnownPerson struct {
	// AccountVersion is the newest binding's; only for a Username.
	AccountVersion uint32 `json:"account_version"`
	IdentityKey    []byte `json:"identity_key"`
	// KeySet is the newest one, as it stands in the log.
	KeySet []byte `json:"key_set"`
	// Size is that of the log that showed it: an answer under an older head, which
	// witnesses have got to, knows less and lies in nothing. 0 if it is not known.
	Size uint64 `json:"size,omitempty"`
}

// Question is a query with the state in which it was asked. An answer is checked
// against that one: others may have come meanwhile.
type Question struct {
	State State `json:"state"`
	Query Query `json:"query"`
}

// Ask makes a question of a query.
func (s *State) Ask(q Query) *Question { return &Question{State: *s, Query: q} }

// Request is what a request must carry for its reply to answer the question.
func (q *Question) Request() (*pb.ProofRequest, error) {
	r := &pb.ProofRequest{Cosigned: q.Query.Cosigned}
	known, err := q.State.read()
	if err != nil {
		return nil, err
	}
	if known.newest != nil {
		r.KnownNote = q.State.Newest.Note
		r.KnownConfig = known.configs[len(known.configs)-1].index
	}
	if q.Query.Known != nil {
		r.FromAccountVersion = q.Query.Known.AccountVersion
		keySet, err := q.Query.Known.keySet()
		if err != nil {
			return nil, err
		}
		r.FromIdentityVersion = keySet.GetVersion()
	}
	return r, nil
}

// knownState is a State, parsed.
type knownState struct {
	newest, cosigned *shownHead
	configs          []chainConfig
}

// shownHead is a checkpoint with the HEAD that is its last leaf.
type shownHead struct {
	Checkpoint
	head Head
	leaf []byte
}

type chainConfig struct {
	index uint64
	Config
	known KnownConfig
}

// read parses a state. It trusts that what it says was verified once.
func (s *State) read() (*knownState, error) {
	k := new(knownState)
	var err error
	if k.newest, err = s.Newest.read(); err != nil {
		return nil, err
	}
	if k.cosigned, err = s.Cosigned.read(); err != nil {
		return nil, err
	}
	for i, c := range s.Configs {
		leaf, err := ParseLeaf(c.Leaf)
		if err != nil || leaf.Class != ClassConfig || (i == 0) != (c.Index == 0) {
			return nil, fmt.Errorf("%w: no CONFIG at index %d: %v", ErrState, c.Index, err)
		}
		k.configs = append(k.configs, chainConfig{c.Index, leaf.Config, c})
	}
	if (k.newest != nil || k.cosigned != nil) && (k.newest == nil || len(k.configs) == 0) {
		return nil, fmt.Errorf("%w: it has a head and no CONFIG, or only a cosigned one", ErrState)
	}
	return k, nil
}

func (h *KnownHead) read() (*shownHead, error) {
	if h == nil {
		return nil, nil
	}
	c, err := peekCheckpoint(h.Note)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	if c.Size < 2 {
		return nil, fmt.Errorf("%w: a HEAD of %d leaves", ErrState, c.Size)
	}
	leaf, err := ParseLeaf(h.HeadLeaf)
	if err != nil || leaf.Class != ClassHead {
		return nil, fmt.Errorf("%w: a HEAD of class %v: %v", ErrState, leaf.Class, err)
	}
	return &shownHead{c, leaf.Head, h.HeadLeaf}, nil
}

// configAt is the newest CONFIG below size.
func configAt(chain []chainConfig, size uint64) *chainConfig {
	for i := len(chain) - 1; i >= 0; i-- {
		if chain[i].index < size {
			return &chain[i]
		}
	}
	return nil
}
