package commands

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"quicprochat/commands/keypackage"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// KeyPackageSuites are the MLS cipher suites that a server takes, ascending.
type KeyPackageSuites []keypackage.Suite

// DefaultKeyPackageSuites are all suites whose KeyPackages device keys can sign.
var DefaultKeyPackageSuites = KeyPackageSuites{keypackage.X25519AES128Ed25519, keypackage.X25519ChaCha20Ed25519}

// NewKeyPackageSuites checks a choice of suites by their numbers. A suite must be
// one of RFC 9420 and sign with Ed25519: the signature key of a KeyPackage is the
// device's key, and device keys are Ed25519 keys.
func NewKeyPackageSuites(numbers []uint16) (KeyPackageSuites, error) {
	var suites KeyPackageSuites
	for _, n := range numbers {
		switch s := keypackage.Suite(n); {
		case !s.Known():
			return nil, fmt.Errorf("cipher suite %d is not known: RFC 9420 has 1 to 7", n)
		case !s.SignsWithEd25519():
			return nil, fmt.Errorf("cipher suite %d (%v) does not sign with Ed25519, and device keys are Ed25519 keys: use 1 or 3", n, s)
		default:
			suites = append(suites, s)
		}
	}
	if len(suites) == 0 {
		return nil, errors.New("no cipher suite is given: use 1 or 3 or both")
	}
	slices.Sort(suites)
	return slices.Compact(suites), nil
}

// PreparedKeyPackages is an UploadKeyPackageRequest, read and verified outside
// the writer. Only PrepareKeyPackages makes one.
type PreparedKeyPackages struct {
	suites   KeyPackageSuites
	packages []preparedKeyPackage
}

type preparedKeyPackage struct {
	*keypackage.KeyPackage
	hash projections.Hash
}

// PrepareKeyPackages reads KeyPackages and verifies all that needs no view and no
// time: two signatures each. Refusals, all BadRequest: TOO_MANY_ITEMS,
// KEY_PACKAGE_INVALID, KEY_PACKAGE_SUITE, INVALID_FIELD for two last resorts of a
// suite.
func PrepareKeyPackages(suites KeyPackageSuites, req *pb.UploadKeyPackageRequest) (*PreparedKeyPackages, error) {
	if n := len(req.GetKeyPackages()); n > MaxKeyPackages {
		return nil, &Refusal{Status: pb.Status_BadRequest, Reason: pb.Reason_TOO_MANY_ITEMS, Limit: MaxKeyPackages,
			Message: fmt.Sprintf("%d KeyPackages in one call, at most %d are allowed", n, MaxKeyPackages)}
	}
	p := &PreparedKeyPackages{suites: suites}
	var lastResorts []keypackage.Suite
	for i, data := range req.GetKeyPackages() {
		k, err := keypackage.Parse(data)
		if err == nil && k.Suite.Known() && !slices.Contains(suites, k.Suite) {
			return nil, Refuse(pb.Status_BadRequest, pb.Reason_KEY_PACKAGE_SUITE, "KeyPackage %d: this server does not take %v", i+1, k.Suite)
		}
		if err == nil {
			err = k.Verify()
		}
		if err != nil {
			return nil, refuseKeyPackage(i, err)
		}
		hash := sha256.Sum256(k.Raw)
		if slices.ContainsFunc(p.packages, func(o preparedKeyPackage) bool { return o.hash == hash }) {
			continue
		}
		if k.LastResort {
			if slices.Contains(lastResorts, k.Suite) {
				return nil, invalid("KeyPackage %d is a second last resort of %v", i+1, k.Suite)
			}
			lastResorts = append(lastResorts, k.Suite)
		}
		p.packages = append(p.packages, preparedKeyPackage{k, hash})
	}
	return p, nil
}

func refuseKeyPackage(i int, err error) error {
	reason := pb.Reason_KEY_PACKAGE_INVALID
	switch {
	case errors.Is(err, keypackage.ErrSuite):
		reason = pb.Reason_KEY_PACKAGE_SUITE
	case errors.Is(err, keypackage.ErrLifetime):
		reason = pb.Reason_KEY_PACKAGE_LIFETIME
	}
	return Refuse(pb.Status_BadRequest, reason, "KeyPackage %d: %v", i+1, err)
}

// UploadKeyPackages decides an upload: all packages are stored, or none. Those
// that are there already are not stored again. Without a package it only tells
// what there is. Refusals: BadRequest KEY_PACKAGE_DEVICE, KEY_PACKAGE_LIFETIME,
// KEY_PACKAGE_CONSUMED, KEY_REVOKED (the account's identity key); RateLimited
// KEY_PACKAGES_FULL (limit per suite).
func UploadKeyPackages(tx *Tx, p *PreparedKeyPackages) (*pb.UploadKeyPackageResponse, error) {
	device := tx.Caller().DeviceKey
	if len(p.packages) > 0 {
		if err := refuseRevokedIdentity(tx); err != nil {
			return nil, err
		}
	}
	counts, err := countKeyPackages(tx, device)
	if err != nil {
		return nil, err
	}
	event := &pb.KeyPackagesUploaded{DeviceKey: device[:]}
	var bytes [][]byte
	for i := range p.packages {
		k := &p.packages[i]
		waits, err := admitKeyPackage(tx, device, i, k)
		if err != nil {
			return nil, err
		}
		if waits {
			continue
		}
		count := counts.of(uint16(k.Suite))
		id := tx.NewID()
		stored := &pb.KeyPackagesUploaded_Package{
			PackageId: id[:], CipherSuite: uint32(k.Suite), Size: uint32(len(k.Raw)), Sha256: k.hash[:], ExpiresMs: k.NotAfter * 1000,
		}
		if k.LastResort {
			count.lastResort = true
		} else {
			if err := count.room(); err != nil {
				return nil, err
			}
			stored.Number = count.next
			count.next++
			count.single++
			count.there++
		}
		event.Packages = append(event.Packages, stored)
		bytes = append(bytes, k.Raw)
	}
	for i, stored := range event.Packages {
		tx.PutPayload(tx.Caller().Account, id16(stored.GetPackageId()), bytes[i])
	}
	resp := &pb.UploadKeyPackageResponse{Stored: uint32(len(event.Packages)), Counts: counts.list(), ServerTimeMs: tx.Now()}
	for _, s := range p.suites {
		resp.CipherSuites = append(resp.CipherSuites, uint32(s))
	}
	if len(event.Packages) == 0 {
		return resp, nil
	}
	return resp, tx.Emit(&pb.Event{Body: &pb.Event_KeyPackagesUploaded{KeyPackagesUploaded: event}})
}

