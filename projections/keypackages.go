package projections

import (
	"encoding/binary"

	pb "quicprochat/proto/qpcv1"
)

// Each KeyPackage of a device has a row that recognises it by its hash, and one
// in an index by the hour in which its lifetime is over. Both outlive its use, so
// that it can't be uploaded again. Its bytes outlive it too, as long as whoever
// got it may ask again: a row in an index by hour says how long.
//
//	uploaded ──▶ waits ──taken──▶ used ──lifetime over──▶ forgotten
//	               │                └─ bytes: until the receipt's end
//	               └──lifetime over, device gone──▶ forgotten, with its bytes

// lastResortKeptMS is how long the bytes of a last resort are kept that another
// one replaced or whose lifetime ended, in milliseconds: as long as receipts may
// live that name it.
const lastResortKeptMS = 2 * dayMS

// hourOf is the first hour that begins when a time has come.
func hourOf(ms uint64) uint32 { return uint32((ms + hourMS - 1) / hourMS) }

// applyKeyPackagesUploaded stores packages of one device.
func applyKeyPackagesUploaded(b *Batch, ev *pb.KeyPackagesUploaded, nowMS uint64) error {
	device, err := b.activeDevice(ev.GetDeviceKey())
	if err != nil {
		return err
	}
	stocks, err := KeyPackageStocks(b, device.Key)
	if err != nil {
		return err
	}
	if len(ev.GetPackages()) == 0 {
		return invalid("an upload of no key packages")
	}
	for _, p := range ev.GetPackages() {
		if err := b.storePackage(device, &stocks, p, nowMS); err != nil {
			return err
		}
	}
	return b.putStocks(device.Key, stocks)
}

// activeDevice finds the device that an event is about.
func (b *Batch) activeDevice(deviceKey []byte) (Device, error) {
	key, err := field32(deviceKey, "device key")
	if err != nil {
		return Device{}, err
	}
	device, found, err := DeviceByKey(b, key)
	if err != nil || !found {
		return device, orInvalid(err, "the device is not active")
	}
	return device, nil
}

func uploadedPackage(ev *pb.KeyPackagesUploaded_Package, nowMS uint64) (p KeyPackage, err error) {
	p = KeyPackage{Number: ev.GetNumber(), Size: ev.GetSize(), ExpiresMS: ev.GetExpiresMs(), UploadedMS: nowMS}
	if p.ID, err = fieldID(ev.GetPackageId(), "package id"); err != nil {
		return p, err
	}
	if p.Hash, err = field32(ev.GetSha256(), "key package hash"); err != nil {
		return p, err
	}
	if p.Size == 0 || p.ExpiresMS <= nowMS || p.ExpiresMS > maxTimeMS {
		return p, invalid("a key package of %d bytes that expires at %d", p.Size, p.ExpiresMS)
	}
	return p, nil
}

func (b *Batch) storePackage(device Device, stocks *[]KeyPackageStock, ev *pb.KeyPackagesUploaded_Package, nowMS uint64) error {
	p, err := uploadedPackage(ev, nowMS)
	if err != nil {
		return err
	}
	if ev.GetCipherSuite() > 0xffff {
		return invalid("cipher suite %d", ev.GetCipherSuite())
	}
	suite := uint16(ev.GetCipherSuite())
	if _, found, err := readKnown(b, device.Key, p.Hash); err != nil || found {
		return orInvalid(err, "the key package was uploaded before")
	}
	stock, err := stockOf(stocks, suite)
	if err != nil {
		return err
	}
	if p.Number == 0 {
		if err := b.dropLastResort(device, stock, nowMS); err != nil {
			return err
		}
		stock.Last = p
	} else {
		if p.Number != stock.Next {
			return invalid("key package %d, the next is %d", p.Number, stock.Next)
		}
		stock.Next++
		stock.count++
		b.row = appendKeyPackage(b.row[:0], &p)
		if err := b.put(keyPackageKey(b.scratch(), device.Key, suite, p.Number), b.row); err != nil {
			return err
		}
	}
	if err := b.putKnown(device.Key, p.Hash, knownPackage{KeyPackageWaits, suite, p.Number}); err != nil {
		return err
	}
	b.row = binary.BigEndian.AppendUint64(b.row[:0], p.ExpiresMS)
	return b.put(keyPackageExpiryKey(b.scratch(), hourOf(p.ExpiresMS), device.Key, p.Hash), b.row)
}

