package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"quicprochat/kt"
	"quicprochat/rpc/client"
)

// trustFlags say what the server's log must show.
type trustFlags struct {
	KTKey   string   `name:"kt-key" env:"QPC_KT_KEY" placeholder:"KEY|FILE" help:"Verifier key of the server's log, or a file with it: log.vkey of its data directory (${env}). Default: the key of the first answer, which is then kept."`
	Witness []string `env:"QPC_WITNESS_KEYS" sep:"," placeholder:"KEY" help:"Verifier key of a witness whose cosignature every look-up must carry; repeatable (${env}, separated by commas)."`
	Quorum  int      `env:"QPC_WITNESS_QUORUM" placeholder:"K" help:"How many of these witnesses must have signed (${env}). Default: more than half."`
}

// Files of a home about the log.
const (
	transparencyFile = "transparency.json"
	evidenceFolder   = "evidence"
)

// transparency is how a Client of this home checks keys: the state is a file that
// all processes of the home share.
func (a *app) transparency() (client.Transparency, error) {
	t := client.Transparency{}
	var err error
	if t.LogKey, err = a.logKey(); err != nil {
		return t, err
	}
	k := a.Quorum
	if k == 0 && len(a.Witness) > 0 {
		k = len(a.Witness)/2 + 1
	}
	if t.Policy, err = kt.ParsePolicy(k, a.Witness); err != nil {
		return t, usageError("--witness, --quorum: %w", err)
	}
	t.Update = func(change func(*kt.State) bool) error { // only what is proved needs a home
		h, err := openHome(a.Home)
		if err != nil {
			return err
		}
		return h.updateTransparency(change)
	}
	t.SaveEvidence = func(b *kt.Bundle) error { return (&home{a.Home}).saveEvidence(b) }
	return t, nil
}

// logKey reads --kt-key, which is the key itself or a file with it.
func (a *app) logKey() (ed25519.PublicKey, error) {
	if a.KTKey == "" {
		return nil, nil
	}
	text := a.KTKey
	if !strings.Contains(text, "+") {
		content, err := os.ReadFile(text)
		if err != nil {
			return nil, usageError("--kt-key is neither a verifier key nor a file with one: %w", err)
		}
		text = string(content)
	}
	_, key, err := kt.ParseVerifierKey(text)
	if err != nil {
		return nil, usageError("--kt-key: %w", err)
	}
	return key, nil
}

func (h *home) lockTransparency() (unlock func()) { return h.lockPart("transparency.lock") }

// updateTransparency implements client.Transparency.Update.
func (h *home) updateTransparency(change func(*kt.State) bool) error {
	defer h.lockTransparency()()
	state := new(kt.State)
	if err := h.load(transparencyFile, state); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !change(state) {
		return nil
	}
	return h.save(transparencyFile, state)
}

// saveEvidence keeps what shows that the server lied, under a name that says
// nothing but which lie it is.
func (h *home) saveEvidence(b *kt.Bundle) error {
	content, err := b.Marshal()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(h.path(evidenceFolder), 0o700); err != nil {
		return err
	}
	return replaceFile(h.evidencePath(content), content)
}

func (h *home) evidencePath(content []byte) string {
	sum := sha256.Sum256(content)
	return filepath.Join(h.path(evidenceFolder), hex.EncodeToString(sum[:8])+".json")
}

// explain adds to an error about the log what the person can do about it.
func (a *app) explain(err error) error {
	var anew *kt.NewGenerationError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &anew):
		return fmt.Errorf("%w\nThe operator went on after losing the newest part of the log: ask why. To go on with it: qpc verify --accept-generation %d NAME", err, anew.Shown)
	case errors.Is(err, client.ErrKeyRevoked):
		return fmt.Errorf("%w: nothing can be sealed for it, and nothing signed by it is believed", err)
	}
	if _, caught := client.EvidenceOf(err); caught {
		return fmt.Errorf("%w\nDo not trust this server. The proof of it is kept in %s: 'qpc-audit verify FILE' shows it to anybody", err, filepath.Join(a.Home, evidenceFolder))
	}
	return err
}
