package commands_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"

	"quicprochat/commands"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/sim"
)

// modelPackage is one KeyPackage as its device made it. All but its id stands fixed.
type modelPackage struct {
	id       projections.ID // learned; drawn anew when an upload was lost and is repeated
	raw      []byte
	device   projections.Key
	suite    uint16
	last     bool
	expires  uint64
	uploaded uint64
}

// packageShelf is what one device has, and what the server remembers of it.
type packageShelf struct {
	owner   string
	waiting []*modelPackage          // for one use, oldest first
	last    map[uint16]*modelPackage // by suite
	known   map[string]knownModel    // by the package's bytes
	kept    []keptModel              // handed out, or a last resort no more
}

type knownModel struct {
	used    bool
	expires uint64
}

type keptModel struct {
	*modelPackage
	until uint64
}

func (s *packageShelf) clone() *packageShelf {
	return &packageShelf{s.owner, slices.Clone(s.waiting), maps.Clone(s.last), maps.Clone(s.known), slices.Clone(s.kept)}
}

// shelf is the shelf of a device.
func (m *serverModel) shelf(device projections.Key, owner string) *packageShelf {
	if m.shelves[device] == nil {
		m.shelves[device] = &packageShelf{owner: owner, last: map[uint16]*modelPackage{}, known: map[string]knownModel{}}
	}
	return m.shelves[device]
}

// hourAfter is the first hour that begins when a time has come.
func hourAfter(ms uint64) uint64 { return (ms + anHour - 1) / anHour }

func (m *serverModel) uploadKeyPackages(r *request, req *pb.UploadKeyPackageRequest, s *modelSession, now uint64) prediction {
	shelf := m.shelf(s.device, s.account)
	var fresh []*modelPackage
	for _, data := range req.GetKeyPackages() {
		p := r.packages[string(data)]
		known, before := shelf.known[string(data)]
		switch {
		case p.device != s.device:
			return badRequest(pb.Reason_KEY_PACKAGE_DEVICE)
		case now >= p.expires:
			return badRequest(pb.Reason_KEY_PACKAGE_LIFETIME)
		case before && known.used:
			return badRequest(pb.Reason_KEY_PACKAGE_CONSUMED)
		case before, slices.ContainsFunc(fresh, func(o *modelPackage) bool { return bytes.Equal(o.raw, data) }):
			continue
		}
		stored := *p
		stored.uploaded = now
		fresh = append(fresh, &stored)
	}
	for _, p := range fresh {
		if p.last {
			shelf.dropLast(p.suite, now)
			shelf.last[p.suite] = p
		} else {
			shelf.waiting = append(shelf.waiting, p)
		}
		shelf.known[string(p.raw)] = knownModel{expires: p.expires}
	}
	if len(fresh) > 0 {
		m.events++
	}
	answer := &pb.UploadKeyPackageResponse{Stored: uint32(len(fresh)), ServerTimeMs: now, CipherSuites: []uint32{1, 3}}
	for _, suite := range []uint16{1, 3} {
		count := &pb.UploadKeyPackageResponse_Count{CipherSuite: uint32(suite), LastResort: shelf.lastOf(suite, now) != nil}
		for _, p := range shelf.waiting {
			if p.suite == suite && now < p.expires {
				count.SingleUse++
			}
		}
		if count.GetSingleUse() > 0 || count.GetLastResort() {
			answer.Counts = append(answer.Counts, count)
		}
	}
	return prediction{answer: answer}
}

// lastOf is the last resort of a suite that is valid.
func (s *packageShelf) lastOf(suite uint16, now uint64) *modelPackage {
	if p := s.last[suite]; p != nil && now < p.expires {
		return p
	}
	return nil
}

// dropLast takes a last resort away; its bytes stay for two days.
func (s *packageShelf) dropLast(suite uint16, now uint64) {
	if p := s.last[suite]; p != nil {
		delete(s.last, suite)
		delete(s.known, string(p.raw))
		s.kept = append(s.kept, keptModel{p, now + 2*aDay})
	}
}

