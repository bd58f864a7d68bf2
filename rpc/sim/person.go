package sim

import (
	"context"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/pake"
)

// Person is somebody with one device and the SDK, who does at random what people
// do and remembers what was promised.
type Person struct {
	world            *World
	name             string
	rng              *rand.Rand
	identity, device ed25519.PrivateKey
	addr             *net.UDPAddr

	client                 *client.Client
	registered             bool
	passwords              [][]byte // of which one is right; more than one after an unknown outcome
	changes                int
	keyset                 *pb.KeySet // newest that is known to be accepted; nil when not known
	keyEnd                 keyEnd
	endAfter               int // how many doings; 0 for never
	doings                 int
	unsure                 bool        // whose the account is
	gone                   atomic.Bool // without a device
	confirmed              uint64
	sends                  int
	packages               int
	uploaded               []byte // a KeyPackage of an earlier upload
	lastError              error  // of registering or logging in
	told                   error  // by the last call of insist
	arrived                atomic.Bool
	moderator              bool // is to be one
	isModerator            bool
	received               *pb.Envelope    // the newest message
	owner                  *Person         // of a second device
	second                 *Person         // device of the person; nil while there is none
	linkAfter, unlinkAfter int             // how many doings; 0 for never
	replaceAfter           int             // as these
	rooms                  map[ID]progress // as last told
	ears                   sync.WaitGroup  // what listens to pushes

	mu sync.Mutex // of identity, which others read
}

func newPerson(w *World, i int) *Person {
	p := &Person{world: w, name: fmt.Sprintf("person%d", i), rooms: map[ID]progress{}, rng: rand.New(rand.NewPCG(w.Seed, uint64(100+i)))}
	p.identity, p.device = p.keyFor("identity"), p.keyFor("device")
	p.passwords = [][]byte{[]byte("first of " + p.name)}
	p.addr = &net.UDPAddr{IP: net.IPv4(10, 0, byte(i), 1), Port: 4000}
	p.keyEnd, p.endAfter = drawKeyEnd(w.Seed, i)
	if p.moderator = i == 0 && drawModerator(w.Seed); p.moderator {
		p.endAfter = 0
	}
	if p.endAfter == 0 {
		p.linkAfter, p.replaceAfter, p.unlinkAfter = drawLink(w.Seed, i)
	}
	return p
}

// keyFor derives a key of the person from its use.
func (p *Person) keyFor(use string) ed25519.PrivateKey {
	seed := sha256.Sum256(fmt.Appendf(nil, "%s %s %d", use, p.name, p.world.Seed))
	return ed25519.NewKeyFromSeed(seed[:])
}

func keyOf(k ed25519.PrivateKey) Key { return Key(k.Public().(ed25519.PublicKey)) }

// DeviceKey is the public key of the person's device.
func (p *Person) DeviceKey() Key { return keyOf(p.device) }

// IdentityKey is the public key of the account, as far as the person knows.
func (p *Person) IdentityKey() Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	return keyOf(p.identity)
}

// live does things until ctx ends.
func (p *Person) live(ctx context.Context) {
	if !p.pause(ctx) || !p.connect(ctx) {
		return
	}
	for p.pause(ctx) {
		if !p.ready(ctx) {
			continue
		}
		switch p.doings++; p.doings {
		case p.endAfter:
			p.endKey(ctx)
		case p.linkAfter:
			p.linkDevice(ctx)
		case p.replaceAfter:
			p.replaceDevice(ctx)
		case p.unlinkAfter:
			p.unlinkDevice(ctx)
		default:
			p.act(ctx)
		}
		if p.gone.Load() {
			p.peek(ctx) // in vain
			p.send(ctx)
			return
		}
	}
}

// pause thinks; false when it is time to stop.
func (p *Person) pause(ctx context.Context) bool {
	d := min(time.Duration(p.rng.ExpFloat64()*float64(p.world.plan.think)), 5*time.Second) + time.Millisecond
	if night := time.Until(time.UnixMilli(p.world.dawn.Load())); night > 0 {
		d += night
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// rest does nothing for up to bound; false when it is time to stop.
func (p *Person) rest(ctx context.Context, bound time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Duration(p.rng.Int64N(int64(bound)))):
		return true
	}
}

// connect dials until it works.
func (p *Person) connect(ctx context.Context) bool {
	for {
		c, err := client.Dial(ctx, client.Config{
			ServerName: serverName, CACert: p.world.ca, KSF: pake.InsecureKSF(),
			PacketConn: p.world.Net.Listen(p.addr), RemoteAddr: serverAddr,
			Attempts: 1 + p.rng.IntN(5), Timeout: time.Duration(1+p.rng.IntN(12)) * time.Second,
			MaxIdle: time.Duration(5+p.rng.IntN(25)) * time.Second,
		})
		if err == nil {
			p.client = c
			return true
		}
		if !p.pause(ctx) {
			return false
		}
	}
}