// forgetPackage removes the rows that recognise a package and tell of its end.
func (b *Batch) forgetPackage(device Key, hash Hash, expiresMS uint64) error {
	if err := b.remove(knownPackageKey(b.scratch(), device, hash)); err != nil {
		return err
	}
	return b.remove(keyPackageExpiryKey(b.scratch(), hourOf(expiresMS), device, hash))
}

// dropLastResort takes the last resort of a stock away, if there is one. Its
// bytes stay for those who got it.
func (b *Batch) dropLastResort(device Device, s *KeyPackageStock, nowMS uint64) error {
	if s.Last.Size == 0 {
		return nil
	}
	last := s.Last
	s.Last = KeyPackage{}
	if err := b.forgetPackage(device.Key, last.Hash, last.ExpiresMS); err != nil {
		return err
	}
	return b.keepPackage(device.AccountID, last.ID, nowMS+lastResortKeptMS)
}

// keepPackage notes until when the bytes of a package are kept.
func (b *Batch) keepPackage(account, id ID, untilMS uint64) error {
	b.row = binary.BigEndian.AppendUint64(b.row[:0], untilMS)
	return b.put(keptPackageKey(b.scratch(), hourOf(untilMS), account, id), b.row)
}

// applyKeyPackagesTaken uses packages up; a last resort stays.
func applyKeyPackagesTaken(b *Batch, ev *pb.KeyPackagesTaken, nowMS uint64) error {
	until := ev.GetKeptUntilMs()
	if len(ev.GetPackages()) == 0 || until <= nowMS || until > maxTimeMS {
		return invalid("%d key packages taken, kept until %d", len(ev.GetPackages()), until)
	}
	for _, p := range ev.GetPackages() {
		device, err := b.activeDevice(p.GetDeviceKey())
		if err != nil {
			return err
		}
		stocks, err := KeyPackageStocks(b, device.Key)
		if err != nil {
			return err
		}
		if p.GetCipherSuite() > 0xffff {
			return invalid("cipher suite %d", p.GetCipherSuite())
		}
		stock, err := stockOf(&stocks, uint16(p.GetCipherSuite()))
		if err != nil {
			return err
		}
		id, err := fieldID(p.GetPackageId(), "package id")
		if err != nil {
			return err
		}
		if p.GetNumber() == 0 {
			if stock.Last.ID != id || !stock.Last.ValidAt(nowMS) {
				return invalid("a last resort that is not there")
			}
			continue
		}
		if err := b.usePackage(device, stock, p.GetNumber(), id, nowMS, until); err != nil {
			return err
		}
		if err := b.putStocks(device.Key, stocks); err != nil {
			return err
		}
	}
	return nil
}

func (b *Batch) usePackage(device Device, s *KeyPackageStock, number uint64, id ID, nowMS, untilMS uint64) error {
	p, found, err := packageAt(b, device.Key, s.Suite, number)
	if err != nil || !found || p.ID != id || !p.ValidAt(nowMS) {
		return orInvalid(err, "a key package that is not there")
	}
	if err := b.removePackage(device.Key, s, number); err != nil {
		return err
	}
	if err := b.putKnown(device.Key, p.Hash, knownPackage{KeyPackageUsed, s.Suite, number}); err != nil {
		return err
	}
	return b.keepPackage(device.AccountID, id, untilMS)
}

// removePackage removes the row of a package for one use and moves first beyond
// what is gone.
func (b *Batch) removePackage(device Key, s *KeyPackageStock, number uint64) error {
	if err := b.remove(keyPackageKey(b.scratch(), device, s.Suite, number)); err != nil {
		return err
	}
	if s.count--; s.count == 0 {
		s.first = s.Next
		return nil
	}
	for s.first < number {
		if _, found, err := packageAt(b, device, s.Suite, s.first); err != nil || found {
			return err
		}
		s.first++
	}
	if s.first == number {
		s.first++
	}
	return nil
}