func (m *serverModel) fetchKeyPackage(r *request, req *pb.FetchKeyPackageRequest, s *modelSession, now uint64) prediction {
	var taken []*modelPackage
	for _, a := range m.accounts {
		if a.identity != projections.Key(req.GetIdentityKey()) {
			continue
		}
		for _, device := range a.devices {
			if device == s.device || m.shelves[device] == nil || len(taken) > 0 && !req.GetAllDevices() {
				continue
			}
			single, last := m.shelves[device].best(uint16(req.GetCipherSuite()), now)
			switch {
			case single != nil && !r.spent:
				taken = append(taken, single)
			case last != nil:
				taken = append(taken, last)
			case single != nil:
				return refused(pb.Status_RateLimited, pb.Reason_RATE)
			}
		}
	}
	answer := new(pb.FetchKeyPackageResponse)
	if len(taken) == 0 {
		return prediction{answer: answer}
	}
	m.events++
	id, _ := withoutID(req)
	for _, p := range taken {
		answer.Packages = append(answer.Packages, &pb.FetchKeyPackageResponse_Package{
			DeviceKey: p.device[:], CipherSuite: uint32(p.suite), KeyPackage: p.raw, LastResort: p.last, PackageId: p.id[:],
		})
		if p.last {
			continue
		}
		shelf := m.shelves[p.device]
		shelf.waiting = slices.DeleteFunc(shelf.waiting, func(o *modelPackage) bool { return o == p })
		shelf.known[string(p.raw)] = knownModel{used: true, expires: p.expires}
		shelf.kept = append(shelf.kept, keptModel{p, max(requestTime(id)+aDay, now) + 1})
	}
	return prediction{answer: answer}
}

// best are the oldest valid package for one use and the last resort, of a suite
// or of any.
func (s *packageShelf) best(suite uint16, now uint64) (single, last *modelPackage) {
	older := func(p, than *modelPackage) bool {
		return than == nil || cmp.Or(cmp.Compare(p.uploaded, than.uploaded), cmp.Compare(p.suite, than.suite)) < 0
	}
	for _, p := range s.waiting {
		if now < p.expires && (suite == 0 || p.suite == suite) && older(p, single) {
			single = p
		}
	}
	for of := range s.last {
		if p := s.lastOf(of, now); p != nil && (suite == 0 || of == suite) && older(p, last) {
			last = p
		}
	}
	return single, last
}

// keepPackages is what housekeeping does to KeyPackages.
func (m *serverModel) keepPackages(now uint64) {
	expired, released := false, false
	for _, s := range m.shelves {
		for raw, known := range s.known {
			if hourAfter(known.expires) > now/anHour {
				continue
			}
			expired = true
			delete(s.known, raw)
			s.waiting = slices.DeleteFunc(s.waiting, func(p *modelPackage) bool { return string(p.raw) == raw })
			for suite, p := range s.last {
				if string(p.raw) == raw {
					s.dropLast(suite, now)
				}
			}
		}
	}
	for _, s := range m.shelves {
		left := len(s.kept)
		s.kept = slices.DeleteFunc(s.kept, func(k keptModel) bool { return hourAfter(k.until) <= now/anHour })
		released = released || len(s.kept) < left
	}
	for _, happened := range []bool{expired, released} {
		if happened {
			m.events++
		}
	}
}