// ready registers and logs in where that is needed.
func (p *Person) ready(ctx context.Context) bool {
	if !p.registered && !p.register(ctx) {
		return false
	}
	if _, ok := p.client.Session(); !ok && !p.login(ctx) {
		return false
	}
	if p.moderator {
		p.becomeModerator(ctx)
	}
	return true
}

func (p *Person) register(ctx context.Context) bool {
	key, ok := p.newHybridKey()
	if !ok {
		return false
	}
	s := begin()
	r, err := p.client.Register(ctx, client.RegisterParams{
		Username: p.name, Password: p.passwords[0], IdentityKey: p.identity, DeviceKey: p.device, HybridKey: key,
	})
	s.finish()
	p.lastError = err
	switch {
	case err == nil:
		p.keyset = r.KeySet
		p.world.published(p.IdentityKey(), 0)
		identity, device := p.IdentityKey(), p.DeviceKey()
		p.fact(s, "registration", func(m *Model) error {
			a := m.Accounts[p.name]
			if a == nil || a.Identity != identity && m.Revoked[identity] == nil || !slices.Contains(a.Devices, device) && m.Revoked[device] == nil {
				return errors.New("the account is not there")
			}
			return nil
		})
		p.registered = true
	case client.ReasonOf(err) == pb.Reason_USERNAME_TAKEN:
		// Taken by an earlier try of the person, of which no answer came: each try
		// has another record, so the server can't take it for the same.
		p.registered = true
	}
	p.arrived.Store(p.registered)
	return p.registered
}

// login tries every password that may be the right one. One of them must be.
func (p *Person) login(ctx context.Context) bool {
	for i, password := range p.passwords {
		s := begin()
		session, err := p.client.Login(ctx, p.name, password, p.device)
		s.finish()
		p.lastError = err
		if err == nil {
			p.setPasswords([][]byte{password})
			p.loggedIn(s, session)
			return true
		}
		if client.ReasonOf(err) == pb.Reason_BANNED {
			p.world.History.addToldBanned(ToldBanned{s, p})
		}
		if !errors.Is(err, client.ErrLoginFailed) {
			return false
		}
		if i == len(p.passwords)-1 {
			p.world.History.Wrong(fmt.Sprintf("%s: none of %d passwords opens the account", p.name, len(p.passwords)))
		}
	}
	return false
}

func (p *Person) loggedIn(s span, session *client.Session) {
	token := sha256.Sum256(session.Token)
	p.fact(s, "login", func(m *Model) error {
		if !m.EverSessions[token] {
			return errors.New("the session never was")
		}
		return nil
	})
}

// fact is a promise that came with the answer to a call in the person's session.
func (p *Person) fact(s span, what string, check func(*Model) error) {
	p.accepted(s, what)
	p.world.History.addFact(Fact{s, p.name + "'s " + what, check})
}

// accepted notes that a call in the device's session was answered with Ok.
func (p *Person) accepted(s span, what string) {
	p.world.History.addAccepted(Accepted{s, p.who(), p.DeviceKey(), what})
}

// act does one thing.
func (p *Person) act(ctx context.Context) {
	switch n := p.rng.IntN(142); {
	case p.isModerator && p.rng.IntN(8) == 0:
		p.moderate(ctx)
	case n >= 140:
		p.report(ctx)
	case n >= 112:
		p.converse(ctx)
	case n >= 107:
		p.uploadPackages(ctx)
	case n >= 100:
		p.takePackages(ctx)
	case n < 40:
		p.send(ctx)
	case n < 48:
		p.sendBatch(ctx)
	case n < 62:
		p.confirm(ctx)
	case n < 67:
		p.wait(ctx)
	case n < 75:
		p.drain(ctx)
	case n < 83:
		p.peek(ctx)
	case n < 91:
		p.ack(ctx)
	case n < 94:
		p.uploadHybridKey(ctx)
	case n < 97:
		p.lookUp(ctx)
	case n < 98:
		p.changePassword(ctx)
	default:
		p.login(ctx)
	}
}

