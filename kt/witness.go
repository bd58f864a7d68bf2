package kt

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/mod/sumdb/note"
)

// A witness signs a checkpoint after it has checked that the log only grew (C2SP
// tlog-cosignature, timestamped Ed25519). Its line in the note is named by the
// witness and holds, in base64,
//
//	key ID[4] │ time u64, Unix seconds │ Ed25519 signature[64]
//	                                      over "cosignature/v1\ntime 1700000000\n" ‖ the note's text
const (
	algorithmCosignature = 0x04
	cosignatureSize      = 8 + ed25519.SignatureSize
	// maxWitnesses bounds a policy: each costs a signature to verify.
	maxWitnesses = 32
)

var (
	// ErrPolicy is in the chain of errors about a note with too few cosignatures.
	// It accuses nobody: a witness may be away.
	ErrPolicy = errors.New("not enough witnesses")
	// ErrWitnessKey is in the chain of errors about a witness's verifier key or a
	// policy made of them.
	ErrWitnessKey = errors.New("invalid witness policy")
)

// Witness is the public key of a witness. It is a note.Verifier.
type Witness struct {
	name string
	id   uint32
	key  ed25519.PublicKey
}

var _ note.Verifier = (*Witness)(nil)

// NewWitness names a witness's key. Errors wrap ErrWitnessKey.
func NewWitness(name string, key ed25519.PublicKey) (*Witness, error) {
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool {
		return r == '+' || r == unicode.ReplacementChar || unicode.IsSpace(r) || unicode.IsControl(r)
	}) {
		return nil, fmt.Errorf("%w: the witness name %q", ErrWitnessKey, name)
	}
	if err := ValidatePublicKey(key); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrWitnessKey, name, err)
	}
	id := sha256.Sum256(append([]byte(name+"\n"), witnessKeyBytes(key)...))
	return &Witness{name: name, id: binary.BigEndian.Uint32(id[:]), key: bytes.Clone(key)}, nil
}

func witnessKeyBytes(key ed25519.PublicKey) []byte {
	return append([]byte{algorithmCosignature}, key...)
}

// ParseWitness reads a verifier key line, name+key ID+base64(0x04 ‖ key). Errors
// wrap ErrWitnessKey.
func ParseWitness(line string) (*Witness, error) {
	name, rest, _ := strings.Cut(line, "+")
	_, key64, _ := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.Strict().DecodeString(key64)
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != algorithmCosignature {
		return nil, fmt.Errorf("%w: %q is no key of timestamped Ed25519 cosignatures (type 04)", ErrWitnessKey, line)
	}
	w, err := NewWitness(name, raw[1:])
	if err != nil {
		return nil, err
	}
	if w.String() != line {
		return nil, fmt.Errorf("%w: the key ID of %q is not that of its name and key", ErrWitnessKey, line)
	}
	return w, nil
}

// String is the verifier key line.
func (w *Witness) String() string {
	return fmt.Sprintf("%s+%08x+%s", w.name, w.id, base64.StdEncoding.EncodeToString(witnessKeyBytes(w.key)))
}

// Name is the witness's name in signature lines.
func (w *Witness) Name() string { return w.name }

// KeyHash is the key ID in signature lines.
func (w *Witness) KeyHash() uint32 { return w.id }

// Verify checks time and signature of a cosignature over a note's text.
func (w *Witness) Verify(text, sig []byte) bool {
	return len(sig) == cosignatureSize &&
		ed25519.Verify(w.key, cosignedBytes(binary.BigEndian.Uint64(sig), text), sig[8:])
}

func cosignedBytes(seconds uint64, text []byte) []byte {
	b := strconv.AppendUint([]byte("cosignature/v1\ntime "), seconds, 10)
	return append(append(b, '\n'), text...)
}

