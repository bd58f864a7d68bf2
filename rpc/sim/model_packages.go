package sim

import (
	"errors"
	"fmt"
	"slices"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// What the model knows of KeyPackages. Its rule: each for one use is taken once, while
// it waits, and before those that came later.

// Package is a KeyPackage that a device has, or had.
type Package struct {
	ID      ID
	Owner   ID
	Device  Key
	Suite   uint16
	Number  uint64 // 0: a last resort
	Hash    [32]byte
	Expires uint64
	Waits   bool
	Taken   []Taking
	former  bool // of a shelf that was cleared since: numbers begin anew there
}

// Taking is one time that a package was handed out.
type Taking struct {
	TimeMS, Index uint64
	By            Key // the device that asked
}

func (m *Model) uploadPackages(ev *pb.KeyPackagesUploaded) error {
	device := Key(ev.DeviceKey)
	q := m.Queues[device]
	if q == nil || q.Closed || len(ev.Packages) == 0 {
		return errors.New("KeyPackages of a device that is none, or none at all")
	}
	for _, stored := range ev.Packages {
		p := &Package{
			ID: ID(stored.PackageId), Owner: q.Owner, Device: device, Suite: uint16(stored.CipherSuite), Number: stored.Number,
			Hash: [32]byte(stored.Sha256), Expires: stored.ExpiresMs, Waits: true,
		}
		if m.Packages[p.ID] != nil || p.Expires <= m.TimeMS {
			return errors.New("a KeyPackage twice, or whose time is over")
		}
		for _, o := range m.shelfOf(device) {
			switch {
			case o.Hash == p.Hash && (o.Waits || len(o.Taken) > 0 && o.Number > 0):
				return errors.New("a KeyPackage came again")
			case o.Suite != p.Suite || o.former:
			case p.Number == 0 && o.Number == 0:
				o.Waits = false
			case p.Number > 0 && o.Number >= p.Number:
				return fmt.Errorf("KeyPackage %d after %d", p.Number, o.Number)
			}
		}
		m.Packages[p.ID] = p
		m.shelves[device] = append(m.shelves[device], p)
		m.Payloads[PayloadKey{p.Owner, p.ID}] = p.Hash
	}
	return nil
}

// shelfOf are all packages that a device ever had.
func (m *Model) shelfOf(device Key) []*Package { return m.shelves[device] }

func (m *Model) takePackages(ev *pb.KeyPackagesTaken, receipt *pb.Receipt) error {
	if receipt == nil {
		return errors.New("KeyPackages were taken by nobody")
	}
	for _, taken := range ev.Packages {
		p := m.Packages[ID(taken.PackageId)]
		switch {
		case p == nil || p.Device != Key(taken.DeviceKey) || p.Number != taken.Number || uint32(p.Suite) != taken.CipherSuite:
			return errors.New("a KeyPackage was taken that is none")
		case m.isBanned(p.Owner):
			return errors.New("a KeyPackage was taken of somebody who is banned")
		case !p.Waits || p.Expires <= m.TimeMS:
			return fmt.Errorf("KeyPackage %d was taken, and did not wait", p.Number)
		}
		for _, o := range m.shelfOf(p.Device) {
			if o.Waits && p.Number > 0 && o.Number > 0 && o.Suite == p.Suite && o.Number < p.Number && o.Expires > m.TimeMS {
				return fmt.Errorf("KeyPackage %d was taken before KeyPackage %d", p.Number, o.Number)
			}
		}
		p.Taken = append(p.Taken, Taking{m.TimeMS, m.Size, Key(receipt.Caller)})
		p.Waits = p.Number == 0
	}
	return nil
}

func (m *Model) expirePackages(ev *pb.KeyPackagesExpired) error {
	for _, over := range ev.Packages {
		if over.ExpiresMs > m.TimeMS {
			return errors.New("a KeyPackage ended before its time")
		}
		for _, p := range m.shelfOf(Key(over.DeviceKey)) {
			if p.Hash != [32]byte(over.Sha256) || !p.Waits {
				continue
			}
			if p.Waits = false; p.Number > 0 {
				m.drop(p)
			}
		}
	}
	return nil
}

// releasePackages drops the bytes of what nobody can ask for again.
func (m *Model) releasePackages(ev *pb.KeyPackagesReleased) error {
	for _, released := range ev.Packages {
		p := m.Packages[ID(released.PackageId)]
		if p == nil || p.Waits || p.Owner != ID(released.AccountId) || released.KeptUntilMs > m.TimeMS {
			return errors.New("the bytes of a KeyPackage were dropped that somebody may ask for")
		}
		m.drop(p)
	}
	return nil
}

// removePackages is what the end of a device, or of its identity, does to what waits
// there.
func (m *Model) removePackages(device Key) {
	for _, p := range m.shelfOf(device) {
		p.former = true
		if p.Waits {
			p.Waits = false
			m.drop(p)
		}
	}
}

// drop ends the bytes of a package.
func (m *Model) drop(p *Package) {
	delete(m.Payloads, PayloadKey{p.Owner, p.ID})
	m.Gone[PayloadKey{p.Owner, p.ID}] = true
}

// spendPackages takes all packages for one use as used.
func (m *Model) spendPackages() {
	for _, p := range m.Packages {
		if p.Waits && p.Number > 0 {
			p.Waits = false
			m.drop(p)
		}
	}
}

// comparePackages holds what waits at each device against the model.
func comparePackages(r projections.Reader, m *Model) error {
	for device, shelf := range m.shelves {
		stocks, err := projections.KeyPackageStocks(r, device)
		if err != nil {
			return err
		}
		waits := map[ID]*Package{}
		for i := range stocks {
			there, err := projections.KeyPackagesOf(r, device, &stocks[i])
			if err != nil {
				return err
			}
			if last := stocks[i].Last; last.Size > 0 {
				there = append(there, last)
			}
			for _, p := range there {
				waits[ID(p.ID)] = &Package{
					ID: ID(p.ID), Device: device, Suite: stocks[i].Suite, Number: p.Number, Hash: p.Hash, Expires: p.ExpiresMS,
				}
			}
		}
		n := 0
		for _, p := range shelf {
			if !p.Waits {
				continue
			}
			n++
			if got := waits[p.ID]; got == nil || got.Suite != p.Suite || got.Number != p.Number || got.Hash != p.Hash || got.Expires != p.Expires {
				return fmt.Errorf("KeyPackage %d of suite %d: %+v, not %+v", p.Number, p.Suite, got, p)
			}
		}
		if n != len(waits) {
			return fmt.Errorf("%d KeyPackages wait at a device, not %d", len(waits), n)
		}
	}
	return nil
}

// packagesOf finds a package by its bytes; there may be several last resorts.
func (m *Model) packagesOf(device Key, hash [32]byte) []*Package {
	return slices.DeleteFunc(slices.Clone(m.shelfOf(device)), func(p *Package) bool { return p.Hash != hash })
}
