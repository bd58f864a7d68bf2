package server_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/server"
	"quicprochat/rpc/sim"
)

// keyPackages makes KeyPackages of a person's device.
func (p *person) keyPackages(names ...string) *pb.UploadKeyPackageRequest {
	req := &pb.UploadKeyPackageRequest{SessionToken: p.token, RequestId: newRequestID()}
	for _, name := range names {
		made := sim.NewKeyPackage(public(p.device), 1, name, time.Now())
		if name == "last" {
			made.Extensions = append(made.Extensions, sim.LastResort)
		}
		req.KeyPackages = append(req.KeyPackages, made.Sign(p.device))
	}
	return req
}

func (p *person) fetchPackage(of *person) *pb.FetchKeyPackageRequest {
	return &pb.FetchKeyPackageRequest{SessionToken: p.token, RequestId: newRequestID(), IdentityKey: public(of.identity)}
}

// TestKeyPackagesOverTheWire: they come as they went, each once, again to a
// retry, and bob is told when few are left.
func TestKeyPackagesOverTheWire(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	var names []string
	for i := range 12 {
		names = append(names, fmt.Sprint(i))
	}
	upload := bob.keyPackages(names...)
	resp := must[*pb.UploadKeyPackageResponse](b, upload)
	if resp.GetStored() != 12 || len(resp.GetCounts()) != 1 || resp.GetCounts()[0].GetSingleUse() != 12 {
		t.Errorf("uploaded: %v", resp)
	}
	for i := range 3 {
		req := alice.fetchPackage(bob)
		for range 2 {
			got := must[*pb.FetchKeyPackageResponse](a, req).GetPackages()
			if len(got) != 1 || !bytes.Equal(got[0].GetKeyPackage(), upload.GetKeyPackages()[i]) || !bytes.Equal(got[0].GetDeviceKey(), public(bob.device)) {
				t.Errorf("package %d: %v", i, got)
			}
		}
	}
	// Twelve were there: the third fetch left nine, less than ten.
	if push := b.nextPush(); !push.GetKeyPackagesLow() || push.GetResync() || push.GetSeq() != 0 {
		t.Errorf("pushed %v", push)
	}
	nobody := &pb.FetchKeyPackageRequest{SessionToken: alice.token, RequestId: newRequestID(), IdentityKey: public(keyOf("nobody's"))}
	if got := must[*pb.FetchKeyPackageResponse](a, nobody); len(got.GetPackages()) != 0 {
		t.Errorf("packages of nobody: %v", got)
	}
	spoiled := bob.keyPackages("spoiled")
	spoiled.KeyPackages[0][200] ^= 1
	b.refused(spoiled, pb.Status_BadRequest, pb.Reason_KEY_PACKAGE_INVALID)
	a.refused(&pb.UploadKeyPackageRequest{SessionToken: alice.token, RequestId: newRequestID(), KeyPackages: upload.GetKeyPackages()[5:6]},
		pb.Status_BadRequest, pb.Reason_KEY_PACKAGE_DEVICE)
}

// TestKeyPackageBudget: six of one person to one who asks, then the last resort,
// and where there is none a refusal that tells how long to wait. Others are not
// hindered; a retry of what was served is served.
func TestKeyPackageBudget(t *testing.T) {
	w := boot(t, limited)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	carol, c := w.join("carol")
	must[*pb.UploadKeyPackageResponse](b, bob.keyPackages("1", "2", "3", "4", "5", "6", "7", "8"))
	first := alice.fetchPackage(bob)
	must[*pb.FetchKeyPackageResponse](a, first)
	for range 5 {
		must[*pb.FetchKeyPackageResponse](a, alice.fetchPackage(bob))
	}
	detail := a.refused(alice.fetchPackage(bob), pb.Status_RateLimited, pb.Reason_RATE)
	if wait := time.Duration(detail.GetRetryAfterMs()) * time.Millisecond; wait < 9*time.Minute || wait > 10*time.Minute+time.Second {
		t.Errorf("wait %v", wait)
	}
	if got := must[*pb.FetchKeyPackageResponse](a, first).GetPackages(); len(got) != 1 || got[0].GetLastResort() {
		t.Errorf("a retry got %v", got)
	}
	if got := must[*pb.FetchKeyPackageResponse](c, carol.fetchPackage(bob)).GetPackages(); len(got) != 1 || got[0].GetLastResort() {
		t.Errorf("carol got %v", got)
	}
	must[*pb.UploadKeyPackageResponse](b, bob.keyPackages("last"))
	for range 2 {
		if got := must[*pb.FetchKeyPackageResponse](a, alice.fetchPackage(bob)).GetPackages(); len(got) != 1 || !got[0].GetLastResort() {
			t.Errorf("alice got %v", got)
		}
	}
	if got := must[*pb.FetchKeyPackageResponse](c, carol.fetchPackage(bob)).GetPackages(); len(got) != 1 || got[0].GetLastResort() {
		t.Errorf("carol got %v", got)
	}
}

