package projections

import (
	"encoding/binary"

	pb "quicprochat/proto/qpcv1"
)

// Reset is a token that was issued and not used: it registers an account's name
// anew.
type Reset struct {
	TokenHash Hash
	// ExpiresMS is from when on it is good for nothing, Unix milliseconds.
	ExpiresMS uint64
	// Way is how whoever issued it came to the server.
	Way pb.Actor_Way
}

// applyResetIssued keeps a token in place of the one before: an account has one
// row until it is used, so nothing has to sweep them.
func applyResetIssued(b *Batch, ev *pb.ResetIssued, nowMS uint64) error {
	account, err := fieldID(ev.GetAccountId(), "account id")
	if err != nil {
		return err
	}
	token, err := field32(ev.GetTokenHash(), "token hash")
	if err != nil {
		return err
	}
	if _, found, err := b.get(keyOfID(b.scratch(), prefixAccount, account)); err != nil || !found {
		return orInvalid(err, "the account does not exist")
	}
	if ev.GetExpiresMs() <= nowMS {
		return invalid("a token that is good for nothing")
	}
	if err := checkActor(b, ev.GetActor()); err != nil {
		return err
	}
	way := ev.GetActor().GetWay()
	if way == pb.Actor_SESSION {
		return invalid("a reset is issued on the server's machine")
	}
	b.row = binary.BigEndian.AppendUint64(append(b.row[:0], token[:]...), ev.GetExpiresMs())
	b.row = append(b.row, byte(way))
	return b.put(keyOfID(b.scratch(), prefixReset, account), b.row)
}

// ResetOf finds the token that was issued for an account and not used yet; it may
// have expired.
func ResetOf(r Reader, account ID) (Reset, bool, error) {
	return readRow(r, "resets", keyOfID(r.scratch(), prefixReset, account), func(in *rowReader) Reset {
		return Reset{TokenHash: in.array32(), ExpiresMS: in.u64(), Way: pb.Actor_Way(in.u8())}
	})
}

// applyAccountReset begins an account anew under its name. What it had must have
// ended before: the revocations of its identity key and devices did that.
func applyAccountReset(b *Batch, ev *pb.AccountReset, nowMS uint64) error {
	account, device, err := b.resetAccount(ev)
	if err != nil {
		return err
	}
	reset, found, err := ResetOf(b, account.ID)
	if err != nil || !found || nowMS >= reset.ExpiresMS {
		return orInvalid(err, "no token was issued, or it has expired")
	}
	if err := b.remove(keyOfID(b.scratch(), prefixReset, account.ID)); err != nil {
		return err
	}
	sessions, err := sessionTokens(b, account.ID)
	if err != nil {
		return err
	}
	for _, token := range sessions {
		if err := b.endSession(token); err != nil {
			return err
		}
	}
	if err := b.putAccount(&account); err != nil {
		return err
	}
	owner := Owner{AccountID: account.ID, IsIdentity: true, IsDevice: account.IdentityKey == device}
	if err := b.putOwner(account.IdentityKey, owner); err != nil {
		return err
	}
	if err := b.addDevice(Device{Key: device, AccountID: account.ID, AddedMS: nowMS}); err != nil {
		return err
	}
	if err := applyRevocationLabels(b, ev.GetRevocationLabels(), account.IdentityKey, device); err != nil {
		return err
	}
	return b.replaceOpaqueRecord(account.ID, ev.GetOpaque())
}

// resetAccount is the account as it will be, with its first device.
func (b *Batch) resetAccount(ev *pb.AccountReset) (account Account, device Key, err error) {
	id, err := fieldID(ev.GetAccountId(), "account id")
	if err != nil {
		return account, device, err
	}
	account, found, err := AccountByID(b, id)
	if err != nil || !found {
		return account, device, orInvalid(err, "the account does not exist")
	}
	owner, _, err := KeyOwner(b, account.IdentityKey)
	if err != nil || !owner.Revoked || len(account.Devices) > 0 {
		return account, device, orInvalid(err, "the identity key or a device of before is not revoked")
	}
	if account.IdentityKey, err = field32(ev.GetIdentityKey(), "identity key"); err != nil {
		return account, device, err
	}
	if account.RegistrationHash, err = field32(ev.GetRegistrationHash(), "registration hash"); err != nil {
		return account, device, err
	}
	if device, err = field32(ev.GetDeviceKey(), "device key"); err != nil {
		return account, device, err
	}
	for _, key := range [...]Key{account.IdentityKey, device} {
		if _, found, err := KeyOwner(b, key); err != nil || found {
			return account, device, orInvalid(err, "a key is in use")
		}
	}
	account.Devices = []Key{device}
	return account, device, nil
}