// drawUpload draws new KeyPackages of the session's device and some that exist.
func (m *machine) drawUpload(t *rapid.T) *request {
	session := m.drawSession(t)
	name := m.personOf(session)
	req := &pb.UploadKeyPackageRequest{SessionToken: session}
	r := &request{Message: req, packages: map[string]*modelPackage{}}
	for range rapid.SampledFrom([]int{0, 1, 1, 2, 3}).Draw(t, "packages") {
		var p *modelPackage
		if len(m.packages) > 0 && rapid.IntRange(0, 4).Draw(t, "an old one") == 0 {
			p = m.packages[rapid.IntRange(0, len(m.packages)-1).Draw(t, "which")]
		} else {
			p = m.newPackage(t, name+"/1")
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
		SessionToken: m.drawSession(t), IdentityKey: m.public(name), AllDevices: rapid.Bool().Draw(t, "all devices"),
		CipherSuite: rapid.SampledFrom([]uint32{0, 0, 1, 1, 3, 2}).Draw(t, "suite"),
	}
	r := &request{Message: req, spent: rapid.IntRange(0, 5).Draw(t, "spent") == 0}
	return m.withID(t, spoil(t, r, []fault[*pb.FetchKeyPackageRequest]{
		{pb.Reason_MISSING_FIELD, func(r *pb.FetchKeyPackageRequest) { r.IdentityKey = nil }},
		{pb.Reason_KEY_INVALID, func(r *pb.FetchKeyPackageRequest) { r.IdentityKey = r.IdentityKey[1:] }},
		{pb.Reason_INVALID_FIELD, func(r *pb.FetchKeyPackageRequest) { r.CipherSuite = 1 << 16 }},
	}))
}

// comparePackages: each device has what the model says, each package that waits or
// is kept has its bytes, and no other.
func (m *machine) comparePackages(t *rapid.T, view projections.Reader) {
	for device, shelf := range m.model.shelves {
		owner := m.model.accounts[shelf.owner].id
		stocks, err := projections.KeyPackageStocks(view, device)
		m.check(err)
		var have []projections.ID
		for i := range stocks {
			s := &stocks[i]
			n, err := projections.CountKeyPackages(view, device, s, 0, 1<<20)
			m.check(err)
			var want []*modelPackage
			for _, p := range shelf.waiting {
				if p.suite == s.Suite {
					want = append(want, p)
				}
			}
			if n != len(want) || (s.Last.Size > 0) != (shelf.last[s.Suite] != nil) {
				t.Fatalf("%s has %d packages of suite %d and last resort %v, in the model %d and %v",
					shelf.owner, n, s.Suite, s.Last.Size > 0, len(want), shelf.last[s.Suite] != nil)
			}
			for _, p := range want {
				m.learnPackage(t, view, p, s)
				have = append(have, p.id)
			}
			if p := shelf.last[s.Suite]; p != nil {
				p.id = s.Last.ID
				if s.Last.Hash != sha256.Sum256(p.raw) || s.Last.ExpiresMS != p.expires || s.Last.UploadedMS != p.uploaded {
					t.Fatalf("last resort of %s: %+v", shelf.owner, s.Last)
				}
				have = append(have, p.id)
			}
		}
		for _, k := range shelf.kept {
			have = append(have, k.id)
		}
		for _, id := range have {
			m.oracle.packages[id] = owner
		}
		for id, of := range m.oracle.packages {
			if of != owner {
				continue
			}
			_, found, err := m.engine.Payload(owner, id)
			m.check(err)
			if want := slices.Contains(have, id); found != want {
				t.Fatalf("package %x of %s: bytes there %v, in the model %v", id, shelf.owner, found, want)
			}
		}
	}
}

// learnPackage finds a waiting package of the model among those of a stock.
func (m *machine) learnPackage(t *rapid.T, view projections.Reader, p *modelPackage, s *projections.KeyPackageStock) {
	rows, err := projections.KeyPackagesOf(view, p.device, s)
	m.check(err)
	for _, row := range rows {
		if row.Hash == sha256.Sum256(p.raw) && row.ExpiresMS == p.expires && row.UploadedMS == p.uploaded && int(row.Size) == len(p.raw) {
			p.id = row.ID
			return
		}
	}
	t.Fatalf("a package of the model is not there: %+v", p)
}

// setSpent has the limiters say what a request was drawn with.
func (m *machine) setSpent(r *request) {
	m.budget = commands.Budget{Spent: r.spent, RetryAfterMS: 1000}
}
