package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// Removed is one time that a device was to leave its account.
type Removed struct {
	span
	Device  Key
	Outcome Outcome
}

// drawLink says, for a quarter of the people, after how many of their doings they link
// a second device, after how many they replace it by a third, if they do (0: never),
// and after how many they remove what is there then.
func drawLink(seed uint64, i int) (link, replace, unlink int) {
	rng := rand.New(rand.NewPCG(seed, uint64(800+i)))
	if rng.IntN(4) > 0 {
		return 0, 0, 0
	}
	link = 1 + rng.IntN(10)
	if unlink = link + 4 + rng.IntN(14); rng.IntN(2) == 0 {
		replace = link + 3 + rng.IntN(6)
		unlink += 8
	}
	return link, replace, unlink
}

// linkDevice adds a second device to the account, which then lives by itself.
func (p *Person) linkDevice(ctx context.Context) {
	if !p.login(ctx) {
		p.linkAfter = p.doings + 2 // another time
		return
	}
	known, err := p.client.ListDevices(ctx)
	if p.note(err); err != nil {
		p.linkAfter = p.doings + 2
		return
	}
	second := p.newDevice("second device", 1)
	p.keyset = nil
	s := begin()
	_, err = p.client.RegisterDevice(ctx, client.NewDevice{
		Identity: p.identity, Known: known, Consent: p.client.Consent(public(p.identity), second.device),
	})
	s.finish()
	p.note(err)
	if outcomeOf(err) != Done {
		return // if it is there, nobody uses it
	}
	p.goesOnWith(ctx, s, second)
}

// goesOnWith has a device that was let in live, and takes it for the second one.
func (p *Person) goesOnWith(ctx context.Context, s span, second *Person) {
	key := second.DeviceKey()
	p.world.History.addLinked()
	p.fact(s, "second device", func(m *Model) error {
		if a := m.Accounts[p.name]; a == nil || !slices.Contains(a.Devices, key) && m.Revoked[key] == nil {
			return errors.New("the account does not have it")
		}
		return nil
	})
	p.mu.Lock()
	p.second = second
	p.mu.Unlock()
	p.ears.Go(func() { second.liveBeside(ctx) })
}

// replaceDevice lets a third device take the place of the second one, with its queue
// as it stands. The second goes on for a while, in vain.
func (p *Person) replaceDevice(ctx context.Context) {
	if p.second == nil {
		return
	}
	if !p.login(ctx) {
		p.replaceAfter = p.doings + 1
		return
	}
	known, err := p.client.ListDevices(ctx)
	if p.note(err); err != nil {
		p.replaceAfter = p.doings + 1
		return
	}
	hybrid, ok := p.newHybridKey()
	if !ok {
		return
	}
	third, lost := p.newDevice("third device", 2), p.second
	p.keyset = nil
	s := begin()
	p.removes(lost.DeviceKey(), pb.Authority_IDENTITY, func() error {
		_, err = p.client.RegisterDevice(ctx, client.NewDevice{
			Identity: p.identity, Known: known, Consent: p.client.Consent(public(p.identity), third.device),
			Replaces: public(lost.device), Reason: statement.ReasonKeyCompromise, HybridKey: hybrid,
		})
		return err
	})
	s.finish()
	if outcomeOf(err) != Done {
		return
	}
	p.world.History.addReplaced()
	p.fact(s, "replaced device", func(m *Model) error {
		if m.Successors[lost.DeviceKey()] != third.DeviceKey() {
			return errors.New("its queue did not go over")
		}
		return nil
	})
	p.goesOnWith(ctx, s, third)
}

// newDevice makes another device: a Person of its own that says whose it is.
func (p *Person) newDevice(use string, port int) *Person {
	s := &Person{
		world: p.world, name: p.name, owner: p, rng: rand.New(rand.NewPCG(p.world.Seed, p.rng.Uint64())),
		identity: p.identity, device: p.keyFor(use), addr: &net.UDPAddr{IP: p.addr.IP, Port: p.addr.Port + port},
		registered: true, rooms: map[ID]progress{},
	}
	return s
}

// who is the person behind a device.
func (p *Person) who() *Person {
	if p.owner != nil {
		return p.owner
	}
	return p
}

// someDevice is the key of one of the devices that others know of.
func (p *Person) someDevice(rng *rand.Rand) Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.second != nil && rng.IntN(3) == 0 {
		return p.second.DeviceKey()
	}
	return p.DeviceKey()
}

// setPasswords notes which passwords may be the right one; knownPasswords are they.
func (p *Person) setPasswords(all [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passwords = all
}

func (p *Person) knownPasswords() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.passwords)
}

