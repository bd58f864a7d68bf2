package commands_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
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
		if m.person(req.GetIdentityKey()) != a.name || m.banned(a.name, now) {
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

// purge takes away what waits at a device that leaves, with its bytes. What was
// used up stays known.
func (s *packageShelf) purge() {
	if s == nil {
		return
	}
	s.waiting, s.last = nil, map[uint16]*modelPackage{}
	maps.DeleteFunc(s.known, func(_ string, known knownModel) bool { return !known.used })
}

// stillThere is the answer that a repeated call gets: without KeyPackages that went
// with their device.
func (m *serverModel) stillThere(answer proto.Message) proto.Message {
	given, ok := answer.(*pb.FetchKeyPackageResponse)
	if !ok {
		return answer
	}
	there := map[projections.ID]bool{}
	for _, s := range m.shelves {
		for _, p := range s.waiting {
			there[p.id] = true
		}
		for _, p := range s.last {
			there[p.id] = true
		}
		for _, p := range s.kept {
			there[p.id] = true
		}
	}
	left := new(pb.FetchKeyPackageResponse)
	for _, p := range given.GetPackages() {
		if there[projections.ID(p.GetPackageId())] {
			left.Packages = append(left.Packages, p)
		}
	}
	return left
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

// comparePackages: each device has what the model says, each package that waits or
// is kept has its bytes, and no other.
func (m *machine) comparePackages(t *rapid.T, view projections.Reader) {
	have := map[projections.ID][]projections.ID{} // by account
	for device, shelf := range m.model.shelves {
		owner := m.model.accounts[shelf.owner].id
		stocks, err := projections.KeyPackageStocks(view, device)
		m.check(err)
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
				have[owner] = append(have[owner], p.id)
			}
			if p := shelf.last[s.Suite]; p != nil {
				p.id = s.Last.ID
				if s.Last.Hash != sha256.Sum256(p.raw) || s.Last.ExpiresMS != p.expires || s.Last.UploadedMS != p.uploaded {
					t.Fatalf("last resort of %s: %+v", shelf.owner, s.Last)
				}
				have[owner] = append(have[owner], p.id)
			}
		}
		for _, k := range shelf.kept {
			have[owner] = append(have[owner], k.id)
		}
		for _, id := range have[owner] {
			m.oracle.packages[id] = owner
		}
	}
	for id, owner := range m.oracle.packages {
		_, found, err := m.engine.Payload(owner, id)
		m.check(err)
		if want := slices.Contains(have[owner], id); found != want {
			t.Fatalf("package %x: bytes there %v, in the model %v", id, found, want)
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