// Cosign makes the signature line of witness name, with its end, for a note that
// the caller has opened and checked; seconds is the Unix time. Errors wrap ErrNote
// or ErrWitnessKey.
func Cosign(signed []byte, name string, key ed25519.PrivateKey, seconds uint64) ([]byte, error) {
	c, err := peekCheckpoint(signed)
	if err != nil {
		return nil, err
	}
	w, err := NewWitness(name, key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	raw := binary.BigEndian.AppendUint32(nil, w.id)
	raw = binary.BigEndian.AppendUint64(raw, seconds)
	raw = append(raw, ed25519.Sign(key, cosignedBytes(seconds, c.Append(nil)))...)
	return []byte("— " + name + " " + base64.StdEncoding.EncodeToString(raw) + "\n"), nil
}

// Cosignature is what one witness said about a note.
type Cosignature struct {
	Name string
	// Seconds is the witness's time, Unix seconds.
	Seconds uint64
}

// WitnessPolicy asks for the cosignatures of k of n witnesses. The zero value asks
// for none.
type WitnessPolicy struct {
	k         int
	witnesses []*Witness
}

// ParsePolicy makes a policy of k of the witnesses whose verifier keys are given,
// at most 32. One name or key counts once. Errors wrap ErrWitnessKey.
func ParsePolicy(k int, vkeys []string) (WitnessPolicy, error) {
	p := WitnessPolicy{k: k}
	if k < 0 || k > len(vkeys) || len(vkeys) > maxWitnesses || k == 0 && len(vkeys) > 0 {
		return WitnessPolicy{}, fmt.Errorf("%w: %d of %d", ErrWitnessKey, k, len(vkeys))
	}
	for _, line := range vkeys {
		w, err := ParseWitness(line)
		if err != nil {
			return WitnessPolicy{}, err
		}
		for _, other := range p.witnesses {
			if other.name == w.name || other.key.Equal(w.key) {
				return WitnessPolicy{}, fmt.Errorf("%w: %s and %s have one name or key", ErrWitnessKey, other.name, w.name)
			}
		}
		p.witnesses = append(p.witnesses, w)
	}
	return p, nil
}

// IsZero reports whether the policy asks for nothing.
func (p WitnessPolicy) IsZero() bool { return p.k == 0 }

// Keys are k and the verifier keys of which ParsePolicy makes the same policy.
func (p WitnessPolicy) Keys() (k int, vkeys []string) {
	for _, w := range p.witnesses {
		vkeys = append(vkeys, w.String())
	}
	return p.k, vkeys
}

// Cosignatures lists which of the policy's witnesses signed, in the policy's
// order. An invalid cosignature counts as none.
func (p WitnessPolicy) Cosignatures(signed []byte) []Cosignature {
	var found []Cosignature
	for _, w := range p.witnesses {
		// Each by itself: the library gives up at the first invalid signature of a
		// key it was asked about.
		n, err := openNote(signed, w)
		if err != nil {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
		if err == nil && len(raw) == 4+cosignatureSize {
			found = append(found, Cosignature{w.name, binary.BigEndian.Uint64(raw[4:])})
		}
	}
	return found
}

// Met checks that k of the witnesses cosigned. The caller has opened the note with
// OpenCheckpoint. Errors wrap ErrPolicy.
func (p WitnessPolicy) Met(signed []byte) error {
	if n := len(p.Cosignatures(signed)); n < p.k {
		return fmt.Errorf("%w: %d of the %d wanted have signed", ErrPolicy, n, p.k)
	}
	return nil
}

// AddCosignature appends the line of w among lines, as a witness answers them
// (C2SP tlog-witness add-checkpoint), if it is a valid cosignature over signed.
// It reports whether there was one; a note that w has cosigned stays as it is.
// Errors wrap ErrNote.
func AddCosignature(signed, lines []byte, w *Witness) (_ []byte, added bool, err error) {
	if _, err := peekCheckpoint(signed); err != nil {
		return nil, false, err
	}
	// The library looks at the first line of a key only.
	if _, err := openNote(signed, w); err == nil {
		return signed, false, nil
	}
	for line := range strings.Lines(string(lines)) {
		longer := append(bytes.Clone(signed), line...)
		if _, err := openNote(longer, w); err == nil {
			return longer, true, nil
		}
	}
	return signed, false, nil
}