// refuseRevokedIdentity refuses packages that speak for an identity which nobody
// believes any more: they would outlive its revocation.
func refuseRevokedIdentity(tx *Tx) error {
	account, found, err := projections.AccountByID(tx.View(), tx.Caller().Account)
	if err != nil || !found {
		return err
	}
	return refuseRevoked(tx.View(), account.IdentityKey, pb.Status_BadRequest, "the account's identity key")
}

// admitKeyPackage checks what needs time and view, and tells whether the package
// waits at the server already.
func admitKeyPackage(tx *Tx, device projections.Key, i int, k *preparedKeyPackage) (waits bool, err error) {
	if !slices.Equal(k.SignatureKey, device[:]) {
		return false, Refuse(pb.Status_BadRequest, pb.Reason_KEY_PACKAGE_DEVICE, "KeyPackage %d is not signed by the key of this device", i+1)
	}
	if err := k.CheckLifetime(tx.Now()); err != nil {
		return false, refuseKeyPackage(i, err)
	}
	fate, err := projections.FateOfKeyPackage(tx.View(), device, k.hash)
	if err != nil {
		return false, err
	}
	if fate == projections.KeyPackageUsed {
		return false, Refuse(pb.Status_BadRequest, pb.Reason_KEY_PACKAGE_CONSUMED, "KeyPackage %d was handed out already: make a new one", i+1)
	}
	return fate == projections.KeyPackageWaits, nil
}

// keyPackageCounts are the valid packages of a device by suite, ascending.
type keyPackageCounts struct{ suites []keyPackageCount }

type keyPackageCount struct {
	suite      uint16
	next       uint64
	single     int
	there      int // single, and those whose lifetime is over but that are not forgotten
	lastResort bool
}

// maxKeyPackagesThere bounds what a search for a valid package goes over: whoever
// uploads packages that live for seconds must not make a fetch of them dear.
const maxKeyPackagesThere = 2 * MaxKeyPackages

// room refuses one more package for one use.
func (c *keyPackageCount) room() error {
	full := &Refusal{Status: pb.Status_RateLimited, Reason: pb.Reason_KEY_PACKAGES_FULL, Limit: MaxKeyPackages}
	switch {
	case c.single >= MaxKeyPackages:
		full.Message = fmt.Sprintf("the device would have more than %d KeyPackages of %v", MaxKeyPackages, keypackage.Suite(c.suite))
	case c.there >= maxKeyPackagesThere:
		full.Message = "too many KeyPackages of the device have expired: they are forgotten within the hour"
		full.RetryAfterMS = dayMS / 24
	default:
		return nil
	}
	return full
}

func countKeyPackages(tx *Tx, device projections.Key) (counts keyPackageCounts, err error) {
	stocks, err := projections.KeyPackageStocks(tx.View(), device)
	if err != nil {
		return counts, err
	}
	for i := range stocks {
		s := &stocks[i]
		// One upload finds at most as many as it may add to.
		n, err := projections.CountKeyPackages(tx.View(), device, s, tx.Now(), MaxKeyPackages)
		if err != nil {
			return counts, err
		}
		counts.suites = append(counts.suites, keyPackageCount{suite: s.Suite, next: s.Next, single: n, there: s.Waiting(), lastResort: s.Last.ValidAt(tx.Now())})
	}
	return counts, nil
}

// of is the count of a suite.
func (c *keyPackageCounts) of(suite uint16) *keyPackageCount {
	at, found := slices.BinarySearchFunc(c.suites, suite, func(c keyPackageCount, suite uint16) int { return int(c.suite) - int(suite) })
	if !found {
		c.suites = slices.Insert(c.suites, at, keyPackageCount{suite: suite, next: 1})
	}
	return &c.suites[at]
}

func (c *keyPackageCounts) list() (list []*pb.UploadKeyPackageResponse_Count) {
	for _, s := range c.suites {
		if s.single > 0 || s.lastResort {
			list = append(list, &pb.UploadKeyPackageResponse_Count{
				CipherSuite: uint32(s.suite), SingleUse: uint32(s.single), LastResort: s.lastResort,
			})
		}
	}
	return list
}

// NewUploadKeyPackage makes the command of an UploadKeyPackage. Refusals are those
// of PrepareKeyPackages.
func NewUploadKeyPackage(rule *pb.Rule, req *pb.UploadKeyPackageRequest, suites KeyPackageSuites) (*Command, error) {
	p, err := PrepareKeyPackages(suites, req)
	if err != nil {
		return nil, err
	}
	return NewCommand(rule, req, func(tx *Tx) (*pb.UploadKeyPackageResponse, error) { return UploadKeyPackages(tx, p) })
}
