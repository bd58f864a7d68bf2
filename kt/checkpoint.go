package kt

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// MaxNoteSize bounds a signed note in bytes: a checkpoint with the log's signature
// and those of some dozens of witnesses.
const MaxNoteSize = 16 << 10

var (
	// ErrNote is in the chain of errors about a note that is malformed, of another
	// log, or not signed by the log's key.
	ErrNote = errors.New("no checkpoint of this log")
	errSize = fmt.Errorf("%w: more than %d bytes", ErrNote, MaxNoteSize)
)

// Checkpoint says that the log named Origin has Size leaves under Root (C2SP
// tlog-checkpoint). Its text is three lines, and no others:
//
//	chat.example.org/1
//	20852163
//	CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   Hash
}

// Append appends the checkpoint's text: what is signed.
func (c Checkpoint) Append(dst []byte) []byte {
	dst = append(append(dst, c.Origin...), '\n')
	dst = append(strconv.AppendUint(dst, c.Size, 10), '\n')
	return append(base64.StdEncoding.AppendEncode(dst, c.Root[:]), '\n')
}

// ParseCheckpoint reads a checkpoint's text, without signatures. It accepts
// exactly what Append makes of a valid origin and a size below 2^63. Errors wrap
// ErrNote.
func ParseCheckpoint(text []byte) (Checkpoint, error) {
	lines := strings.Split(string(text[:min(len(text), MaxNoteSize)]), "\n")
	if len(lines) != 4 || lines[3] != "" {
		return Checkpoint{}, fmt.Errorf("%w: a checkpoint of %d lines, want 3", ErrNote, len(lines)-1)
	}
	c := Checkpoint{Origin: lines[0]}
	if _, _, err := ParseOrigin(c.Origin); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrNote, err)
	}
	var err error
	if c.Size, err = strconv.ParseUint(lines[1], 10, 64); err != nil || c.Size > math.MaxInt64 {
		return Checkpoint{}, fmt.Errorf("%w: tree size %q", ErrNote, lines[1])
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != len(c.Root) {
		return Checkpoint{}, fmt.Errorf("%w: root %q", ErrNote, lines[2])
	}
	c.Root = Hash(root)
	if !bytes.Equal(c.Append(nil), text) {
		return Checkpoint{}, fmt.Errorf("%w: a checkpoint in another than the one form", ErrNote)
	}
	return c, nil
}

// VerifierKey is the C2SP signed-note verifier key of a log, one line without its
// end: origin+key ID+key. Errors are about the key's size.
func VerifierKey(origin string, key ed25519.PublicKey) (string, error) {
	return note.NewEd25519VerifierKey(origin, key)
}

// ParseVerifierKey reads what VerifierKey made; space around it is ignored. Errors
// wrap ErrNote.
func ParseVerifierKey(line string) (origin string, key ed25519.PublicKey, err error) {
	line = strings.TrimSpace(line)
	const typed = 1 + ed25519.PublicKeySize // algorithm 0x01, key
	origin, rest, _ := strings.Cut(line, "+")
	_, encoded, _ := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(raw) != typed || raw[0] != 1 {
		return "", nil, fmt.Errorf("%w: no verifier key of a log (origin+hash+key)", ErrNote)
	}
	if again, err := VerifierKey(origin, raw[1:]); err != nil || again != line {
		return "", nil, fmt.Errorf("%w: a verifier key whose hash does not belong to its name and key", ErrNote)
	}
	return origin, raw[1:], nil
}

// logSigner signs notes as note.NewSigner does, with a key as Go has it.
type logSigner struct {
	note.Verifier
	key ed25519.PrivateKey
}

func (s logSigner) Sign(text []byte) ([]byte, error) { return ed25519.Sign(s.key, text), nil }

// SignCheckpoint makes the signed note (C2SP signed-note) with one signature, of
// the log's key under the log's origin. Errors are about a malformed origin, size
// or key.
func SignCheckpoint(c Checkpoint, key ed25519.PrivateKey) ([]byte, error) {
	text := c.Append(nil)
	if _, err := ParseCheckpoint(text); err != nil {
		return nil, err
	}
	verifier, err := logVerifier(c.Origin, key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	return note.Sign(&note.Note{Text: string(text)}, logSigner{verifier, key})
}

func logVerifier(origin string, key ed25519.PublicKey) (note.Verifier, error) {
	line, err := VerifierKey(origin, key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNote, err)
	}
	verifier, err := note.NewVerifier(line)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNote, err)
	}
	return verifier, nil
}

// OpenCheckpoint checks that signed is a note of the log named origin, signed by
// key, and returns its checkpoint. Other signatures are ignored: those of
// witnesses are for WitnessPolicy. Errors wrap ErrNote.
func OpenCheckpoint(signed []byte, origin string, key ed25519.PublicKey) (Checkpoint, error) {
	verifier, err := logVerifier(origin, key)
	if err != nil {
		return Checkpoint{}, err
	}
	n, err := openNote(signed, verifier)
	if err != nil {
		return Checkpoint{}, err
	}
	c, err := ParseCheckpoint([]byte(n.Text))
	if err == nil && c.Origin != origin {
		err = fmt.Errorf("%w: its origin is %s, not %s", ErrNote, c.Origin, origin)
	}
	return c, err
}

// openNote is note.Open with a limit, for signatures in their one form.
func openNote(signed []byte, verifier note.Verifier) (*note.Note, error) {
	if len(signed) > MaxNoteSize {
		return nil, errSize
	}
	n, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNote, err)
	}
	for _, sig := range n.Sigs {
		// The library takes base64 with any trailing bits: one signature, four lines.
		if raw, err := base64.StdEncoding.Strict().DecodeString(sig.Base64); err != nil || len(raw) < 4 {
			return nil, fmt.Errorf("%w: a signature in another than the one form", ErrNote)
		}
	}
	return n, nil
}

// peekCheckpoint reads the text of a note whose signatures nobody has checked.
func peekCheckpoint(signed []byte) (Checkpoint, error) {
	if len(signed) > MaxNoteSize {
		return Checkpoint{}, errSize
	}
	text, _, found := bytes.Cut(signed, []byte("\n\n"))
	if !found {
		return Checkpoint{}, fmt.Errorf("%w: it has no signatures", ErrNote)
	}
	return ParseCheckpoint(signed[:len(text)+1])
}

// PeekNote is the origin and the tree size that a signed note names. Nobody has
// vouched for them: they tell what to ask, or which key to try. Errors wrap ErrNote.
func PeekNote(note []byte) (origin string, size uint64, err error) {
	c, err := peekCheckpoint(note)
	return c.Origin, c.Size, err
}
