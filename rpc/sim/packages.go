package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	pb "quicprochat/proto/qpcv1"
)

// Shelved is one KeyPackage that somebody uploaded. Its bytes are unique.
type Shelved struct {
	span
	By      *Person
	Device  Key
	Hash    [32]byte
	Last    bool // a last resort
	Outcome Outcome
}

// Taken is one FetchKeyPackage.
type Taken struct {
	span
	By       Key // device
	Outcome  Outcome
	Packages []TakenPackage
}

// TakenPackage is a KeyPackage that somebody was handed.
type TakenPackage struct {
	Device Key
	Hash   [32]byte
	ID     ID
	Last   bool
}

// uploadPackages puts some new KeyPackages of the device, and at times one that it
// uploaded before, on the shelf.
func (p *Person) uploadPackages(ctx context.Context) {
	req := new(pb.UploadKeyPackageRequest)
	var put []*Shelved
	lasts := map[uint16]bool{}
	for range 1 + p.rng.IntN(3) {
		raw, suite, last := p.newPackage()
		if last && lasts[suite] {
			continue // one last resort of a suite in a call
		}
		lasts[suite] = lasts[suite] || last
		req.KeyPackages = append(req.KeyPackages, raw)
		s := &Shelved{span: begin(), By: p.who(), Device: p.DeviceKey(), Hash: hashOf(raw), Last: last}
		put = append(put, s)
		p.world.History.addShelved(s)
	}
	if p.uploaded != nil && p.rng.IntN(4) == 0 {
		// Refused as a whole when it was taken meanwhile, else not stored again.
		req.KeyPackages = append(req.KeyPackages, p.uploaded)
	}
	resp := new(pb.UploadKeyPackageResponse)
	outcome := p.insist(ctx, req, resp)
	for _, s := range put {
		s.finish()
		s.Outcome = outcome
	}
	if outcome == Done {
		p.uploaded = req.KeyPackages[0] // of a refused one nothing must be stored
		p.repeat(ctx, req, resp)
	}
}

// newPackage makes a KeyPackage of the device: some live so short that they end on the
// shelf.
func (p *Person) newPackage() (raw []byte, suite uint16, last bool) {
	p.packages++
	suite = []uint16{1, 1, 1, 3}[p.rng.IntN(4)]
	made := NewKeyPackage(public(p.device), suite, fmt.Sprintf("%x/%d in world %d", p.device.Seed()[:4], p.packages, p.world.Seed), time.Now())
	if p.rng.IntN(5) == 0 {
		made.NotAfter = uint64(time.Now().Add(time.Duration(1+p.rng.IntN(60)) * time.Second).Unix())
	}
	if last = p.rng.IntN(6) == 0; last {
		made.Extensions = append(made.Extensions, LastResort)
	}
	return made.Sign(p.device), suite, last
}

// takePackages asks for somebody's KeyPackages: by the call itself, which is repeated
// when no answer came, or by the SDK, which proves whose they are.
func (p *Person) takePackages(ctx context.Context) {
	req := &pb.FetchKeyPackageRequest{
		IdentityKey: slice(p.other().IdentityKey()), AllDevices: p.rng.IntN(2) == 0,
		CipherSuite: []uint32{0, 1, 1, 3}[p.rng.IntN(4)],
	}
	t := &Taken{span: begin(), By: p.DeviceKey()}
	p.world.History.addTaken(t)
	resp := new(pb.FetchKeyPackageResponse)
	if p.rng.IntN(4) == 0 {
		var err error
		if resp, err = p.client.FetchKeyPackage(ctx, req); err == nil {
			t.Outcome = Done // else what was taken may not have been proved
		}
		p.note(err)
	} else {
		t.Outcome = p.insist(ctx, req, resp)
	}
	t.finish()
	if t.Outcome != Done {
		return
	}
	for _, got := range resp.Packages {
		t.Packages = append(t.Packages, TakenPackage{Key(got.DeviceKey), hashOf(got.KeyPackage), ID(got.PackageId), got.LastResort})
	}
	p.repeat(ctx, req, resp)
}

// samePackages tells whether a repeated FetchKeyPackage was answered as before: what
// belongs to a device that was revoked since is left out.
func samePackages(before, again *pb.FetchKeyPackageResponse) bool {
	for _, p := range again.Packages {
		if !slices.ContainsFunc(before.Packages, func(o *pb.FetchKeyPackageResponse_Package) bool {
			return string(o.PackageId) == string(p.PackageId) && string(o.KeyPackage) == string(p.KeyPackage)
		}) {
			return false
		}
	}
	return true
}
