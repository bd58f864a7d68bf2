package projections

import (
	"encoding/binary"

	pb "quicprochat/proto/qpcv1"
)

// Device is one device of an account. It has a queue as long as it is active.
type Device struct {
	Key       Key
	AccountID ID
	AddedMS   uint64
}

// addDevice makes a device active: whose it is, and its empty queue.
func (b *Batch) addDevice(d Device) error {
	owner, found, err := KeyOwner(b, d.Key)
	if err != nil {
		return err
	}
	if !found {
		owner.AccountID = d.AccountID
	}
	owner.IsDevice = true
	if err := b.putOwner(d.Key, owner); err != nil {
		return err
	}
	b.row = append(b.row[:0], d.AccountID[:]...)
	b.row = binary.BigEndian.AppendUint64(b.row, d.AddedMS)
	if err := b.put(keyOf32(b.scratch(), prefixDevice, d.Key), b.row); err != nil {
		return err
	}
	queue := QueueState{Owner: d.AccountID, NextSeq: 1, Head: 1}
	return b.putQueue(d.Key, &queue)
}

// maxAccountDevices is what an account's row has room for.
const maxAccountDevices = 255

// applyDeviceRegistered makes one more device active. It may take over the queue
// of another one of the account, which then has an empty one until its revocation
// follows.
func applyDeviceRegistered(b *Batch, ev *pb.DeviceRegistered, nowMS uint64) error {
	id, err := fieldID(ev.GetAccountId(), "account id")
	if err != nil {
		return err
	}
	device, err := field32(ev.GetDeviceKey(), "device key")
	if err != nil {
		return err
	}
	account, found, err := AccountByID(b, id)
	if err != nil || !found || len(account.Devices) >= maxAccountDevices {
		return orInvalid(err, "the account does not exist, or has no room for a device")
	}
	if _, found, err := KeyOwner(b, device); err != nil || found {
		return orInvalid(err, "the key is in use")
	}
	account.Devices = append(account.Devices, device)
	if err := b.putAccount(&account); err != nil {
		return err
	}
	if err := b.addDevice(Device{Key: device, AccountID: id, AddedMS: nowMS}); err != nil {
		return err
	}
	if label := ev.GetRevocationLabel(); label != nil {
		if err := applyRevocationLabels(b, []*pb.RevocationLabel{label}, device); err != nil {
			return err
		}
	}
	if len(ev.GetReplaces()) == 0 {
		return nil
	}
	from, q, err := b.queueOf(ev.GetReplaces())
	if err != nil {
		return err
	}
	if q.Owner != id || from == device {
		return invalid("the replaced device is none of the account's")
	}
	return b.moveQueue(from, device, &q)
}

// removeDeviceState removes what belongs to a device and goes with it: its
// KeyPackages and its queue. Whatever else is kept by device is removed here too.
func (b *Batch) removeDeviceState(account ID, device Key) error {
	if err := b.removeKeyPackages(Device{Key: device, AccountID: account}); err != nil {
		return err
	}
	return b.removeQueue(device)
}

// DeviceByKey finds an active device.
func DeviceByKey(r Reader, key Key) (Device, bool, error) {
	d, found, err := readRow(r, "devices", keyOf32(r.scratch(), prefixDevice, key), func(in *rowReader) Device {
		return Device{AccountID: in.id(), AddedMS: in.u64()}
	})
	d.Key = key
	return d, found, err
}

// DeviceActive tells whether the key is that of an active device.
func DeviceActive(r Reader, key Key) (bool, error) {
	_, found, err := r.get(keyOf32(r.scratch(), prefixDevice, key))
	return found, err
}

// DevicesOf appends the active devices of an account to dst, oldest first; it
// reads less than AccountByID.
func DevicesOf(r Reader, dst []Key, account ID) ([]Key, bool, error) {
	value, found, err := r.get(keyOfID(r.scratch(), prefixAccount, account))
	if err != nil || !found {
		return dst, false, err
	}
	in := rowReader{rest: value}
	in.take(len(Key{}) + len(Hash{}) + 8)
	in.bytes()
	for range in.u8() {
		dst = append(dst, in.array32())
	}
	if err := in.end("accounts"); err != nil {
		return nil, false, r.fault(err)
	}
	return dst, true, nil
}
