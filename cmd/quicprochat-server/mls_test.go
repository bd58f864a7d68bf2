package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thomas-vilte/mls-go/ciphersuite"
	"github.com/thomas-vilte/mls-go/credentials"
	"github.com/thomas-vilte/mls-go/keypackages"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// TestMLSGroup has three people run MLS groups over the real program: KeyPackages
// of two suites go up and come down, a Welcome, its commit and the new members are
// one decision of a channel, messages go to and fro, of two commits that race exactly one counts
// for everybody, somebody is removed, and the server dies in the middle. In the
// end those who are left are in the same epoch, by its authenticator.
func TestMLSGroup(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := filepath.Join(t.TempDir(), "data")
	server := serverProcess(t, "--data-dir", dir, "--listen", lastingAddress(t))
	restart := func() {
		t.Helper()
		if _, err := server.kill(); err != nil {
			t.Fatal(err)
		}
		server = serverProcess(t, "--data-dir", dir, "--listen", server.address, "--no-create")
	}
	people := []*person{}
	for _, name := range []string{"alice", "bob", "carol"} {
		people = append(people, loadPerson(ctx, t, name, server.address, dir))
	}
	refusedPackages(ctx, t, people[0], people[1])

	var members []*mlsMember
	for _, suite := range []ciphersuite.CipherSuite{3, 1} {
		var seen []uint64
		for _, m := range members {
			seen = append(seen, m.seen)
		}
		members = members[:0]
		for i, p := range people {
			m := newMember(t, p, suite)
			if len(seen) > 0 {
				m.seen = seen[i]
			}
			members = append(members, m)
			m.publish(ctx, 3)
		}
		begin(ctx, t, members)
		talk(ctx, t, members, "hello")
	}
	alice, bob, carol := members[0], members[1], members[2]

	race(ctx, t, members, func() {})
	race(ctx, t, members, restart)
	talk(ctx, t, members, "after the kill")

	// A KeyPackage is taken while the server dies: no two get the same.
	var packages [2]*keypackages.KeyPackage
	together(func() { packages[0] = bob.take(ctx, carol.person) }, func() { packages[1] = alice.take(ctx, carol.person) }, restart)
	if packages[0] == nil || packages[1] == nil {
		t.FailNow() // take has said why
	}
	if bytes.Equal(packages[0].Marshal(), packages[1].Marshal()) {
		t.Error("alice and bob got the same KeyPackage")
	}

	commit, _ := alice.stage(nil, carol)
	win(ctx, alice, commit, nil, nil, []*mlsMember{carol})
	bob.catchUp(ctx)
	secret, err := alice.say(ctx, "carol is gone")
	alice.check(err)
	bob.catchUp(ctx)
	if got := bob.read[len(bob.read)-1]; got != "alice: carol is gone" {
		t.Errorf("bob read %q", got)
	}
	// She gets the commit that removes her, and nothing after it; it would not help.
	page, err := carol.client.Fetch(ctx, &pb.FetchRequest{AfterSeq: &carol.seen})
	carol.check(err)
	if n := len(page.GetEnvelopes()); n != 1 || !bytes.Equal(page.GetEnvelopes()[0].GetPayload(), commit) || carol.receive(ctx, secret) == nil {
		t.Errorf("carol has %d messages, or reads on though she was removed", n)
	}
	carol.seen, carol.seq = page.GetEnvelopes()[0].GetSeq(), page.GetEnvelopes()[0].GetChannelSeq()
	sameEpoch(t, members[:2])
	if bytes.Equal(carol.group.EpochAuthenticator(), alice.group.EpochAuthenticator()) {
		t.Error("carol is still in the epoch")
	}

	// Back again, with the KeyPackage that alice took.
	commit, welcome := alice.stage(packages[1:])
	win(ctx, alice, commit, welcome, members[2:], nil)
	for _, m := range members {
		m.catchUp(ctx)
	}
	sameEpoch(t, members)
	talk(ctx, t, members, "together again")
	stopCleanly(t, server)
}

// win posts a commit that nobody races.
func win(ctx context.Context, m *mlsMember, commit, welcome []byte, join, leave []*mlsMember) {
	m.t.Helper()
	won, err := m.post(ctx, commit, welcome, join, leave)
	m.check(err)
	if !won {
		m.t.Fatalf("%s: a commit without a rival lost", m.name)
	}
}

