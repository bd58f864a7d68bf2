package kt

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

const (
	// BundleFormat stands in every bundle.
	BundleFormat = "qpc-bundle-v1"
	// MaxBundleSize bounds a bundle in bytes.
	MaxBundleSize = 64 << 20
)

// ErrBundle is in the chain of errors about a bundle that can't be checked.
var ErrBundle = errors.New("malformed bundle")

// Bundle is a reply with all that it takes to check it again, by anybody, without
// the server: who asked what, knowing what, and with which policy. With evidence
// it shows the lie, else it is a proof to keep.
type Bundle struct {
	Format     string   `json:"format"`
	ServerName string   `json:"server_name"`
	LogKey     []byte   `json:"log_key,omitempty"`
	Witnesses  []string `json:"witnesses,omitempty"`
	K          int      `json:"k,omitempty"`
	// FreshnessMS is the freshness window, 0 for none, and TimeMS when the reply was
	// checked, Unix milliseconds.
	FreshnessMS uint64   `json:"freshness_ms,omitempty"`
	TimeMS      uint64   `json:"time_ms"`
	Question    Question `json:"question"`
	// Stored is the state when the reply came.
	Stored State `json:"stored"`
	// Proof is the KeyProof, marshalled; of a reply with a head alone it has that.
	Proof []byte `json:"proof"`
	// Step and Detail are those of the evidence; empty if the answer held.
	Step   Step   `json:"step,omitempty"`
	Detail string `json:"detail,omitempty"`
}

func (v *Verifier) bundle(before State, asked *Question, p *pb.KeyProof, nowMS uint64, e *EvidenceError) *Bundle {
	raw, err := proto.Marshal(p)
	if err != nil {
		panic("kt: marshalling a received proof: " + err.Error())
	}
	b := &Bundle{
		Format: BundleFormat, ServerName: v.ServerName, LogKey: v.LogKey, FreshnessMS: uint64(v.Freshness.Milliseconds()),
		TimeMS: nowMS, Question: *asked, Stored: before, Proof: raw,
	}
	b.K, b.Witnesses = v.Policy.Keys()
	if e != nil {
		b.Step, b.Detail = e.Step, e.Detail
	}
	return b
}

// Marshal is the bundle as a file: JSON, byte strings in base64.
func (b *Bundle) Marshal() ([]byte, error) { return json.MarshalIndent(b, "", "  ") }

// ParseBundle reads what Marshal made. Errors wrap ErrBundle.
func ParseBundle(raw []byte) (*Bundle, error) {
	if len(raw) > MaxBundleSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrBundle, len(raw))
	}
	b := new(Bundle)
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	if b.Format != BundleFormat {
		return nil, fmt.Errorf("%w: format %q", ErrBundle, b.Format)
	}
	return b, nil
}

// VerifierKey is the key of the newest CONFIG that the bundle's reply shows, or that
// its asker knew: on whose word it stands when nobody was given a key. Errors wrap
// ErrBundle.
func (b *Bundle) VerifierKey() (string, error) {
	p := new(pb.KeyProof)
	if err := proto.Unmarshal(b.Proof, p); err != nil {
		return "", fmt.Errorf("%w: %w", ErrBundle, err)
	}
	var newest []byte
	if known := b.Question.State.Configs; len(known) > 0 {
		newest = known[len(known)-1].Leaf
	}
	if shown := p.GetHead().GetConfigs(); len(shown) > 0 {
		newest = shown[len(shown)-1].GetLeaf()
	}
	leaf, err := ParseLeaf(newest)
	if err != nil || leaf.Class != ClassConfig {
		return "", fmt.Errorf("%w: it has no CONFIG: %v", ErrBundle, err)
	}
	return VerifierKey(leaf.Config.Origin, leaf.Config.LogKey)
}

// VerifyBundle checks a bundle's reply again, and first that what the asker knew
// was really said by the log: its own notes, HEADs and CONFIGs. logKey, if not
// nil, is a key that the log is known to have or had; without it the bundle is
// only as good as its own word on whose log it is.
//
// It returns what Verify returned when the bundle was made: the answer, or the
// *EvidenceError. An error that wraps ErrBundle means that the bundle shows
// nothing.
func VerifyBundle(b *Bundle, logKey ed25519.PublicKey) (*Answer, error) {
	if b.Format != BundleFormat {
		return nil, fmt.Errorf("%w: format %q", ErrBundle, b.Format)
	}
	policy, err := ParsePolicy(b.K, b.Witnesses)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	v := &Verifier{ServerName: b.ServerName, LogKey: b.LogKey, Policy: policy, Freshness: time.Duration(b.FreshnessMS) * time.Millisecond}
	if logKey != nil {
		v.LogKey = logKey
	}
	p := new(pb.KeyProof)
	if err := proto.Unmarshal(b.Proof, p); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	for _, s := range []State{b.Question.State, b.Stored} {
		if err := v.vouch(s); err != nil {
			return nil, err
		}
	}
	state, asked := b.Stored, b.Question
	return v.Verify(&state, &asked, p, b.TimeMS)
}

// vouch checks that the log itself said what a state knows of it.
func (v *Verifier) vouch(s State) error {
	k, err := s.read()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBundle, err)
	}
	for i, c := range k.configs {
		if i > 0 {
			if err := c.VerifyLink(k.configs[i-1].Config, k.configs[i-1].index); err != nil {
				return fmt.Errorf("%w: %w", ErrBundle, err)
			}
		}
		checkpoint, err := openByAny(c.known.Note, v.ServerName, k.configs)
		if err == nil {
			err = includes(checkpoint, c.index, c.known.Leaf, c.known.Path)
		}
		if err != nil {
			return fmt.Errorf("%w: the known CONFIG at index %d: %w", ErrBundle, c.index, err)
		}
	}
	for _, known := range []*KnownHead{s.Newest, s.Cosigned} {
		if known == nil {
			continue
		}
		checkpoint, err := openByAny(known.Note, v.ServerName, k.configs)
		if err == nil && checkpoint.Size > 0 {
			err = includes(checkpoint, checkpoint.Size-1, known.HeadLeaf, known.HeadPath)
		}
		if err != nil {
			return fmt.Errorf("%w: the known HEAD: %w", ErrBundle, err)
		}
	}
	return nil
}

// openByAny opens a note with the CONFIG of a chain that signed it.
func openByAny(signed []byte, serverName string, chain []chainConfig) (Checkpoint, error) {
	err := fmt.Errorf("%w: no CONFIG", ErrNote)
	for _, c := range chain {
		if name, _, parseErr := ParseOrigin(c.Origin); parseErr != nil || name != serverName {
			return Checkpoint{}, fmt.Errorf("%w: it is of %s, not of %s", ErrNote, c.Origin, serverName)
		}
		var checkpoint Checkpoint
		if checkpoint, err = OpenCheckpoint(signed, c.Origin, c.LogKey); err == nil {
			return checkpoint, nil
		}
	}
	return Checkpoint{}, err
}
