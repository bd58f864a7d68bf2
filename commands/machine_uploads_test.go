package commands_test

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"quicprochat/commands"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/sim"
)

// drawUpload draws new KeyPackages of the session's device and some that exist.
func (m *machine) drawUpload(t *rapid.T) *request {
	session := m.drawSession(t)
	device := m.deviceOf(session)
	req := &pb.UploadKeyPackageRequest{SessionToken: session}
	r := &request{Message: req, packages: map[string]*modelPackage{}}
	for range rapid.SampledFrom([]int{0, 1, 1, 2, 3}).Draw(t, "packages") {
		var p *modelPackage
		if len(m.packages) > 0 && rapid.IntRange(0, 4).Draw(t, "an old one") == 0 {
			p = m.packages[rapid.IntRange(0, len(m.packages)-1).Draw(t, "which")]
		} else {
			p = m.newPackage(t, device)
		}
		r.packages[string(p.raw)] = p
		req.KeyPackages = append(req.KeyPackages, p.raw)
	}
	for i, p := range req.GetKeyPackages() {
		for _, o := range req.GetKeyPackages()[:i] {
			if a, b := r.packages[string(p)], r.packages[string(o)]; a.last && b.last && a.suite == b.suite && a != b {
				r.wrong = pb.Reason_INVALID_FIELD
			}
		}
	}
	if len(req.GetKeyPackages()) == 0 || r.wrong != 0 {
		return m.withID(t, r)
	}
	return m.withID(t, spoil(t, r, []fault[*pb.UploadKeyPackageRequest]{
		{pb.Reason_KEY_PACKAGE_INVALID, func(r *pb.UploadKeyPackageRequest) {
			spoiled := bytes.Clone(r.KeyPackages[0])
			spoiled[len(spoiled)-1] ^= 1
			r.KeyPackages[0] = spoiled
		}},
		{pb.Reason_KEY_PACKAGE_INVALID, func(r *pb.UploadKeyPackageRequest) { r.KeyPackages[0] = r.KeyPackages[0][1:] }},
		{pb.Reason_KEY_PACKAGE_SUITE, func(r *pb.UploadKeyPackageRequest) {
			r.KeyPackages[0] = append([]byte{0, 1, 0, 2}, r.KeyPackages[0][4:]...)
		}},
		{pb.Reason_TOO_MANY_ITEMS, func(r *pb.UploadKeyPackageRequest) {
			r.KeyPackages = slices.Repeat(r.KeyPackages[:1], commands.MaxKeyPackages+1)
		}},
	}))
}

// stockUp uploads some KeyPackages of a person, so that there is something to take.
func (m *machine) stockUp(t *rapid.T, name string) {
	req := &pb.UploadKeyPackageRequest{RequestId: m.newID(time.Now())}
	for _, s := range m.model.sessions {
		if s.account == name {
			req.SessionToken = s.token
		}
	}
	r := &request{Message: req, packages: map[string]*modelPackage{}}
	for range 3 {
		p := m.newPackage(t, name+"/1")
		r.packages[string(p.raw)] = p
		req.KeyPackages = append(req.KeyPackages, p.raw)
		for _, o := range r.packages {
			if o != p && o.last && p.last && o.suite == p.suite {
				r.wrong = pb.Reason_INVALID_FIELD
			}
		}
	}
	m.call(t, r)
	m.compare(t) // learns the packages' ids
}

func (m *machine) newPackage(t *rapid.T, device string) *modelPackage {
	m.counts["package"]++
	made := sim.NewKeyPackage(m.public(device), rapid.SampledFrom([]uint16{1, 1, 3}).Draw(t, "suite"), fmt.Sprint("package ", m.counts["package"]), time.Now())
	life := rapid.SampledFrom([]time.Duration{100 * time.Second, 40 * time.Minute, 26 * time.Hour, 20 * 24 * time.Hour, 80 * 24 * time.Hour}).Draw(t, "life")
	made.NotAfter = uint64(time.Now().Add(life).Unix())
	p := &modelPackage{device: projections.Key(m.public(device)), suite: made.Suite, expires: made.NotAfter * 1000}
	if p.last = rapid.IntRange(0, 4).Draw(t, "last resort") == 0; p.last {
		made.Extensions = append(made.Extensions, sim.LastResort)
	}
	p.raw = made.Sign(m.key(device))
	m.packages = append(m.packages, p)
	return p
}

// drawFetchPackage asks for somebody's KeyPackages, now and then over the budget.
func (m *machine) drawFetchPackage(t *rapid.T) *request {
	name := rapid.SampledFrom([]string{"alice", "bob", "bob", "bob", "carol", "nobody"}).Draw(t, "of")
	req := &pb.FetchKeyPackageRequest{
		SessionToken: m.drawSession(t), IdentityKey: m.public(m.identity(name)), AllDevices: rapid.Bool().Draw(t, "all devices"),
		CipherSuite: rapid.SampledFrom([]uint32{0, 0, 1, 1, 3, 2}).Draw(t, "suite"),
	}
	r := &request{Message: req, spent: rapid.IntRange(0, 5).Draw(t, "spent") == 0}
	return m.withID(t, spoil(t, r, []fault[*pb.FetchKeyPackageRequest]{
		{pb.Reason_MISSING_FIELD, func(r *pb.FetchKeyPackageRequest) { r.IdentityKey = nil }},
		{pb.Reason_KEY_INVALID, func(r *pb.FetchKeyPackageRequest) { r.IdentityKey = r.IdentityKey[1:] }},
		{pb.Reason_INVALID_FIELD, func(r *pb.FetchKeyPackageRequest) { r.CipherSuite = 1 << 16 }},
	}))
}

// setSpent has the limiters say what a request was drawn with.
func (m *machine) setSpent(r *request) {
	m.budget = commands.Budget{Spent: r.spent, RetryAfterMS: 1000}
}