// note looks at the error of a call: a session that is over is given up.
func (p *Person) note(err error) {
	var status *client.StatusError
	switch {
	case err == nil:
	case errors.As(err, &status) && status.Status == pb.Status_Unauthorized:
		p.client.SetSession(client.Session{})
	case errors.As(err, &status) && (status.Status == pb.Status_Internal || status.Reason == pb.Reason_FRAME_TRUNCATED):
		p.world.History.Wrong(fmt.Sprintf("%s: %v", p.name, err))
	case errors.Is(err, client.ErrProtocol):
		p.world.History.Wrong(fmt.Sprintf("%s: %v", p.name, err))
	}
	if _, caught := client.EvidenceOf(err); caught {
		p.world.History.Wrong(fmt.Sprintf("%s: %v", p.name, err))
	}
}

func (p *Person) changePassword(ctx context.Context) {
	if len(p.passwords) > 1 {
		return
	}
	p.changes++
	next := fmt.Appendf(nil, "password %d of %s", p.changes, p.name)
	s := begin()
	session, err := p.client.ChangePassword(ctx, client.PasswordChange{
		Username: p.name, Old: p.passwords[0], New: next, DeviceKey: p.device,
	})
	s.finish()
	switch {
	case err == nil:
		p.setPasswords([][]byte{next})
		p.loggedIn(s, session)
		at := p.changes
		p.fact(s, "password change", func(m *Model) error {
			if a := m.Accounts[p.name]; a == nil || a.Changes == 0 || a.Changes > p.changes {
				return fmt.Errorf("%d changes were asked for, number %d was accepted, the record is %+v", p.changes, at, a)
			}
			return nil
		})
	case outcomeOf(err) == Refused:
		p.note(err)
	case errors.Is(err, client.ErrLoginFailed):
		p.world.History.Wrong(fmt.Sprintf("%s: the old password is refused", p.name))
	default:
		p.setPasswords(append(p.passwords, next))
	}
}

func (p *Person) newHybridKey() ([]byte, bool) {
	key, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		p.world.History.Wrong(err.Error())
		return nil, false
	}
	return key.PublicKey().Bytes(), true
}

// uploadHybridKey publishes a key in the KeySet that follows the newest one.
func (p *Person) uploadHybridKey(ctx context.Context) {
	if p.linkAfter > 0 && p.doings > p.linkAfter {
		p.rotateHybridKey(ctx) // for the devices that there are
		return
	}
	if p.unsure || p.keyset == nil && !p.learnKeySet(ctx) {
		return
	}
	key, ok := p.newHybridKey()
	if !ok {
		return
	}
	s := begin()
	next, err := p.client.UploadHybridKey(ctx, p.identity, p.keyset, key)
	s.finish()
	if err != nil {
		p.note(err)
		if outcomeOf(err) == Unknown {
			p.keyset = nil
		}
		return
	}
	p.keyset = next
	p.publishedFact(s, next)
}

// publishedFact remembers that the server accepted a KeySet.
func (p *Person) publishedFact(s span, next *pb.KeySet) {
	identity := p.IdentityKey()
	p.world.published(identity, next.Version)
	p.fact(s, "hybrid key", func(m *Model) error {
		if ks := m.KeySets[identity]; ks == nil || ks.Version < next.Version {
			return fmt.Errorf("KeySet %d is not there", next.Version)
		}
		return nil
	})
}

// learnKeySet asks for the own KeySet after an unknown outcome.
func (p *Person) learnKeySet(ctx context.Context) bool {
	resp, err := p.client.FetchHybridKey(ctx, &pb.FetchHybridKeyRequest{IdentityKey: slice(p.IdentityKey())})
	if p.note(err); err != nil {
		return false
	}
	p.keyset = resp.Keyset
	return true
}

// lookUp asks for others: their name and their newest key.
func (p *Person) lookUp(ctx context.Context) {
	other := p.other()
	key := other.IdentityKey()
	atLeast, published := p.world.newestKeySet(key)
	identity, device := p.world.fateOf(key), p.world.fateOf(other.DeviceKey())
	resp, err := p.client.FetchHybridKey(ctx, &pb.FetchHybridKeyRequest{IdentityKey: slice(key)})
	p.note(err)
	if p.judgeEnd(identity, p.world.fateOf(key).tried, device, resp, err); err == nil && resp.GetKeyset().GetVersion() < atLeast ||
		published && outcomeOf(err) == Refused && client.ReasonOf(err) == pb.Reason_NO_SUCH_KEY {
		p.world.History.Wrong(fmt.Sprintf("%s sees KeySet %d of %s after %d was accepted (%v)", p.name, resp.GetKeyset().GetVersion(), other.name, atLeast, err))
	}
}

func slice(k Key) []byte { return k[:] }

// other is somebody, at times oneself.
func (p *Person) other() *Person { return p.world.People[p.rng.IntN(len(p.world.People))] }