// begin founds a group of the first member's and adds the others.
func begin(ctx context.Context, t *testing.T, members []*mlsMember) {
	t.Helper()
	founder := members[0]
	founder.found(ctx)
	var add []*keypackages.KeyPackage
	for _, m := range members[1:] {
		add = append(add, founder.take(ctx, m.person))
		m.channel = founder.channel
	}
	commit, welcome := founder.stage(add)
	win(ctx, founder, commit, welcome, members[1:], nil)
	for _, m := range members {
		m.catchUp(ctx)
	}
	sameEpoch(t, members)
}

// talk has everybody say something that all others must read.
func talk(ctx context.Context, t *testing.T, members []*mlsMember, text string) {
	t.Helper()
	for _, m := range members {
		_, err := m.say(ctx, text)
		m.check(err)
	}
	for _, m := range members {
		before := len(m.read)
		m.catchUp(ctx)
		var want []string
		for _, from := range members {
			if from != m {
				want = append(want, from.name+": "+text)
			}
		}
		if got := m.read[before:]; !slices.Equal(got, want) {
			t.Errorf("%s read %q, want %q", m.name, got, want)
		}
	}
}

// race has the last two members commit at once, while something happens: exactly
// one of the commits counts, and the same for everybody.
func race(ctx context.Context, t *testing.T, members []*mlsMember, meanwhile func()) {
	t.Helper()
	before := members[0].group.Epoch().AsUint64()
	var won atomic.Int64
	var posts []func()
	for _, m := range members[1:] {
		commit, _ := m.stage(nil)
		posts = append(posts, func() {
			first, err := m.post(ctx, commit, nil, nil, nil)
			if err != nil {
				t.Errorf("%s: %v", m.name, err)
			}
			if first {
				won.Add(1)
			}
		})
	}
	together(append(posts, meanwhile)...)
	if n := won.Load(); n != 1 {
		t.Errorf("%d of two commits won", n)
	}
	for _, m := range members {
		m.catchUp(ctx)
		if epoch := m.group.Epoch().AsUint64(); epoch != before+1 {
			t.Errorf("%s is in epoch %d, was in %d", m.name, epoch, before)
		}
	}
	sameEpoch(t, members)
}

// together runs functions at once, the last one here.
func together(all ...func()) {
	var others sync.WaitGroup
	for _, f := range all[:len(all)-1] {
		others.Go(f)
	}
	all[len(all)-1]()
	others.Wait()
}

func sameEpoch(t *testing.T, members []*mlsMember) {
	t.Helper()
	first := members[0].group
	for _, m := range members[1:] {
		if m.group.Epoch() != first.Epoch() || !bytes.Equal(m.group.EpochAuthenticator(), first.EpochAuthenticator()) {
			t.Errorf("%s is in epoch %d with another authenticator than %s in %d", m.name, m.group.Epoch().AsUint64(), members[0].name, first.Epoch().AsUint64())
		}
	}
	if len(first.EpochAuthenticator()) == 0 {
		t.Error("an epoch without an authenticator")
	}
}

// refusedPackages are what an MLS client can make and this server does not take.
func refusedPackages(ctx context.Context, t *testing.T, p, other *person) {
	t.Helper()
	good := newMember(t, p, 1)
	spoiled := good.newPackage().public.Marshal()
	spoiled[len(spoiled)-1] ^= 1
	nist, _, err := credentials.GenerateCredentialWithKeyForCS([]byte(p.name), 2)
	good.check(err)
	p256, _, err := keypackages.Generate(nist, 2)
	good.check(err)
	for _, c := range []struct {
		name string
		data []byte
		want pb.Reason
	}{
		{"a signature that does not verify", spoiled, pb.Reason_KEY_PACKAGE_INVALID},
		{"half a package", spoiled[:100], pb.Reason_KEY_PACKAGE_INVALID},
		{"an endless lifetime", good.newPackage(keypackages.InfiniteLifetime()).public.Marshal(), pb.Reason_KEY_PACKAGE_LIFETIME},
		{"a P-256 suite", p256.Marshal(), pb.Reason_KEY_PACKAGE_SUITE},
		{"another's package", newMember(t, other, 1).newPackage().public.Marshal(), pb.Reason_KEY_PACKAGE_DEVICE},
	} {
		if _, err := p.client.UploadKeyPackages(ctx, c.data); client.ReasonOf(err) != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	resp, err := p.client.UploadKeyPackages(ctx)
	good.check(err)
	if len(resp.GetCounts()) != 0 || fmt.Sprint(resp.GetCipherSuites()) != "[1 3]" {
		t.Errorf("what was refused is there: %v", resp)
	}
}
