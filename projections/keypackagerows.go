package projections

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
)

// KeyPackageStock is what one device has of one cipher suite: KeyPackages for one
// use, numbered in the order of their upload, and a last resort.
//
//	1 … │ gone │ waiting │ not assigned yet
//	         first       next
//
// What is between first and next may be gone too.
type KeyPackageStock struct {
	Suite uint16
	// Next is the number that the next package must have; the first is 1.
	Next uint64
	// Last is the last resort; without one its Size is 0.
	Last KeyPackage

	first uint64
	count uint32 // packages for one use that are there
}

// KeyPackage is one stored KeyPackage. Its bytes are a payload of the device's
// account.
type KeyPackage struct {
	ID ID
	// Number is 0 for a last resort.
	Number     uint64
	Hash       Hash // SHA-256 of the KeyPackage
	Size       uint32
	ExpiresMS  uint64
	UploadedMS uint64
}

// Waiting is how many packages for one use are there. Those whose lifetime is over
// count until they are forgotten, within the hour.
func (s *KeyPackageStock) Waiting() int { return int(s.count) }

// ValidAt reports whether the package is there and may be handed out at a time.
func (p *KeyPackage) ValidAt(nowMS uint64) bool { return p.Size > 0 && nowMS < p.ExpiresMS }

// KeyPackageStocks tells what a device has, by suite, ascending; a device that
// never had any, or is not active, has nothing.
func KeyPackageStocks(r Reader, device Key) ([]KeyPackageStock, error) {
	stocks, _, err := readRow(r, "key package stocks", keyOf32(r.scratch(), prefixKeyPackageStock, device), func(in *rowReader) []KeyPackageStock {
		stocks := make([]KeyPackageStock, 0, 4)
		for range in.u8() {
			s := KeyPackageStock{Suite: in.u16(), Next: in.u64(), first: in.u64(), count: in.u32()}
			s.Last = decodeKeyPackage(in)
			stocks = append(stocks, s)
		}
		return stocks
	})
	return stocks, err
}

// stockOf finds the stock of a suite, or makes an empty one.
func stockOf(stocks *[]KeyPackageStock, suite uint16) (*KeyPackageStock, error) {
	at, found := slices.BinarySearchFunc(*stocks, suite, func(s KeyPackageStock, suite uint16) int { return cmp.Compare(s.Suite, suite) })
	if !found {
		if len(*stocks) == math.MaxUint8 {
			return nil, invalid("a device with key packages of more than %d cipher suites", math.MaxUint8)
		}
		*stocks = slices.Insert(*stocks, at, KeyPackageStock{Suite: suite, Next: 1, first: 1})
	}
	return &(*stocks)[at], nil
}

func (b *Batch) putStocks(device Key, stocks []KeyPackageStock) error {
	row := append(b.row[:0], byte(len(stocks)))
	for i := range stocks {
		s := &stocks[i]
		row = binary.BigEndian.AppendUint16(row, s.Suite)
		row = binary.BigEndian.AppendUint64(row, s.Next)
		row = binary.BigEndian.AppendUint64(row, s.first)
		row = binary.BigEndian.AppendUint32(row, s.count)
		row = appendKeyPackage(row, &s.Last)
	}
	b.row = row
	return b.put(keyOf32(b.scratch(), prefixKeyPackageStock, device), row)
}

func appendKeyPackage(row []byte, p *KeyPackage) []byte {
	row = append(append(row, p.ID[:]...), p.Hash[:]...)
	row = binary.BigEndian.AppendUint32(row, p.Size)
	row = binary.BigEndian.AppendUint64(row, p.ExpiresMS)
	return binary.BigEndian.AppendUint64(row, p.UploadedMS)
}

func decodeKeyPackage(in *rowReader) KeyPackage {
	return KeyPackage{ID: in.id(), Hash: in.array32(), Size: in.u32(), ExpiresMS: in.u64(), UploadedMS: in.u64()}
}

// packageAt reads one package for one use.
func packageAt(r Reader, device Key, suite uint16, number uint64) (KeyPackage, bool, error) {
	p, found, err := readRow(r, "key packages", keyPackageKey(r.scratch(), device, suite, number), decodeKeyPackage)
	p.Number = number
	return p, found, err
}

// eachPackage calls fn with the packages for one use of a stock, oldest first,
// until it returns false.
func eachPackage(r Reader, device Key, s *KeyPackageStock, fn func(*KeyPackage) bool) error {
	// Point reads: almost always the first one is there, and there are few.
	for number, left := s.first, s.count; left > 0 && number < s.Next; number++ {
		p, found, err := packageAt(r, device, s.Suite, number)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		if left--; !fn(&p) {
			return nil
		}
	}
	return nil
}

// OldestKeyPackage is the oldest package for one use of a stock that is valid at
// a time.
func OldestKeyPackage(r Reader, device Key, s *KeyPackageStock, nowMS uint64) (oldest KeyPackage, found bool, err error) {
	err = eachPackage(r, device, s, func(p *KeyPackage) bool {
		if found = p.ValidAt(nowMS); found {
			oldest = *p
		}
		return !found
	})
	return oldest, found, err
}

// KeyPackagesOf are the packages for one use of a stock that are there, oldest
// first, also those whose lifetime is over.
func KeyPackagesOf(r Reader, device Key, s *KeyPackageStock) (all []KeyPackage, err error) {
	err = eachPackage(r, device, s, func(p *KeyPackage) bool { all = append(all, *p); return true })
	return all, err
}

// CountKeyPackages counts the packages for one use of a stock that are valid at a
// time, up to a limit.
func CountKeyPackages(r Reader, device Key, s *KeyPackageStock, nowMS uint64, limit int) (n int, err error) {
	err = eachPackage(r, device, s, func(p *KeyPackage) bool {
		if p.ValidAt(nowMS) {
			n++
		}
		return n < limit
	})
	return n, err
}

// KeyPackageFate is what became of a KeyPackage that was uploaded once.
type KeyPackageFate uint8

const (
	// KeyPackageUnknown: it was never there, or is forgotten.
	KeyPackageUnknown KeyPackageFate = iota
	// KeyPackageWaits for its one use, or is the device's last resort.
	KeyPackageWaits
	// KeyPackageUsed: it was handed out, and must not be again.
	KeyPackageUsed
)

// knownPackage is a row that recognises a package by its hash.
type knownPackage struct {
	fate   KeyPackageFate
	suite  uint16
	number uint64
}

func readKnown(r Reader, device Key, hash Hash) (knownPackage, bool, error) {
	return readRow(r, "known key packages", knownPackageKey(r.scratch(), device, hash), func(in *rowReader) knownPackage {
		return knownPackage{KeyPackageFate(in.u8()), in.u16(), in.u64()}
	})
}

func (b *Batch) putKnown(device Key, hash Hash, k knownPackage) error {
	b.row = binary.BigEndian.AppendUint16(append(b.row[:0], byte(k.fate)), k.suite)
	b.row = binary.BigEndian.AppendUint64(b.row, k.number)
	return b.put(knownPackageKey(b.scratch(), device, hash), b.row)
}

// FateOfKeyPackage tells what became of a package of a device, by the SHA-256 of
// the KeyPackage. Used ones are remembered until their lifetime is over.
func FateOfKeyPackage(r Reader, device Key, hash Hash) (KeyPackageFate, error) {
	known, _, err := readKnown(r, device, hash)
	return known.fate, err
}
