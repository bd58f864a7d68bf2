package kt

import (
	"bytes"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// Person is what the log says about a username.
type Person struct {
	Username string
	// Bindings are the versions shown, oldest first; empty if the username was never
	// registered.
	Bindings []Binding
	// Gone means that the account was deleted; nobody has the name any more, and
	// Identity is nil.
	Gone bool
	// Identity is that of the newest binding.
	Identity *Identity
}

// Exists reports whether somebody has the username.
func (p *Person) Exists() bool { return p.Identity != nil }

// Known is what to ask the next time with; nil for a name that nobody has.
func (p *Person) Known() *KnownPerson {
	if !p.Exists() || p.Identity.KeySet == nil {
		return nil
	}
	known := p.Identity.Known()
	known.AccountVersion = p.Bindings[len(p.Bindings)-1].Version
	return known
}

// Binding is one version of whose name a username is.
type Binding struct {
	Version uint32
	// Opened is false for a version whose content was erased; the fields below are
	// empty then.
	Opened      bool
	IdentityKey []byte
	// Authority is FIRST; OLD_KEY, which both keys signed; or ADMINISTRATOR, which
	// is the server's word alone: show it to the person.
	Authority pb.Authority
	Tombstone bool
}

// Identity is what the log says about an identity key.
type Identity struct {
	Key []byte
	// KeySet is the newest one; nil if the key is none of an identity, or Gone.
	KeySet *pb.KeySet
	// Raw is the KeySet as it stands in the log.
	Raw []byte
	// Versions is the number of versions, from 0 on.
	Versions uint32
	// Gone means that the identity was deleted.
	Gone bool
	// Revocation is that of the identity key; nil if there is none.
	Revocation *Revocation
	// DeviceRevocations are those of keys in the KeySet, by key.
	DeviceRevocations map[string]*Revocation
	first             *pb.KeySet // version 0, if it was shown
	size              uint64     // of the log that showed it
}

// Known is what to ask the next time with; nil if the identity has no KeySet.
func (i *Identity) Known() *KnownPerson {
	if i.KeySet == nil {
		return nil
	}
	return &KnownPerson{IdentityKey: i.Key, KeySet: i.Raw, Size: i.size}
}

// DeviceKeys are the keys of the KeySet that are not revoked; none once the
// identity key is, for nobody can tell then who made the KeySet.
func (i *Identity) DeviceKeys() [][]byte {
	if i.Revocation != nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(i.KeySet.GetDeviceKeys()), func(key []byte) bool {
		return i.DeviceRevocations[string(key)] != nil
	})
}

// keySet parses what is remembered.
func (k *KnownPerson) keySet() (*pb.KeySet, error) {
	ks := new(pb.KeySet)
	if err := proto.Unmarshal(k.KeySet, ks); err != nil {
		return nil, fmt.Errorf("%w: known KeySet: %w", ErrState, err)
	}
	if !bytes.Equal(ks.GetIdentityKey(), k.IdentityKey) {
		return nil, fmt.Errorf("%w: the known KeySet is of another identity", ErrState)
	}
	return ks, nil
}

// entryValue is the value of a KT event, which must be about that id and version.
// A revocation or a tombstone outlives its account and may leave the id out.
func entryValue(kind Kind, id []byte, number uint32, event []byte) ([]byte, error) {
	ev := new(pb.Event)
	if err := proto.Unmarshal(event, ev); err != nil {
		return nil, evidence(StepEvent, "version %d of %v %x: %w", number, kind, id, err)
	}
	entry := ev.GetKeyTransparencyEntry()
	if entry == nil || entry.GetKind() != uint32(kind) || entry.GetVersion() != number {
		return nil, evidence(StepEvent, "version %d of %v %x holds another event: kind %d, version %d", number, kind, id, entry.GetKind(), entry.GetVersion())
	}
	nameless := len(entry.GetId()) == 0 && (kind == KindRevocation || isTombstone(kind, entry.GetValue()))
	if !nameless && !bytes.Equal(entry.GetId(), id) {
		return nil, evidence(StepEvent, "version %d of %v %x holds an event about %x", number, kind, id, entry.GetId())
	}
	return entry.GetValue(), nil
}

// isTombstone reports whether a value says that account or identity is gone: the
// AccountBinding says so; of an identity there is no KeySet.
func isTombstone(kind Kind, value []byte) bool {
	switch kind {
	case KindAccount:
		b := new(pb.AccountBinding)
		return proto.Unmarshal(value, b) == nil && b.GetTombstone()
	case KindIdentity:
		return len(value) == 0
	}
	return false
}

