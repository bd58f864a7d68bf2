package sim

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// keyEnd is a way in which a key of a person ends.
type keyEnd int

const (
	// deviceSigned: the identity key signed the device's revocation; no session is
	// needed.
	deviceSigned keyEnd = iota
	// deviceFresh: the device is revoked in its own session, on the server's word.
	deviceFresh
	// identitySigned: the identity key revokes itself. Its devices stay, and nobody
	// finds the account any more.
	identitySigned
	// identityReplaced: the account is handed over to another identity key.
	identityReplaced
	keyEnds
)

// drawKeyEnd says, for a quarter of the people, how a key of theirs ends and after
// how many of their doings.
func drawKeyEnd(seed uint64, i int) (how keyEnd, after int) {
	rng := rand.New(rand.NewPCG(seed, uint64(500+i)))
	if rng.IntN(4) > 0 {
		return 0, 0
	}
	return keyEnd(rng.IntN(int(keyEnds))), 2 + rng.IntN(40)
}

// endKey ends a key as planned. Somebody without a device does nothing any more.
func (p *Person) endKey(ctx context.Context) {
	switch p.keyEnd {
	case deviceSigned:
		p.gone.Store(true)
		p.revoke(ctx, pb.Authority_IDENTITY, p.client.SignRevocation(p.identity, public(p.device), statement.ReasonKeyCompromise))
	case deviceFresh:
		if p.login(ctx) {
			p.gone.Store(true)
			p.revoke(ctx, pb.Authority_SESSION_LOGIN, &pb.RevokeKeyRequest{Key: public(p.device), Reason: uint32(statement.ReasonKeyCompromise)})
		}
	case identitySigned:
		p.revoke(ctx, pb.Authority_KEY, p.client.SignRevocation(p.identity, public(p.identity), statement.ReasonKeyCompromise))
	case identityReplaced:
		if p.login(ctx) {
			p.replaceIdentity(ctx)
		}
	}
}

// revoke ends a key and remembers what was promised.
func (p *Person) revoke(ctx context.Context, by pb.Authority, req *pb.RevokeKeyRequest) {
	p.removes(Key(req.Key), by, func() error {
		_, err := p.client.RevokeKey(ctx, req)
		return err
	})
}

func (p *Person) revoked(s span, key Key, by pb.Authority) {
	p.world.keyEnds(key, true)
	// Not every one needs a session: those who are banned may say that a key is lost.
	p.world.History.addFact(Fact{s, p.name + "'s revocation", func(m *Model) error {
		if r := m.Revoked[key]; r == nil || r.Authority != by {
			return fmt.Errorf("key %x was revoked by %v, and is %v", key[:4], by, r)
		}
		return nil
	}})
}

// replaceIdentity hands the account over. After an unknown outcome the person does
// not know whose it is, and publishes no KeySet any more.
func (p *Person) replaceIdentity(ctx context.Context) {
	next := p.keyFor("second identity")
	hybrid, ok := p.newHybridKey()
	if !ok {
		return
	}
	p.world.keyEnds(p.IdentityKey(), false)
	s := begin()
	keySet, err := p.client.ReplaceIdentity(ctx, client.Replacement{
		Old: p.identity, New: next, Devices: []ed25519.PublicKey{public(p.device)}, HybridKey: hybrid,
		Reason: statement.ReasonSuperseded,
	})
	s.finish()
	p.note(err)
	switch outcomeOf(err) {
	case Unknown:
		p.unsure = true
	case Done:
		p.revoked(s, p.IdentityKey(), pb.Authority_KEY)
		p.mu.Lock()
		p.identity, p.keyset = next, keySet
		p.mu.Unlock()
		key := keyOf(next)
		p.world.published(key, 0)
		p.fact(s, "new identity", func(m *Model) error {
			if a := m.Accounts[p.name]; a == nil || a.Identity != key {
				return errors.New("the account has another one")
			}
			return nil
		})
	}
}

// keyFate is what is known of a key's end.
type keyFate struct{ tried, done bool }

// keyEnds notes that somebody asks for the end of a key, or was told of it.
func (w *World) keyEnds(key Key, done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fates[key] = keyFate{true, done}
}

func (w *World) fateOf(key Key) keyFate {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fates[key]
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// judgeEnd holds what somebody was shown of another's keys against what was
// promised of them before the question; tried says that the identity's end was
// asked for by the time of the answer.
func (p *Person) judgeEnd(identity keyFate, tried bool, device keyFate, resp *pb.FetchHybridKeyResponse, err error) {
	wrong := ""
	switch answered := err == nil || client.ReasonOf(err) == pb.Reason_NO_SUCH_KEY; {
	case errors.Is(err, client.ErrKeyRevoked) && !tried:
		wrong = "an identity as revoked, which nobody asked for"
	case answered && identity.done:
		wrong = "an identity as good, which was revoked"
	case err == nil && device.done && !resp.GetHybridRotationDue():
		wrong = "a device as good, which was revoked"
	}
	if wrong != "" {
		p.world.History.Wrong(p.name + " is shown " + wrong)
	}
}
