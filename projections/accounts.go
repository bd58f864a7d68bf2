package projections

import (
	"encoding/binary"

	pb "quicprochat/proto/qpcv1"
)

// ID names an account, a channel, a message or a KeyPackage: 16 bytes, random but
// for a message's first six, the Unix milliseconds of its decision (decision 0012).
type ID = [16]byte

// Key is an Ed25519 public key: an identity's or a device's.
type Key = [32]byte

// Hash is a SHA-256 value: of a session token, of a request, of the views.
type Hash = [32]byte

// Account is one person on this server.
type Account struct {
	ID ID
	// Username is canonical (statement.CanonicalUsername).
	Username    string
	IdentityKey Key
	// RegistrationHash recognises a repeated registration with the same content.
	RegistrationHash Hash
	RegisteredMS     uint64
	// Devices are the active devices, oldest first.
	Devices []Key
}

// applyAccountRegistered creates account, first device and its queue. Names and
// keys are unique over all accounts; a name that key transparency knows can't
// be registered again even when no account has it any more, which the label of
// its version 0 tells (KTLabel).
func applyAccountRegistered(b *Batch, ev *pb.AccountRegistered, nowMS uint64) error {
	a, device, err := accountOf(ev, nowMS)
	if err != nil {
		return err
	}
	if _, found, err := b.get(keyOfID(b.scratch(), prefixAccount, a.ID)); err != nil || found {
		return orInvalid(err, "the account exists")
	}
	if _, found, err := b.get(nameKey(b.scratch(), a.Username)); err != nil || found {
		return orInvalid(err, "the name is taken")
	}
	for _, key := range [...]Key{a.IdentityKey, device} {
		if _, found, err := KeyOwner(b, key); err != nil || found {
			return orInvalid(err, "a key is in use")
		}
	}
	if err := b.putAccount(&a); err != nil {
		return err
	}
	if err := b.put(nameKey(b.scratch(), a.Username), a.ID[:]); err != nil {
		return err
	}
	owner := Owner{AccountID: a.ID, IsIdentity: true, IsDevice: a.IdentityKey == device}
	if err := b.putOwner(a.IdentityKey, owner); err != nil {
		return err
	}
	if err := b.addDevice(Device{Key: device, AccountID: a.ID, AddedMS: nowMS}); err != nil {
		return err
	}
	if err := applyRevocationLabels(b, ev.GetRevocationLabels(), a.IdentityKey, device); err != nil {
		return err
	}
	return b.putOpaqueRecord(a.ID, ev.GetOpaque())
}

// orInvalid is err, or the refusal when there is none.
func orInvalid(err error, refusal string) error {
	if err != nil {
		return err
	}
	return invalid("%s", refusal)
}

// accountOf reads the event's fields.
func accountOf(ev *pb.AccountRegistered, nowMS uint64) (a Account, device Key, err error) {
	if len(ev.GetUsername()) == 0 || len(ev.GetUsername()) > maxUsernameSize {
		return a, device, invalid("username of %d bytes", len(ev.GetUsername()))
	}
	a.Username, a.RegisteredMS = ev.GetUsername(), nowMS
	if a.ID, err = fieldID(ev.GetAccountId(), "account id"); err != nil {
		return a, device, err
	}
	if a.IdentityKey, err = field32(ev.GetIdentityKey(), "identity key"); err != nil {
		return a, device, err
	}
	if a.RegistrationHash, err = field32(ev.GetRegistrationHash(), "registration hash"); err != nil {
		return a, device, err
	}
	if device, err = field32(ev.GetDeviceKey(), "device key"); err != nil {
		return a, device, err
	}
	a.Devices = []Key{device}
	return a, device, nil
}

// maxUsernameSize is 32 characters of UTF-8, in bytes.
const maxUsernameSize = 4 * 32

func (b *Batch) putAccount(a *Account) error {
	row := append(b.row[:0], a.IdentityKey[:]...)
	row = append(row, a.RegistrationHash[:]...)
	row = binary.BigEndian.AppendUint64(row, a.RegisteredMS)
	row = appendBytes(row, a.Username)
	row = append(row, byte(len(a.Devices)))
	for _, device := range a.Devices {
		row = append(row, device[:]...)
	}
	b.row = row
	return b.put(keyOfID(b.scratch(), prefixAccount, a.ID), row)
}

func decodeAccount(in *rowReader) Account {
	a := Account{IdentityKey: in.array32(), RegistrationHash: in.array32(), RegisteredMS: in.u64()}
	a.Username = string(in.bytes())
	a.Devices = make([]Key, in.u8())
	for i := range a.Devices {
		a.Devices[i] = in.array32()
	}
	return a
}

// AccountByID finds an account by its id.
func AccountByID(r Reader, id ID) (Account, bool, error) {
	a, found, err := readRow(r, "accounts", keyOfID(r.scratch(), prefixAccount, id), decodeAccount)
	a.ID = id
	return a, found, err
}

// AccountByName finds an account by its canonical username.
func AccountByName(r Reader, canonical string) (Account, bool, error) {
	id, found, err := readRow(r, "account names", nameKey(r.scratch(), canonical), (*rowReader).id)
	if err != nil || !found {
		return Account{}, false, err
	}
	return AccountByID(r, id)
}

// AccountByKey finds the account whose identity key this is; a key that is only
// a device's, or is revoked or replaced, is not found.
func AccountByKey(r Reader, identityKey Key) (Account, bool, error) {
	owner, found, err := KeyOwner(r, identityKey)
	if err != nil || !found || !owner.IsIdentity || owner.Revoked {
		return Account{}, false, err
	}
	a, found, err := AccountByID(r, owner.AccountID)
	return a, found && a.IdentityKey == identityKey, err
}

// Owner tells whose a key is or was, and what for. A key may be both.
type Owner struct {
	AccountID  ID
	IsIdentity bool
	IsDevice   bool
	// Revoked tells that the key is good for nothing any more.
	Revoked bool
}

const (
	ownerIdentity = 1 << iota
	ownerDevice
	ownerRevoked
)

func (b *Batch) putOwner(key Key, o Owner) error {
	var flags byte
	if o.IsIdentity {
		flags |= ownerIdentity
	}
	if o.IsDevice {
		flags |= ownerDevice
	}
	if o.Revoked {
		flags |= ownerRevoked
	}
	b.row = append(append(b.row[:0], o.AccountID[:]...), flags)
	return b.put(keyOf32(b.scratch(), prefixKeyOwner, key), b.row)
}

// KeyOwner finds the account that an identity or device key belongs or ever
// belonged to: keys are unique over all accounts.
func KeyOwner(r Reader, key Key) (Owner, bool, error) {
	return readRow(r, "key owners", keyOf32(r.scratch(), prefixKeyOwner, key), func(in *rowReader) Owner {
		o := Owner{AccountID: in.id()}
		flags := in.u8()
		o.IsIdentity, o.IsDevice, o.Revoked = flags&ownerIdentity != 0, flags&ownerDevice != 0, flags&ownerRevoked != 0
		return o
	})
}
