package sim_test

import (
	"crypto/ed25519"
	"os"
	"testing"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/sim"
)

// wireLie is one lie of a server to an SDK.
type wireLie struct {
	threat, name string
	// step finds it; empty for what accuses nobody, which is err.
	step kt.Step
	text string // of the evidence
	err  error
	// newcomer: the victim has seen nothing before.
	newcomer bool
	policy   kt.WitnessPolicy
	// tell turns a copy of the server's log, which the victim knows, into the lie.
	tell func(*telling) *sim.FalseLog
	ask  func(*victim) error // nil: resolve alice
}

// telling is what a lie is made of.
type telling struct {
	server *lyingServer
	victim *victim
	log    *sim.FalseLog
}

func (l *telling) alice() ed25519.PublicKey { return publicKey(l.server.alice.identity) }

// believed shows a log to the victim, who believes it.
func (l *telling) believed(f *sim.FalseLog) {
	l.server.liar.Show(f)
	if err := l.victim.resolve("alice"); err != nil {
		l.server.t.Errorf("%s: the bait was not taken: %v", l.server.t.Name(), err)
	}
}

// revocation is one of key by a signer; nil is the server's word.
func (l *telling) revocation(key ed25519.PublicKey, signer ed25519.PrivateKey) *pb.Revocation {
	s := statement.Revoke{ServerName: l.log.ServerName, Key: key, Reason: statement.ReasonKeyCompromise}
	return &pb.Revocation{Reason: uint32(s.Reason), TimeMs: 1, Authority: pb.Authority_KEY, Signature: s.Sign(signer)}
}