// TestKeyPackageTargetBudget: all who ask together get a hundred of one person's
// KeyPackages in an hour, however many they are. Then there is the last resort, and
// where there is none a refusal; others' packages are not touched by that.
func TestKeyPackageTargetBudget(t *testing.T) {
	w := boot(t, nil) // so many people register within the hour
	bob, b := w.join("bob")
	dora, d := w.join("dora")
	var askers []*person
	for i := range 17 {
		p, _ := w.join(fmt.Sprint("asker", i))
		askers = append(askers, p)
	}
	var most []string
	for i := range commands.MaxKeyPackages {
		most = append(most, fmt.Sprint(i))
	}
	must[*pb.UploadKeyPackageResponse](b, bob.keyPackages(most...))
	more := bob.keyPackages()
	for _, name := range []string{"more", "and more"} {
		more.KeyPackages = append(more.KeyPackages, sim.NewKeyPackage(public(bob.device), 3, name, time.Now()).Sign(bob.device))
	}
	must[*pb.UploadKeyPackageResponse](b, more)
	must[*pb.UploadKeyPackageResponse](d, dora.keyPackages("1"))
	w.stop()
	w.start(limited)

	served := 0
	for i, p := range askers[:16] {
		c := w.dial()
		for range 6 {
			if got := must[*pb.FetchKeyPackageResponse](c, p.fetchPackage(bob)).GetPackages(); len(got) != 1 || got[0].GetLastResort() {
				t.Fatalf("asker %d got %v", i, got)
			}
			served++
		}
	}
	last, c := askers[16], w.dial()
	r := c.send(last.fetchPackage(bob))
	for ; r.status == pb.Status_Ok && served < 102; r = c.send(last.fetchPackage(bob)) {
		served++ // one comes back every 36 s, should this take so long
	}
	detail := c.check(r, pb.Status_RateLimited, pb.Reason_RATE)
	// The budget of this asker alone, six, would have given two more, and told a
	// longer wait.
	if wait := time.Duration(detail.GetRetryAfterMs()) * time.Millisecond; served < 100 || served > 101 || wait <= 0 || wait > 36*time.Second+time.Second {
		t.Errorf("%d were given, then wait %v", served, wait)
	}
	if got := must[*pb.FetchKeyPackageResponse](c, last.fetchPackage(dora)).GetPackages(); len(got) != 1 {
		t.Errorf("of dora came %v", got)
	}
	must[*pb.UploadKeyPackageResponse](w.dial(), bob.keyPackages("last"))
	if got := must[*pb.FetchKeyPackageResponse](c, last.fetchPackage(bob)).GetPackages(); len(got) != 1 || !got[0].GetLastResort() {
		t.Errorf("then came %v", got)
	}
}

// TestKeyPackageSuites: what a server takes is its operator's choice.
func TestKeyPackageSuites(t *testing.T) {
	w := boot(t, func(c *server.Config) { c.MLSSuites = commands.KeyPackageSuites{3} })
	bob, b := w.join("bob")
	b.refused(bob.keyPackages("1"), pb.Status_BadRequest, pb.Reason_KEY_PACKAGE_SUITE)
	resp := must[*pb.UploadKeyPackageResponse](b, bob.keyPackages())
	if got := resp.GetCipherSuites(); len(got) != 1 || got[0] != 3 {
		t.Errorf("suites %v", got)
	}
	for _, wrong := range [][]uint16{nil, {2}, {1, 4}, {8}, {0}} {
		if _, err := commands.NewKeyPackageSuites(wrong); err == nil {
			t.Errorf("suites %v are taken", wrong)
		}
	}
	if got, err := commands.NewKeyPackageSuites([]uint16{3, 1, 3}); err != nil || fmt.Sprint([]any{uint16(got[0]), uint16(got[1]), len(got)}...) != "1 3 2" {
		t.Errorf("suites %v, %v", got, err)
	}
}