// applyKeyPackagesExpired forgets packages whose lifetime is over.
func applyKeyPackagesExpired(b *Batch, ev *pb.KeyPackagesExpired, nowMS uint64) error {
	for _, p := range ev.GetPackages() {
		key, err := field32(p.GetDeviceKey(), "device key")
		if err != nil {
			return err
		}
		hash, err := field32(p.GetSha256(), "key package hash")
		if err != nil {
			return err
		}
		if p.GetExpiresMs() > nowMS {
			return invalid("a key package that expires at %d", p.GetExpiresMs())
		}
		if _, found, err := b.get(keyPackageExpiryKey(b.scratch(), hourOf(p.GetExpiresMs()), key, hash)); err != nil || !found {
			return orInvalid(err, "a key package that is not known")
		}
		if err := b.expirePackage(key, hash, nowMS); err != nil {
			return err
		}
		if err := b.forgetPackage(key, hash, p.GetExpiresMs()); err != nil {
			return err
		}
	}
	return nil
}

// expirePackage takes a package that still waits out of its stock.
func (b *Batch) expirePackage(key Key, hash Hash, nowMS uint64) error {
	known, found, err := readKnown(b, key, hash)
	if err != nil || !found || known.fate != KeyPackageWaits {
		return orInvalidIf(err, !found, "a key package that is not known")
	}
	device, found, err := DeviceByKey(b, key)
	if err != nil || !found {
		return orInvalid(err, "a key package waits at a device that is not active")
	}
	stocks, err := KeyPackageStocks(b, key)
	if err != nil {
		return err
	}
	stock, err := stockOf(&stocks, known.suite)
	if err != nil {
		return err
	}
	if known.number == 0 {
		if err := b.dropLastResort(device, stock, nowMS); err != nil {
			return err
		}
		return b.putStocks(key, stocks)
	}
	p, found, err := packageAt(b, key, known.suite, known.number)
	if err != nil || !found {
		return orInvalid(err, "a key package that waits is missing")
	}
	b.released = append(b.released, PayloadRef{Owner: device.AccountID, ID: p.ID})
	if err := b.removePackage(key, stock, known.number); err != nil {
		return err
	}
	return b.putStocks(key, stocks)
}

// orInvalidIf is err, or the refusal when there is reason for it, or nil.
func orInvalidIf(err error, reason bool, refusal string) error {
	if err == nil && !reason {
		return nil
	}
	return orInvalid(err, refusal)
}

// applyKeyPackagesReleased releases the bytes of packages that nobody can ask for
// any more.
func applyKeyPackagesReleased(b *Batch, ev *pb.KeyPackagesReleased, nowMS uint64) error {
	for _, p := range ev.GetPackages() {
		account, err := fieldID(p.GetAccountId(), "account id")
		if err != nil {
			return err
		}
		id, err := fieldID(p.GetPackageId(), "package id")
		if err != nil {
			return err
		}
		if p.GetKeptUntilMs() > nowMS {
			return invalid("a key package that is kept until %d", p.GetKeptUntilMs())
		}
		hour := hourOf(p.GetKeptUntilMs())
		if _, found, err := b.get(keptPackageKey(b.scratch(), hour, account, id)); err != nil || !found {
			return orInvalid(err, "a key package that is not kept")
		}
		if err := b.remove(keptPackageKey(b.scratch(), hour, account, id)); err != nil {
			return err
		}
		b.released = append(b.released, PayloadRef{Owner: account, ID: id})
	}
	return nil
}

// removeKeyPackages removes what waits at a device that leaves, with its bytes.
// What was used stays known until its lifetime is over, and its bytes as long as
// whoever got it may ask again.
func (b *Batch) removeKeyPackages(device Device) error {
	stocks, err := KeyPackageStocks(b, device.Key)
	if err != nil || len(stocks) == 0 {
		return err
	}
	for i := range stocks {
		s := &stocks[i]
		waiting, err := KeyPackagesOf(b, device.Key, s)
		if err != nil {
			return err
		}
		for _, p := range waiting {
			if err := b.remove(keyPackageKey(b.scratch(), device.Key, s.Suite, p.Number)); err != nil {
				return err
			}
		}
		if s.Last.Size > 0 {
			waiting = append(waiting, s.Last)
		}
		for _, p := range waiting {
			b.released = append(b.released, PayloadRef{Owner: device.AccountID, ID: p.ID})
			if err := b.forgetPackage(device.Key, p.Hash, p.ExpiresMS); err != nil {
				return err
			}
		}
	}
	return b.remove(keyOf32(b.scratch(), prefixKeyPackageStock, device.Key))
}