// wireLies are the lies that a client sees through, in the order of the table.
func wireLies() []wireLie {
	mallory := keyNamed("mallory")
	sealed := func(l *telling, change func(*kt.Head)) *sim.FalseLog { l.log.Seal(change); return l.log }
	return []wireLie{
		{threat: sim.Hides, name: "a newer KeySet", step: kt.StepMap, text: "under the map root", tell: func(l *telling) *sim.FalseLog {
			l.log.Publish(l.server.alice.identity, nil)
			l.log.Hide(kt.KindIdentity, l.alice(), 1)
			return sealed(l, nil)
		}},
		{threat: sim.Hides, name: "a newer KeySet among several", step: kt.StepMap, text: "under the map root", tell: func(l *telling) *sim.FalseLog {
			l.log.Publish(l.server.alice.identity, nil)
			l.log.Hide(kt.KindIdentity, l.alice(), 1)
			return sealed(l, nil)
		}, ask: func(v *victim) error {
			_, err := v.FetchHybridKeys(v.t.Context(), &pb.FetchHybridKeysRequest{IdentityKeys: [][]byte{publicKey(keyNamed("bob")), publicKey(keyNamed("alice"))}})
			return err
		}},
		{threat: sim.Hides, name: "a newer binding", step: kt.StepMap, text: "under the map root", tell: func(l *telling) *sim.FalseLog {
			l.log.Bind("alice", mallory)
			l.log.Hide(kt.KindAccount, []byte("alice"), 1)
			return sealed(l, nil)
		}},
		{threat: sim.Hides, name: "a registered name", step: kt.StepMap, text: "under the map root", tell: func(l *telling) *sim.FalseLog {
			l.log.Hide(kt.KindAccount, []byte("bob"), 0)
			return sealed(l, nil)
		}, ask: func(v *victim) error { return v.resolve("bob") }},
		{threat: sim.Hides, name: "a revocation", step: kt.StepMap, text: "under the map root", tell: func(l *telling) *sim.FalseLog {
			l.log.Enter(kt.KindRevocation, l.alice(), l.revocation(l.alice(), l.server.alice.identity))
			l.log.Hide(kt.KindRevocation, l.alice(), 0)
			return sealed(l, nil)
		}},
		{threat: sim.Hides, name: "all that is new, behind an old HEAD", err: kt.ErrStale, newcomer: true, tell: func(l *telling) *sim.FalseLog {
			return sealed(l, func(h *kt.Head) { h.TimeMS -= uint64(2 * kt.DefaultFreshness.Milliseconds()) })
		}},

		{threat: sim.Adds, name: "a device in a KeySet", step: kt.StepKeySet, text: "signature", tell: func(l *telling) *sim.FalseLog {
			next := l.log.NextKeySet(l.alice())
			next.DeviceKeys = append(next.DeviceKeys, publicKey(mallory))
			statement.SignKeySet(l.log.ServerName, next, mallory)
			l.log.Enter(kt.KindIdentity, l.alice(), next)
			return sealed(l, nil)
		}},
		{threat: sim.Adds, name: "a successor whom the owner did not name", step: kt.StepBinding, text: "signature", tell: func(l *telling) *sim.FalseLog {
			l.log.Bind("carol", mallory)
			next := new(pb.KeySet)
			l.log.Newest(kt.KindIdentity, publicKey(mallory), next)
			hash := statement.KeySetHash(l.log.ServerName, next)
			s := statement.Successor{ServerName: l.log.ServerName, Username: "alice", OldKey: l.alice(), NewKey: publicKey(mallory), KeySetHash: hash}
			l.log.Enter(kt.KindAccount, []byte("alice"), &pb.AccountBinding{
				IdentityKey: publicKey(mallory), Authority: pb.Authority_OLD_KEY, KeySetHash: hash[:],
				OldSignature: s.Sign(mallory), NewSignature: s.Sign(mallory),
			})
			return sealed(l, nil)
		}},
		{threat: sim.Adds, name: "a revocation in the owner's name", step: kt.StepRevocation, text: "signature", tell: func(l *telling) *sim.FalseLog {
			l.log.Enter(kt.KindRevocation, l.alice(), l.revocation(l.alice(), mallory))
			return sealed(l, nil)
		}},

		{threat: sim.Removes, name: "out of the map and the number of keys", step: kt.StepHead, text: "contradicts", tell: func(l *telling) *sim.FalseLog {
			l.log.Bind("alice", mallory)
			l.believed(sealed(l, nil))
			f := l.log.Fork(l.log.Shown())
			f.Unmap(kt.KindAccount, []byte("alice"), 1, true)
			f.Seal(nil)
			return f
		}},
		{threat: sim.Removes, name: "out of the map, with others in its place", step: kt.StepMap, text: "which is gone", tell: func(l *telling) *sim.FalseLog {
			l.log.Bind("alice", mallory)
			l.believed(sealed(l, nil))
			f := l.log.Fork(l.log.Shown())
			f.Unmap(kt.KindAccount, []byte("alice"), 1, true)
			f.Junk(3)
			f.Seal(nil)
			return f
		}},
		{threat: sim.Removes, name: "out of the log", step: kt.StepConsistency, text: "from", tell: func(l *telling) *sim.FalseLog {
			g := l.log.Fork(l.log.Shown())
			l.log.Bind("alice", mallory)
			l.believed(sealed(l, nil))
			g.Junk(3)
			g.Seal(nil)
			g.Seal(nil)
			return g
		}},

		{threat: sim.Shadows, name: "and the victim comes back", step: kt.StepHeads, text: "is not under the heads_root", tell: func(l *telling) *sim.FalseLog {
			l.log.Bind("alice", mallory)
			l.believed(sealed(l, nil))
			f := l.log.Fork(l.log.Shown())
			f.Disown()
			f.Unmap(kt.KindAccount, []byte("alice"), 1, true)
			f.Junk(3)
			for range 3 { // one or two would contradict the shadow by themselves
				f.Seal(nil)
			}
			return f
		}},

		{threat: sim.Erases, name: "the newest binding", step: kt.StepOpening, text: "newest and not opened", tell: func(l *telling) *sim.FalseLog {
			l.log.Unopened = func(kind kt.Kind, _ []byte, _ uint32) bool { return kind == kt.KindAccount }
			return l.log
		}},
		{threat: sim.Erases, name: "the newest KeySet", step: kt.StepOpening, text: "newest and not opened", tell: func(l *telling) *sim.FalseLog {
			l.log.Unopened = func(kind kt.Kind, _ []byte, _ uint32) bool { return kind == kt.KindIdentity }
			return l.log
		}},
		{threat: sim.Erases, name: "a second label space", step: kt.StepVRF, text: "does not hold for this key", tell: func(l *telling) *sim.FalseLog {
			l.log.Hide(kt.KindAccount, []byte("alice"), 0)
			l.log.VRF = kt.NewVRFPrivateKey([32]byte{9})
			l.log.Bind("alice", mallory)
			return sealed(l, nil)
		}, newcomer: true},
		{threat: sim.Erases, name: "a second VRF key in CONFIG 0", step: kt.StepConfig, text: "not in the tree", tell: func(l *telling) *sim.FalseLog {
			first, err := kt.ParseLeaf(l.log.Leaf(0))
			if err != nil {
				panic(err)
			}
			l.log.VRF = kt.NewVRFPrivateKey([32]byte{9})
			first.Config.VRFKey = l.log.VRF.PublicKey()
			l.log.Change = func(p *pb.KeyProof) { p.Head.Configs[0].Leaf = kt.AppendConfigLeaf(nil, first.Config) }
			return l.log
		}, newcomer: true},

		{threat: sim.Forks, name: "to somebody who saw the other one", step: kt.StepConsistency, text: "from", tell: func(l *telling) *sim.FalseLog {
			f := l.log.Fork(l.log.Shown() - 1)
			f.Opaque(8)
			f.Seal(nil)
			return f
		}},
		{threat: sim.Forks, name: "of one size", step: kt.StepConsistency, text: "two roots", tell: func(l *telling) *sim.FalseLog {
			f := l.log.Fork(l.log.Shown() - 1)
			f.Seal(func(h *kt.Head) { h.TimeMS++ })
			return f
		}},
		{threat: sim.Forks, name: "of which no witness signed this one", err: kt.ErrPolicy, newcomer: true, policy: oneWitness(), tell: func(l *telling) *sim.FalseLog {
			f := l.log.Fork(l.log.Shown() - 1)
			f.Opaque(8)
			f.Seal(nil)
			return f
		}},

		{threat: sim.RollsBack, name: "and goes on", step: kt.StepConsistency, text: "from", tell: func(l *telling) *sim.FalseLog {
			f := l.log.Fork(l.log.Shown() - 4)
			f.Seal(nil)
			return f
		}},
		{threat: sim.RollsBack, name: "to an old head that is part of the newest", err: kt.ErrOlder, tell: func(l *telling) *sim.FalseLog {
			old := l.log.Shown()
			l.believed(sealed(l, nil))
			f := l.log.Fork(l.log.Shown())
			f.Size = old
			return f
		}},

		{threat: sim.Backdates, name: "a HEAD", step: kt.StepHead, text: "contradicts", tell: func(l *telling) *sim.FalseLog {
			return sealed(l, func(h *kt.Head) { h.TimeMS -= 60_001 })
		}},

		{threat: sim.Alters, name: "loses one", step: kt.StepConsistency, text: "from", tell: func(l *telling) *sim.FalseLog {
			f := l.log.Fork(l.log.Shown())
			f.Replace(1, kt.AppendOpaqueLeaf(nil, kt.Hash{}))
			f.Seal(nil)
			return f
		}},
		{threat: sim.Alters, name: "alters one that it shows", step: kt.StepCommitment, text: "not what its commitment says", tell: func(l *telling) *sim.FalseLog {
			l.log.Change = func(p *pb.KeyProof) {
				event := p.Histories[0].Versions[0].Event
				event[len(event)/2] ^= 1
			}
			return l.log
		}},
	}
}

