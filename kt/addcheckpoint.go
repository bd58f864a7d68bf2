package kt

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// AddCheckpoint is the request with which a log has a witness cosign a
// checkpoint (C2SP tlog-witness, add-checkpoint):
//
//	old 20852014
//	PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
//	…
//
//	<signed note>
type AddCheckpoint struct {
	// Old is the size that the witness cosigned last, 0 before the first time.
	Old uint64
	// Proof is the RFC 6962 consistency proof from Old to the note's size; empty
	// when Old is 0 or that size.
	Proof []Hash
	// Note is the signed checkpoint.
	Note []byte
}

// Bounds of a request: a consistency proof has at most 63 hashes, and a note with
// its signatures is far below the rest.
const (
	maxProofLines = 63
	// MaxAddCheckpoint is the longest request that ParseAddCheckpoint takes, in
	// bytes.
	MaxAddCheckpoint = 64 << 10
)

// ErrAddCheckpoint is in the chain of errors about a malformed request.
var ErrAddCheckpoint = errors.New("malformed add-checkpoint request")

// Append appends the body of the request.
func (a AddCheckpoint) Append(dst []byte) []byte {
	dst = fmt.Appendf(dst, "old %d\n", a.Old)
	for _, h := range a.Proof {
		dst = base64.StdEncoding.AppendEncode(dst, h[:])
		dst = append(dst, '\n')
	}
	return append(append(dst, '\n'), a.Note...)
}

// ParseAddCheckpoint reads a request. It accepts exactly what Append makes; the
// note is not opened. Errors wrap ErrAddCheckpoint.
func ParseAddCheckpoint(body []byte) (AddCheckpoint, error) {
	if len(body) > MaxAddCheckpoint {
		return AddCheckpoint{}, fmt.Errorf("%w: %d bytes, at most %d are read", ErrAddCheckpoint, len(body), MaxAddCheckpoint)
	}
	head, rest, found := bytes.Cut(body, []byte("\n\n"))
	if !found || len(rest) == 0 {
		return AddCheckpoint{}, fmt.Errorf("%w: no note behind an empty line", ErrAddCheckpoint)
	}
	lines := strings.Split(string(head), "\n")
	number, labelled := strings.CutPrefix(lines[0], "old ")
	old, err := strconv.ParseUint(number, 10, 64)
	if !labelled || err != nil || strconv.FormatUint(old, 10) != number {
		return AddCheckpoint{}, fmt.Errorf("%w: the first line is not the old size", ErrAddCheckpoint)
	}
	a := AddCheckpoint{Old: old, Note: bytes.Clone(rest)}
	if len(lines)-1 > maxProofLines {
		return AddCheckpoint{}, fmt.Errorf("%w: a proof of %d hashes", ErrAddCheckpoint, len(lines)-1)
	}
	for _, line := range lines[1:] {
		raw, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(raw) != len(Hash{}) || base64.StdEncoding.EncodeToString(raw) != line {
			return AddCheckpoint{}, fmt.Errorf("%w: a line of the proof is not a hash", ErrAddCheckpoint)
		}
		a.Proof = append(a.Proof, Hash(raw))
	}
	return a, nil
}
