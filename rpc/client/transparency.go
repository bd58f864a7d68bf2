package client

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"time"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// Transparency says how a Client checks what the server says about keys
// (docs/transparency.md). The zero value is the default: every key is proved, the
// log's key is believed at first contact, and what was verified is remembered for
// as long as the Client lives. Whoever keeps the state over restarts holds the
// server to it for ever.
type Transparency struct {
	// Off takes the server's word.
	Off bool
	// LogKey is a key that the log is known to have, or to have had; nil believes
	// the first answer. kt.ParseVerifierKey reads it from the server's log.vkey.
	LogKey ed25519.PublicKey
	// Policy, if it asks for witnesses, must be met by every head that a look-up is
	// answered under.
	Policy kt.WitnessPolicy
	// Freshness bounds the age of heads. Default kt.DefaultFreshness; negative for
	// any age.
	Freshness time.Duration
	// Update keeps the state: it calls change with what is kept, the zero State at
	// first contact, and keeps it when change reports that it changed, durably,
	// before it returns. Calls, also those of other processes, take turns. nil: the
	// state lives as long as the Client.
	Update func(change func(*kt.State) (changed bool)) error
	// SaveEvidence is called with what shows that the server lied.
	SaveEvidence func(*kt.Bundle) error
}

// ErrKeyRevoked: the log proves that the key is out of use for ever.
var ErrKeyRevoked = errors.New("the identity key is revoked")

// EvidenceOf returns the evidence in err's chain, if the server was caught.
func EvidenceOf(err error) (*kt.EvidenceError, bool) {
	var evidence *kt.EvidenceError
	ok := errors.As(err, &evidence)
	return evidence, ok
}

// trust is what a Client knows of the log, and how it checks more.
type trust struct {
	settings Transparency
	verifier *kt.Verifier

	mu    sync.Mutex
	state kt.State                   // where Update is nil
	known map[string]*kt.KnownPerson // by username or identity key: what later answers need not show again
}

// maxKnown bounds trust.known; beyond it answers are longer, not wrong.
const maxKnown = 4096

func newTrust(serverName string, settings Transparency) *trust {
	t := &trust{
		settings: settings, known: map[string]*kt.KnownPerson{},
		verifier: &kt.Verifier{ServerName: serverName, LogKey: settings.LogKey, Policy: settings.Policy, Freshness: settings.Freshness},
	}
	switch {
	case settings.Freshness == 0:
		t.verifier.Freshness = kt.DefaultFreshness
	case settings.Freshness < 0:
		t.verifier.Freshness = 0
	}
	return t
}

// update changes the state where it is kept.
func (t *trust) update(change func(*kt.State) (changed bool)) error {
	if t.settings.Update == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		change(&t.state)
		return nil
	}
	if err := t.settings.Update(change); err != nil {
		return fmt.Errorf("client: keep the transparency state: %w", err)
	}
	return nil
}

// snapshot is the state as it is now.
func (t *trust) snapshot() (state kt.State, err error) {
	err = t.update(func(s *kt.State) bool { state = *s; return false })
	return state, err
}

// ask makes a question of a query, as of what is known now.
func (t *trust) ask(q kt.Query) (*kt.Question, error) {
	state, err := t.snapshot()
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if q.Known == nil {
		q.Known = t.known[knownID(q)]
	}
	return state.Ask(q), nil
}

// knownID names whom a query is about; empty for one that is not remembered.
func knownID(q kt.Query) string {
	switch {
	case q.Username != "":
		return "name " + q.Username
	case q.IdentityKey != nil:
		return "key " + string(q.IdentityKey)
	}
	return ""
}

// verify checks an answer and keeps what it taught. Errors are those of
// kt.Verifier.Verify, or of keeping.
func (t *trust) verify(asked *kt.Question, p *pb.KeyProof) (answer *kt.Answer, err error) {
	kept := t.update(func(state *kt.State) bool {
		before := *state
		answer, err = t.verifier.Verify(state, asked, p, uint64(time.Now().UnixMilli()))
		return state.Newest != before.Newest || state.Cosigned != before.Cosigned || len(state.Configs) != len(before.Configs)
	})
	if err = errors.Join(t.save(err), kept); err != nil {
		return nil, err
	}
	t.remember(asked.Query, answer)
	return answer, nil
}

// examine is verify against a state that nobody keeps.
func (t *trust) examine(state *kt.State, asked *kt.Question, p *pb.KeyProof) error {
	_, err := t.verifier.Verify(state, asked, p, uint64(time.Now().UnixMilli()))
	return t.save(err)
}

// save keeps evidence, if err is some.
func (t *trust) save(err error) error {
	if evidence, caught := EvidenceOf(err); caught && t.settings.SaveEvidence != nil {
		if saveErr := t.settings.SaveEvidence(evidence.Bundle()); saveErr != nil {
			return errors.Join(err, fmt.Errorf("client: keep the evidence: %w", saveErr))
		}
	}
	return err
}

func (t *trust) remember(q kt.Query, a *kt.Answer) {
	var known *kt.KnownPerson
	switch {
	case a.Person != nil:
		known = a.Person.Known()
	case a.Identity != nil:
		known = a.Identity.Known()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	id := knownID(q)
	if known == nil {
		delete(t.known, id)
	} else if _, there := t.known[id]; there || len(t.known) < maxKnown {
		t.known[id] = known
	}
}

// forget has the next answer show everything from version 0 on.
func (t *trust) forget(q kt.Query) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.known, knownID(q))
}

// consent goes on with a log that was begun anew (kt.NewGenerationError). It is
// the person's decision.
func (t *trust) consent(generation uint32) error {
	t.mu.Lock()
	clear(t.known)
	t.mu.Unlock()
	var refused error
	err := t.update(func(s *kt.State) bool {
		known, err := s.Generation()
		if err == nil && s.Newest != nil && generation <= known {
			err = fmt.Errorf("client: the log is known as generation %d: there is nothing to consent to in %d", known, generation)
		}
		if refused = err; err != nil {
			return false
		}
		s.Consent(generation)
		return true
	})
	return errors.Join(err, refused)
}