// oneWitness is a policy that wants a witness who signs nothing here.
func oneWitness() kt.WitnessPolicy {
	witness, err := kt.NewWitness("witness.example.net", publicKey(keyNamed("witness")))
	if err != nil {
		panic(err)
	}
	policy, err := kt.ParsePolicy(1, []string{witness.String()})
	if err != nil {
		panic(err)
	}
	return policy
}

// told are the rows of docs/transparency.md that this package's tests hold.
func told() (all []sim.Told) {
	for _, lie := range wireLies() {
		found := string(lie.step)
		if lie.step == "" {
			found = lie.err.Error() + ", no evidence"
		}
		all = append(all, sim.Told{Threat: lie.threat, Test: "TestLiesOverTheWire/" + lie.name, Found: found})
	}
	return append(all,
		sim.Told{Threat: sim.Adds, Test: "TestWordOfTheServer", Found: "shown as the server's word, which only denies"},
		sim.Told{Threat: sim.RollsBack, Test: "TestOldBackupOverTheWire/the guard", Found: "the server signs nothing"},
		sim.Told{Threat: sim.RollsBack, Test: "TestOldBackupOverTheWire/a client", Found: "the server signs nothing"},
	)
}

func TestThreatsAreDocumented(t *testing.T) {
	document, err := os.ReadFile("../../docs/transparency.md")
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.CheckThreats(string(document), told()); err != nil {
		t.Error(err)
	}
}
