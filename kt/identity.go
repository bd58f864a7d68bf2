package kt

import (
	"bytes"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// identity reads identity(0..w) and the revocations of the identity key and of
// every device key in the newest KeySet: each of them may have signed something.
// newest says that the identity has not been replaced by another.
func (h *histories) identity(key []byte, known *KnownPerson, newest bool) (*Identity, error) {
	i := &Identity{Key: key}
	if err := h.keySets(i, known); err != nil {
		return nil, err
	}
	var err error
	if i.Revocation, err = h.revocation(key, key, true); err != nil {
		return nil, err
	}
	i.DeviceRevocations = map[string]*Revocation{}
	for _, device := range i.KeySet.GetDeviceKeys() {
		if bytes.Equal(device, key) {
			if i.Revocation != nil {
				i.DeviceRevocations[string(device)] = i.Revocation
			}
			continue
		}
		r, err := h.revocation(device, key, newest)
		if err != nil {
			return nil, err
		}
		if r != nil {
			i.DeviceRevocations[string(device)] = r
		}
	}
	return i, nil
}

// keySets reads the versions of an identity, which chain by the hash of the one
// before as far as they are opened.
func (h *histories) keySets(i *Identity, known *KnownPerson) error {
	var last *pb.KeySet // the known one
	from := uint32(0)
	if known != nil && bytes.Equal(known.IdentityKey, i.Key) {
		var err error
		if last, err = known.keySet(); err != nil {
			return err
		}
		from = last.GetVersion()
	}
	versions, err := h.next(KindIdentity, i.Key, from)
	if err != nil {
		return err
	}
	if last != nil && (len(versions) == 0 || versions[len(versions)-1].number < from) {
		return evidence(StepMap, "identity %x had version %d, which is gone", i.Key, from)
	}
	var before *pb.KeySet
	for n, v := range versions {
		i.Versions = v.number + 1
		switch {
		case !v.opened && last != nil && v.number == last.GetVersion():
			before = last
			continue
		case !v.opened:
			before = nil
			continue
		case len(v.value) == 0:
			if n != len(versions)-1 || v.number == 0 {
				return evidence(StepTombstone, "identity %x: version %d is a tombstone, of %d versions", i.Key, v.number, len(versions))
			}
			i.KeySet, i.Raw, i.Gone = nil, nil, true
			return nil
		}
		ks, err := h.keySet(i.Key, v, before)
		if err != nil {
			return err
		}
		if last != nil && v.number == last.GetVersion() && !bytes.Equal(v.value, known.KeySet) {
			return evidence(StepKeySet, "identity %x: version %d is another KeySet than it was", i.Key, v.number)
		}
		if v.number == 0 {
			i.first = ks
		}
		before, i.KeySet, i.Raw = ks, ks, v.value
	}
	return nil
}

// keySet reads one KeySet; its signature is checked later.
func (h *histories) keySet(identity []byte, v version, before *pb.KeySet) (*pb.KeySet, error) {
	ks := new(pb.KeySet)
	if err := proto.Unmarshal(v.value, ks); err != nil {
		return nil, evidence(StepKeySet, "identity %x, version %d: %w", identity, v.number, err)
	}
	if !bytes.Equal(ks.GetIdentityKey(), identity) || ks.GetVersion() != v.number {
		return nil, evidence(StepKeySet, "identity %x, version %d holds version %d of %x", identity, v.number, ks.GetVersion(), ks.GetIdentityKey())
	}
	if n := len(ks.GetDeviceKeys()); n > statement.MaxDeviceKeys {
		return nil, evidence(StepKeySet, "identity %x, version %d has %d device keys", identity, v.number, n)
	}
	for _, device := range ks.GetDeviceKeys() {
		if len(device) != 32 {
			return nil, evidence(StepKeySet, "identity %x, version %d has a device key of %d bytes", identity, v.number, len(device))
		}
	}
	if before != nil {
		if err := statement.VerifySuccessor(h.serverName, before, ks); err != nil {
			return nil, evidence(StepKeySet, "identity %x, version %d: %w", identity, v.number, err)
		}
	}
	h.statements = append(h.statements, func() error {
		if err := statement.VerifyKeySet(h.serverName, ks); err != nil {
			return evidence(StepKeySet, "identity %x, version %d: %w", identity, v.number, err)
		}
		return nil
	})
	return ks, nil
}

// Revocation says that a key is out of use for ever.
type Revocation struct {
	Reason statement.RevocationReason
	// TimeMS is the server's, Unix milliseconds.
	TimeMS uint64
	// Authority is KEY or IDENTITY, signed; or SESSION_LOGIN or ADMINISTRATOR: the
	// server's word, which can only deny.
	Authority pb.Authority
	// Signed says that the key itself, or the identity key that it belongs to,
	// signed. It is false for a revocation on the server's word, and for one by
	// another identity key than the query named: a device may have gone over to its
	// person's next identity.
	Signed bool
}

// RevocationStatus is what the log says about one key.
type RevocationStatus struct {
	Key []byte
	// Revocation is nil if the key is not revoked; whether it was ever registered
	// the map does not say.
	Revocation *Revocation
}

func (h *histories) revocationOf(key, owner []byte) (*RevocationStatus, error) {
	r, err := h.revocation(key, owner, false)
	return &RevocationStatus{Key: key, Revocation: r}, err
}

// revocation reads the revocation of key, or that there is none. owner is the
// identity key that it belongs to, itself if it is one; nil if it is not known.
// current says that it still belongs to owner, so nobody else can have signed.
func (h *histories) revocation(key, owner []byte, current bool) (*Revocation, error) {
	versions, err := h.next(KindRevocation, key, 0)
	if err != nil || len(versions) == 0 {
		return nil, err
	}
	m := new(pb.Revocation)
	if err := proto.Unmarshal(versions[0].value, m); err != nil {
		return nil, evidence(StepRevocation, "of key %x: %w", key, err)
	}
	r := &Revocation{Reason: statement.RevocationReason(m.GetReason()), TimeMS: m.GetTimeMs(), Authority: m.GetAuthority()}
	check := func(signer []byte) error {
		return statement.Revoke{ServerName: h.serverName, Key: key, Reason: r.Reason}.Verify(signer, m.GetSignature())
	}
	signer := key
	switch r.Authority {
	case pb.Authority_KEY:
	case pb.Authority_IDENTITY:
		if !current {
			r.Signed = owner != nil && check(owner) == nil
			return r, nil
		}
		signer = owner
	case pb.Authority_SESSION_LOGIN, pb.Authority_ADMINISTRATOR:
		if len(m.GetSignature()) > 0 {
			return nil, evidence(StepRevocation, "of key %x: %v does not sign", key, r.Authority)
		}
		return r, nil
	default:
		return nil, evidence(StepRevocation, "of key %x: authority %v", key, r.Authority)
	}
	r.Signed = true
	h.statements = append(h.statements, func() error {
		if err := check(signer); err != nil {
			return evidence(StepRevocation, "of key %x by %v: %w", key, r.Authority, err)
		}
		return nil
	})
	return r, nil
}
