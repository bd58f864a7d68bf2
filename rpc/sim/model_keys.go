package sim

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// What the model knows of keys that end and of administrators.

func (m *Model) changeRole(ev *pb.RoleChanged) error {
	a := m.ids[ID(ev.AccountId)]
	if a == nil || a.Role == ev.Role || ev.Actor == nil {
		return fmt.Errorf("role %v of nobody, of an account that has it, or by nobody", ev.Role)
	}
	a.Role = ev.Role
	return nil
}

func (m *Model) namesAdministrator(ev *pb.KeyRevoked) error {
	if ev.Actor.GetWay() == pb.Actor_SESSION && m.ids[ID(ev.Actor.AccountId)].Role != pb.Role_ADMIN {
		return errors.New("a key was revoked by somebody who is no administrator")
	}
	return nil
}

// replaceIdentity changes nothing but the key.
func (m *Model) replaceIdentity(ev *pb.IdentityReplaced) error {
	a := m.ids[ID(ev.AccountId)]
	if a == nil || !bytes.Equal(a.Identity[:], ev.OldKey) || m.KeySets[Key(ev.NewKey)] != nil || m.Revoked[Key(ev.NewKey)] != nil {
		return errors.New("an identity that is none was replaced, or by a key that is known")
	}
	a.Identity = Key(ev.NewKey)
	m.bearers[a.Identity] = a.ID
	return nil
}

func (m *Model) issueReset(ev *pb.ResetIssued) error {
	a := m.ids[ID(ev.AccountId)]
	if a == nil || ev.Actor == nil || ev.Actor.GetWay() == pb.Actor_SESSION {
		return errors.New("a reset for nobody, or by nobody on the machine")
	}
	a.Reset = ev
	return nil
}

// reset leaves nothing of an account but its name and role.
func (m *Model) reset(ev *pb.AccountReset, now uint64) error {
	a, device := m.ids[ID(ev.AccountId)], Key(ev.DeviceKey)
	switch {
	case a == nil || a.Reset == nil || now >= a.Reset.ExpiresMs:
		return errors.New("an account was reset without a token")
	case m.Revoked[a.Identity] == nil || len(a.Devices) > 0:
		return errors.New("an account was reset that still has keys")
	case m.Queues[device] != nil || m.Revoked[device] != nil || m.KeySets[Key(ev.IdentityKey)] != nil || m.Revoked[Key(ev.IdentityKey)] != nil:
		return errors.New("an account was reset to a key that is known")
	case ev.Opaque.Version != a.Version+1:
		return fmt.Errorf("a reset to version %d of the password, out of turn", ev.Opaque.Version)
	}
	for token, s := range m.Sessions {
		if s.Account == a.ID {
			delete(m.Sessions, token)
		}
	}
	a.Identity, a.Devices, a.Reset = Key(ev.IdentityKey), []Key{device}, nil
	m.bearers[a.Identity] = a.ID
	a.Upload, a.Version = ev.Opaque.Upload, ev.Opaque.Version
	m.Queues[device] = newQueue(a.ID)
	return nil
}

// beginGeneration takes back what a lost end of the log may have moved on.
func (m *Model) beginGeneration() {
	m.begun = true
	m.spendPackages()
	clear(m.Sessions)
	for _, a := range m.Accounts {
		a.Reset = nil
	}
	for _, q := range m.Queues {
		if !q.Closed {
			q.Next += 1 << 32
		}
	}
	for _, c := range m.Channels {
		c.LastSeq += 1 << 32
	}
}

// revoke ends whatever the key was good for.
func (m *Model) revoke(ev *pb.KeyTransparencyEntry) error {
	key, r := Key(ev.Id), new(pb.Revocation)
	if err := unmarshal(ev.Value, r); err != nil {
		return err
	}
	if m.Revoked[key] != nil || r.TimeMs != m.TimeMS {
		return fmt.Errorf("key %x was revoked twice, or at another time", key[:4])
	}
	m.Revoked[key] = r
	known := m.KeySets[key] != nil
	for _, a := range m.Accounts {
		all := a.Identity == key
		for token, s := range m.Sessions {
			if s.Account == a.ID && (all || s.Device == key) {
				delete(m.Sessions, token)
			}
		}
		for _, device := range a.Devices {
			if all || device == key {
				m.removePackages(device)
			}
		}
		if i := slices.Index(a.Devices, key); i >= 0 {
			a.Devices = slices.Delete(slices.Clone(a.Devices), i, i+1)
		}
	}
	if q := m.Queues[key]; q != nil {
		m.remove(q, "revoked", func(Item) bool { return true })
		q.Closed, known = true, true
	}
	if !known {
		return fmt.Errorf("key %x was revoked and is nobody's", key[:4])
	}
	return nil
}

// compareKeys holds roles and revocations of the views against the model.
func compareKeys(r projections.Reader, m *Model) error {
	for name, a := range m.Accounts {
		if role, err := projections.RoleOf(r, a.ID); err != nil || role != a.Role {
			return fmt.Errorf("account %s is %v, not %v (%v)", name, role, a.Role, err)
		}
	}
	for name, a := range m.Accounts {
		if reset, found, err := projections.ResetOf(r, a.ID); err != nil || found != (a.Reset != nil) || reset.ExpiresMS != a.Reset.GetExpiresMs() {
			return fmt.Errorf("account %s has the reset %v, not %v (%v)", name, reset, a.Reset, err)
		}
	}
	for key, want := range m.Revoked {
		got, found, err := projections.Revocation(r, key)
		if err != nil || !found || !proto.Equal(got, want) {
			return fmt.Errorf("revocation of %x: found %v, %v, not %v (%v)", key[:4], found, got, want, err)
		}
		owner, found, err := projections.KeyOwner(r, key)
		if err != nil || !found || !owner.Revoked {
			return fmt.Errorf("key %x counts as good: %v (%v)", key[:4], owner, err)
		}
		if active, err := projections.DeviceActive(r, key); err != nil || active {
			return fmt.Errorf("the revoked device %x is active (%v)", key[:4], err)
		}
	}
	return nil
}
