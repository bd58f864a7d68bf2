package transparency

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"quicprochat/kt"
)

// KnowsBetterError says that a witness has seen more of this log than the server
// has, or another history of it. Signing must stop: whatever is signed now would
// be a second history.
type KnowsBetterError struct {
	// Witness is the name of its key.
	Witness string
	// Theirs is the size that it cosigned last, Ours that of the note sent.
	Theirs, Ours uint64
}

// Error says what happened and how to go on.
func (e *KnowsBetterError) Error() string {
	what := fmt.Sprintf("has cosigned %d records of this log, here are %d: this data directory is an old copy", e.Theirs, e.Ours)
	if e.Theirs <= e.Ours {
		what = fmt.Sprintf("has cosigned another history of this log at size %d", e.Theirs)
	}
	return fmt.Sprintf("witness %s %s: no checkpoint is signed any more, or two histories would be signed; stop the server and put the newest copy of the data directory back, or, if it is lost for good, go on without it: quicprochat-server admin new-generation --accept-loss; if this copy is the newest and the witness is wrong, take the witness out of the file of --witness",
		e.Witness, what)
}

// refusedError is an answer that is neither a cosignature nor a conflict.
type refusedError struct {
	status int
	said   string
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("the witness answers %d %s: %s", e.status, http.StatusText(e.status), e.said)
}

// maxAnswer bounds what is read of a witness's answer.
const maxAnswer = 16 << 10

// prover makes the consistency proof between two sizes of the log.
type prover func(from, to uint64) ([][]byte, error)

// submit has the witness cosign a note of the given size and returns its answer,
// in which a valid cosignature was found. *old is the size that it is believed to have cosigned last; a
// conflict corrects it, once. Errors: *KnowsBetterError, *refusedError, those of
// HTTP.
func (w Witness) submit(ctx context.Context, client *http.Client, signed []byte, size uint64, old *uint64, prove prover) ([]byte, error) {
	for try := 0; ; try++ {
		request := kt.AddCheckpoint{Old: *old, Note: signed}
		if *old > 0 && *old < size {
			path, err := prove(*old, size)
			if err != nil {
				return nil, fmt.Errorf("consistency proof from %d to %d: %w", *old, size, err)
			}
			for _, h := range path {
				request.Proof = append(request.Proof, kt.Hash(h))
			}
		}
		status, body, err := w.post(ctx, client, request)
		switch {
		case err != nil:
			return nil, err
		case status == http.StatusOK:
			if _, err := w.cosign(signed, body); err != nil {
				return nil, err
			}
			*old = size
			return body, nil
		case status == http.StatusConflict:
			theirs, err := sizeOf(body)
			if err != nil {
				return nil, err
			}
			if theirs > size || (theirs == size && *old == size) {
				return nil, &KnowsBetterError{w.Key.Name(), theirs, size}
			}
			*old = theirs
			if try > 0 {
				return nil, fmt.Errorf("the witness changed its mind about the size it knows: %d", theirs)
			}
		case status == http.StatusUnprocessableEntity && *old > 0:
			// The proof comes from the tree itself: what does not follow from the
			// witness's root is another history.
			return nil, &KnowsBetterError{w.Key.Name(), *old, size}
		default:
			return nil, &refusedError{status, oneLine(body)}
		}
	}
}

// ask finds out what the witness has cosigned last without having it cosign
// anything new: a note of the given size, which was signed before, is submitted
// as if it were the newest one.
func (w Witness) ask(ctx context.Context, client *http.Client, signed []byte, size uint64) error {
	status, body, err := w.post(ctx, client, kt.AddCheckpoint{Old: size, Note: signed})
	switch {
	case err != nil:
		return err
	case status == http.StatusOK:
		return nil
	case status == http.StatusConflict:
		theirs, err := sizeOf(body)
		if err == nil && theirs >= size {
			return &KnowsBetterError{w.Key.Name(), theirs, size}
		}
		return err
	default:
		return &refusedError{status, oneLine(body)}
	}
}

func (w Witness) post(ctx context.Context, client *http.Client, a kt.AddCheckpoint) (status int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL+"/add-checkpoint", bytes.NewReader(a.Append(nil)))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "text/plain; charset=utf-8")
	answer, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err == nil && answer.StatusCode == http.StatusConflict {
		if kind, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type")); kind != "text/x.tlog.size" {
			return 0, nil, fmt.Errorf("the witness answers 409 with content type %q, not a size", kind)
		}
	}
	return answer.StatusCode, body, err
}

// sizeOf reads the body of a conflict.
func sizeOf(body []byte) (uint64, error) {
	text, ended := strings.CutSuffix(string(body), "\n")
	size, err := strconv.ParseUint(text, 10, 64)
	if err != nil || !ended {
		return 0, errors.New("the witness answers 409 without a size")
	}
	return size, nil
}

// cosign adds the witness's valid lines of its answer to the note.
func (w Witness) cosign(signed, answer []byte) ([]byte, error) {
	cosigned, added, err := kt.AddCosignature(signed, answer, w.Key)
	if err == nil && !added {
		err = fmt.Errorf("the witness's answer holds no cosignature of %s", w.Key.Name())
	}
	return cosigned, err
}

// oneLine is a stranger's text, safe and short enough for a log line.
func oneLine(body []byte) string {
	if len(body) > 200 {
		body = body[:200]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(strings.TrimSpace(string(body)), "?"))
}