// liveBeside is the life of a second device: it reads its queue, sends, and goes on for
// a while when it was removed, which must be in vain.
func (p *Person) liveBeside(ctx context.Context) {
	if !p.connect(ctx) {
		return
	}
	defer p.client.Close()
	for strikes := 0; strikes < 3 && p.pause(ctx); {
		if _, ok := p.client.Session(); !ok && !p.loginBeside(ctx) {
			if p.gone.Load() {
				strikes++
			}
			continue
		}
		switch n := p.rng.IntN(100); {
		case n < 25:
			p.send(ctx)
		case n < 45:
			p.confirm(ctx)
		case n < 55:
			p.wait(ctx)
		case n < 65:
			p.drain(ctx)
		case n < 72:
			p.peek(ctx)
		case n < 80:
			p.ack(ctx)
		case n < 85:
			p.uploadPackages(ctx)
		case n < 88:
			p.takePackages(ctx)
		default:
			p.converse(ctx)
		}
	}
}

// loginBeside logs the second device in with what its owner knows of the password. One
// that was removed gets a session that is good for nothing here.
func (p *Person) loginBeside(ctx context.Context) bool {
	for _, password := range p.owner.knownPasswords() {
		tried := p.world.fateOf(p.DeviceKey())
		s := begin()
		session, err := p.client.Login(ctx, p.name, password, p.device)
		s.finish()
		if client.ReasonOf(err) == pb.Reason_BANNED {
			p.world.History.addToldBanned(ToldBanned{s, p.owner})
		}
		if err != nil {
			continue
		}
		full := session.Scope == pb.SessionScope_DEVICE
		switch {
		case full && tried.done:
			p.world.History.Wrong(fmt.Sprintf("a removed device of %s logged in", p.name))
		case !full && !p.world.fateOf(p.DeviceKey()).tried:
			p.world.History.Wrong(fmt.Sprintf("a device of %s is taken for none", p.name))
		}
		if full {
			p.loggedIn(s, session)
			return true
		}
		p.gone.Store(true)
		p.client.SetSession(client.Session{})
		return false
	}
	return false
}

// unlinkDevice removes the second device, with a new KeySet or on the session's word.
func (p *Person) unlinkDevice(ctx context.Context) {
	if p.second == nil {
		return
	}
	if !p.login(ctx) {
		p.unlinkAfter = p.doings + 1
		return
	}
	known, err := p.client.ListDevices(ctx)
	if p.note(err); err != nil {
		p.unlinkAfter = p.doings + 1
		return
	}
	lost := client.LostDevice{Device: public(p.second.device), Reason: statement.ReasonKeyCompromise, Known: known}
	by := pb.Authority_SESSION_LOGIN
	if p.rng.IntN(2) == 0 {
		hybrid, ok := p.newHybridKey()
		if !ok {
			return
		}
		lost.Identity, lost.HybridKey, by = p.identity, hybrid, pb.Authority_IDENTITY
	}
	p.removes(p.second.DeviceKey(), by, func() error {
		_, err := p.client.RevokeDevice(ctx, lost)
		return err
	})
	p.keyset = nil
}

// removes ends a key by some call, and remembers what was promised.
func (p *Person) removes(key Key, by pb.Authority, call func() error) {
	p.world.keyEnds(key, false)
	r := &Removed{begin(), key, Unknown}
	p.world.History.addRemoved(r)
	err := call()
	r.finish()
	r.Outcome = outcomeOf(err)
	if p.note(err); err == nil {
		p.revoked(r.span, key, by)
	}
}

// rotateHybridKey publishes another hybrid key for the devices that the account has.
func (p *Person) rotateHybridKey(ctx context.Context) {
	known, err := p.client.ListDevices(ctx)
	if p.note(err); err != nil {
		return
	}
	key, ok := p.newHybridKey()
	if !ok {
		return
	}
	s := begin()
	next, err := p.client.RotateHybridKey(ctx, p.identity, known, key)
	s.finish()
	if p.note(err); err == nil {
		p.publishedFact(s, next)
	}
}

// checkRemoved: after the end of a device was acknowledged, nothing in its sessions is
// accepted, and nothing goes to it.
func (h *History) checkRemoved(add adder) {
	for _, r := range h.removed {
		if r.Outcome != Done {
			continue
		}
		for _, a := range h.accepted {
			if a.Device == r.Device && a.start > r.end {
				add("a device of %s was removed, and a %s of its session was accepted", a.By.name, a.What)
			}
		}
		for _, s := range h.sent {
			if s.To == r.Device && s.Outcome == Done && s.start > r.end {
				add("a message to a removed device was accepted")
			}
		}
	}
}
