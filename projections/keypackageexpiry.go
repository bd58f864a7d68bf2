package projections

import (
	"encoding/binary"
	"fmt"
)

// KeyPackageEnd is a package whose lifetime is over: one entry of a
// KeyPackagesExpired event.
type KeyPackageEnd struct {
	Device    Key
	Hash      Hash
	ExpiresMS uint64
}

// ExpiredKeyPackages lists packages, waiting and used ones, whose lifetime was over
// at a time; up to an hour late.
func ExpiredKeyPackages(r Reader, nowMS uint64, limit int) (due []KeyPackageEnd, err error) {
	err = scanDue(r, prefixKeyPackageExpiry, nowMS, func(key []byte, ms uint64) bool {
		due = append(due, KeyPackageEnd{Device: Key(key[:32]), Hash: Hash(key[32:]), ExpiresMS: ms})
		return len(due) < limit
	})
	return due, err
}

// KeptKeyPackage is a package whose bytes nobody can ask for any more: one entry
// of a KeyPackagesReleased event.
type KeptKeyPackage struct {
	Account, ID ID
	UntilMS     uint64
}

// KeptKeyPackages lists packages whose bytes were to be kept until a time that has
// come; up to an hour late.
func KeptKeyPackages(r Reader, nowMS uint64, limit int) (due []KeptKeyPackage, err error) {
	err = scanDue(r, prefixKeyPackageKept, nowMS, func(key []byte, ms uint64) bool {
		due = append(due, KeptKeyPackage{Account: ID(key[:16]), ID: ID(key[16:]), UntilMS: ms})
		return len(due) < limit
	})
	return due, err
}

// scanDue goes over the rows of an index by hour that are due; key is what stands
// behind prefix and hour, ms the row's value.
func scanDue(r Reader, prefix byte, nowMS uint64, each func(key []byte, ms uint64) bool) error {
	end := keyOfU32(nil, prefix, uint32(min(nowMS, maxTimeMS)/hourMS)+1)
	return scanRows(r, keyOf(nil, prefix), end, func(key, value []byte) (bool, error) {
		if len(value) != 8 {
			return false, fmt.Errorf("%w of key package times: %d bytes", errRow, len(value))
		}
		return each(key[1+4:], binary.BigEndian.Uint64(value)), nil
	})
}
