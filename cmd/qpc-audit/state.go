package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Files of a state folder (0700, files 0600).
const (
	stateFile  = "state.json"
	replayFile = "replay"
)

// state is what an audit knows of a log. The notes are kept as they were
// signed: they are what proves that a server went back on its word.
type state struct {
	// KTOnly: made by deltas alone.
	KTOnly bool `json:"kt_only"`
	// Log is the verifier key of the log: origin+hash+key.
	Log string `json:"log"`
	// Earlier are those that it had before.
	Earlier []string `json:"earlier_keys,omitempty"`
	// Newest is the newest note that was verified.
	Newest string `json:"newest_note"`
	// Cosigned is the newest of them that met the witness policy.
	Cosigned string `json:"cosigned_note,omitempty"`
	// Vouched is the newest note that this witness cosigned.
	Vouched string `json:"vouched_note,omitempty"`
	// Checked is when Newest was verified.
	Checked time.Time `json:"checked"`
}

// stateFolder is an open state folder; one process uses it at a time.
type stateFolder struct {
	dir    string
	unlock func()
	state  *state // nil before the first success
}

// openState makes the folder when it is missing.
func openState(dir string) (*stateFolder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	unlock, err := lockFile(filepath.Join(dir, "LOCK"))
	if err != nil {
		return nil, fmt.Errorf("state folder %s: %w", dir, err)
	}
	s := &stateFolder{dir: dir, unlock: unlock}
	content, err := os.ReadFile(s.path(stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		s.state = new(state)
		err = json.Unmarshal(content, s.state)
	}
	if err != nil {
		unlock()
		return nil, fmt.Errorf("%s can't be read: what was signed before is not known any more; put it back from a copy (%w)", s.path(stateFile), err)
	}
	return s, nil
}

func (s *stateFolder) close() { s.unlock() }

func (s *stateFolder) path(name string) string { return filepath.Join(s.dir, name) }

// save replaces the state.
func (s *stateFolder) save(next state) error {
	content, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return err
	}
	if err := replaceFile(s.path(stateFile), append(content, '\n'), 0o600); err != nil {
		return err
	}
	s.state = &next
	return nil
}

// saveReplay replaces the replayer's state, which saves time at the next start.
func (s *stateFolder) saveReplay(from io.WriterTo) (err error) {
	file, err := os.CreateTemp(s.dir, ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	_, err = from.WriteTo(file)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), s.path(replayFile)); err != nil {
		return err
	}
	return syncFolder(s.dir)
}

// loadReplay reads the replayer's state; a missing or damaged one is no loss:
// the log is read from its beginning.
func loadReplay[R any](s *stateFolder, read func(io.Reader) (*R, error), fresh func() *R) (*R, error) {
	file, err := os.Open(s.path(replayFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fresh(), nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r, err := read(file)
	if err != nil {
		return fresh(), nil
	}
	return r, nil
}