// person reads account(0..v), identity(0..w) of the newest binding, and the
// revocations of its keys.
func (h *histories) person(username string, known *KnownPerson) (*Person, error) {
	from := uint32(0)
	if known != nil {
		from = known.AccountVersion
	}
	versions, err := h.next(KindAccount, []byte(username), from)
	if err != nil {
		return nil, err
	}
	if known != nil && (len(versions) == 0 || versions[len(versions)-1].number < from) {
		return nil, evidence(StepMap, "%s had version %d, which is gone", username, from)
	}
	p := &Person{Username: username}
	chain := bindings{serverName: h.serverName, username: username, known: known}
	for i, v := range versions {
		b, err := chain.read(v, i == len(versions)-1)
		if err != nil {
			return nil, err
		}
		p.Bindings = append(p.Bindings, b)
	}
	h.statements = append(h.statements, chain.signatures...)
	if len(versions) == 0 {
		return p, nil
	}
	newest := p.Bindings[len(p.Bindings)-1]
	if p.Gone = newest.Tombstone; p.Gone {
		return p, nil
	}
	for _, b := range p.Bindings {
		if !b.Opened && (known == nil || b.Version > known.AccountVersion) {
			// It could be a tombstone, after which nothing is valid.
			return nil, evidence(StepOpening, "binding %d of %s is not opened, and the account is not gone", b.Version, username)
		}
	}
	if p.Identity, err = h.identity(newest.IdentityKey, known, true); err != nil {
		return nil, err
	}
	if p.Identity.Versions == 0 {
		return nil, evidence(StepKeySet, "%s is bound to the key %x, which has no KeySet", username, newest.IdentityKey)
	}
	return p, chain.handedOver(p.Identity.first)
}

// bindings checks the versions of an account one after the other.
type bindings struct {
	serverName, username string
	known                *KnownPerson
	key                  []byte // of the version before; nil if it was not opened
	hash                 []byte // KeySet hash of the newest hand-over checked
	signatures           []func() error
}

func (c *bindings) read(v version, newest bool) (Binding, error) {
	b := Binding{Version: v.number, Opened: v.opened}
	before := c.key
	c.key, c.hash = nil, nil
	wrong := func(step Step, format string, args ...any) (Binding, error) {
		return Binding{}, evidence(step, "binding %d of %s: "+format, append([]any{v.number, c.username}, args...)...)
	}
	seen := c.known != nil && v.number <= c.known.AccountVersion
	if seen && v.number == c.known.AccountVersion {
		c.key = c.known.IdentityKey
	}
	if !v.opened {
		return b, nil
	}
	m := new(pb.AccountBinding)
	if err := proto.Unmarshal(v.value, m); err != nil {
		return wrong(StepBinding, "%w", err)
	}
	b.IdentityKey, b.Authority, b.Tombstone = m.GetIdentityKey(), m.GetAuthority(), m.GetTombstone()
	signatures := len(m.GetOldSignature()) + len(m.GetNewSignature()) + len(m.GetKeySetHash())
	switch {
	case b.Tombstone && !newest:
		return wrong(StepTombstone, "a version follows the tombstone")
	case b.Tombstone && (v.number == 0 || len(b.IdentityKey)+signatures > 0):
		return wrong(StepTombstone, "the tombstone is the first version, or holds keys")
	case b.Tombstone:
		return b, nil
	case seen && c.key != nil && !bytes.Equal(c.key, b.IdentityKey):
		return wrong(StepBinding, "it was to key %x, and is to %x", c.key, b.IdentityKey)
	}
	if err := ValidatePublicKey(b.IdentityKey); err != nil {
		return wrong(StepBinding, "%w", err)
	}
	c.key = b.IdentityKey
	switch {
	case (v.number == 0) != (b.Authority == pb.Authority_FIRST),
		b.Authority != pb.Authority_FIRST && b.Authority != pb.Authority_OLD_KEY && b.Authority != pb.Authority_ADMINISTRATOR,
		b.Authority != pb.Authority_OLD_KEY && signatures > 0:
		return wrong(StepBinding, "authority %v", b.Authority)
	case b.Authority != pb.Authority_OLD_KEY || seen:
		return b, nil
	case before == nil:
		return wrong(StepOpening, "the key that signed it is in a version that is not opened")
	}
	if len(m.GetKeySetHash()) != len(Hash{}) {
		return wrong(StepBinding, "a KeySet hash of %d bytes", len(m.GetKeySetHash()))
	}
	c.hash = m.GetKeySetHash()
	s := statement.Successor{
		ServerName: c.serverName, Username: c.username, OldKey: before, NewKey: b.IdentityKey,
		KeySetHash: [32]byte(m.GetKeySetHash()),
	}
	c.signatures = append(c.signatures, func() error {
		err := s.Verify(s.OldKey, m.GetOldSignature())
		if err == nil {
			err = s.Verify(s.NewKey, m.GetNewSignature())
		}
		if err != nil {
			return evidence(StepBinding, "binding %d of %s: %w", v.number, c.username, err)
		}
		return nil
	})
	return b, nil
}

// handedOver compares the KeySet that the newest hand-over names with the new
// identity's first one, if that is shown.
func (c *bindings) handedOver(first *pb.KeySet) error {
	if c.hash == nil || first == nil {
		return nil
	}
	if hash := statement.KeySetHash(c.serverName, first); !bytes.Equal(hash[:], c.hash) {
		return evidence(StepBinding, "%s was handed over with another first KeySet than the one shown", c.username)
	}
	return nil
}
