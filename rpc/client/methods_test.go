package client

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// onItsWord makes a Client that takes the word of a server which has no log.
func onItsWord(c *Config) { c.Transparency.Off = true }

func TestHybridKeys(t *testing.T) {
	s := newCeremonies(t)
	c := s.dial(onItsWord)
	alice, mallory := newPerson(t, "alice"), newPerson(t, "mallory")
	registration := s.register(t, c, alice)
	var mu sync.Mutex
	var uploaded *pb.KeySet
	s.on("UploadHybridKey", func(c *fakeCall) {
		mu.Lock()
		defer mu.Unlock()
		uploaded = c.req.(*pb.UploadHybridKeyRequest).Keyset
		c.ok(&pb.UploadHybridKeyResponse{Version: uploaded.Version})
	})
	hybrid := bytes.Repeat([]byte{5}, statement.HybridKeySize)
	next, err := c.UploadHybridKey(t.Context(), alice.identity, registration.KeySet, hybrid)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if !proto.Equal(next, uploaded) {
		t.Errorf("returned %v, uploaded %v", next, uploaded)
	}
	mu.Unlock()
	if err := statement.VerifyKeySet(fakeName, next); err != nil {
		t.Error(err)
	}
	if err := statement.VerifySuccessor(fakeName, registration.KeySet, next); err != nil {
		t.Error(err)
	}
	if _, err := c.UploadHybridKey(t.Context(), mallory.identity, next, hybrid); err == nil {
		t.Error("with another identity's key")
	}
	if _, err := c.UploadHybridKey(t.Context(), alice.identity, next, hybrid[1:]); err == nil {
		t.Error("with a key that is too short")
	}

	identity, other := public(alice.identity), public(mallory.identity)
	forged := proto.CloneOf(next)
	forged.HybridKey[0] ^= 1
	for name, tt := range map[string]struct {
		keyset *pb.KeySet
		want   error
	}{
		"good": {next, nil}, "none": {nil, nil}, "forged": {forged, ErrKeySet},
		"unsigned": {&pb.KeySet{IdentityKey: identity}, ErrKeySet},
	} {
		s.on("FetchHybridKey", func(c *fakeCall) { c.ok(&pb.FetchHybridKeyResponse{Keyset: tt.keyset}) })
		_, err := c.FetchHybridKey(t.Context(), &pb.FetchHybridKeyRequest{IdentityKey: identity})
		if !errors.Is(err, tt.want) {
			t.Errorf("FetchHybridKey, %s: %v", name, err)
		}
		s.on("FetchHybridKeys", func(c *fakeCall) {
			c.ok(&pb.FetchHybridKeysResponse{Entries: []*pb.FetchHybridKeysResponse_Entry{{}, {Keyset: tt.keyset}}})
		})
		_, err = c.FetchHybridKeys(t.Context(), &pb.FetchHybridKeysRequest{IdentityKeys: [][]byte{other, identity}})
		if !errors.Is(err, tt.want) {
			t.Errorf("FetchHybridKeys, %s: %v", name, err)
		}
	}
	s.on("FetchHybridKey", func(c *fakeCall) { c.ok(&pb.FetchHybridKeyResponse{Keyset: next}) })
	if _, err := c.FetchHybridKey(t.Context(), &pb.FetchHybridKeyRequest{IdentityKey: other}); !errors.Is(err, ErrKeySet) {
		t.Errorf("somebody else's KeySet: %v", err)
	}
	_, err = c.FetchHybridKeys(t.Context(), &pb.FetchHybridKeysRequest{IdentityKeys: [][]byte{identity}})
	if !errors.Is(err, ErrProtocol) {
		t.Errorf("two entries for one key: %v", err)
	}
}

// Every typed helper reaches its method and returns its reply.
func TestTypedCalls(t *testing.T) {
	f := newFake(t)
	for _, m := range rpc.Methods() {
		f.on(m.Name, func(c *fakeCall) {
			resp := m.NewResponse()
			if h, ok := resp.(*pb.HealthResponse); ok {
				h.ServerName = fakeName
			}
			c.ok(resp)
		})
	}
	c := f.dial(onItsWord)
	ctx := t.Context()
	calls := map[string]func() error{
		"Health":          func() error { _, err := c.Health(ctx); return err },
		"Enqueue":         func() error { _, err := c.Enqueue(ctx, message()); return err },
		"BatchEnqueue":    func() error { _, err := c.BatchEnqueue(ctx, new(pb.BatchEnqueueRequest)); return err },
		"Fetch":           func() error { _, err := c.Fetch(ctx, new(pb.FetchRequest)); return err },
		"FetchWait":       func() error { _, err := c.FetchWait(ctx, new(pb.FetchWaitRequest)); return err },
		"Peek":            func() error { _, err := c.Peek(ctx, new(pb.PeekRequest)); return err },
		"Ack":             func() error { _, err := c.Ack(ctx, new(pb.AckRequest)); return err },
		"FetchHybridKey":  func() error { _, err := c.FetchHybridKey(ctx, new(pb.FetchHybridKeyRequest)); return err },
		"FetchHybridKeys": func() error { _, err := c.FetchHybridKeys(ctx, new(pb.FetchHybridKeysRequest)); return err },
		"ResolveUser":     func() error { _, err := c.ResolveUser(ctx, "alice"); return err },
		"CreateChannel":   func() error { _, err := c.CreateChannel(ctx, new(pb.CreateChannelRequest)); return err },
		"AddMember":       func() error { _, err := c.AddMember(ctx, new(pb.AddMemberRequest)); return err },
		"RemoveMember":    func() error { _, err := c.RemoveMember(ctx, new(pb.RemoveMemberRequest)); return err },
		"RotateKeys":      func() error { _, err := c.RotateKeys(ctx, new(pb.RotateKeysRequest)); return err },
		"UpdateGroupMetadata": func() error {
			_, err := c.UpdateGroupMetadata(ctx, new(pb.UpdateGroupMetadataRequest))
			return err
		},
		"ListGroupMembers": func() error { _, err := c.ListGroupMembers(ctx, new(pb.ListGroupMembersRequest)); return err },
		"UploadKeyPackage": func() error { _, err := c.UploadKeyPackages(ctx, []byte("one")); return err },
		"FetchKeyPackage":  func() error { _, err := c.FetchKeyPackage(ctx, new(pb.FetchKeyPackageRequest)); return err },
		"RevokeKey": func() error {
			_, err := c.RevokeKey(ctx, &pb.RevokeKeyRequest{Signature: make([]byte, 64)})
			return err
		},
		"RegisterDevice": func() error {
			_, identity, err := ed25519.GenerateKey(nil)
			if err != nil {
				return err
			}
			_, device, err := ed25519.GenerateKey(nil)
			if err != nil {
				return err
			}
			current := &pb.KeySet{IdentityKey: public(identity), DeviceKeys: [][]byte{public(identity)}, TimeMs: 1}
			_, err = c.RegisterDevice(ctx, NewDevice{
				Identity: identity, Known: &Devices{KeySet: current}, Consent: c.Consent(public(identity), device),
			})
			return err
		},
		"ListDevices": func() error {
			c.SetSession(Session{Token: make([]byte, tokenSize), Scope: pb.SessionScope_DEVICE})
			_, err := c.ListDevices(ctx)
			return err
		},
		"RevokeDevice": func() error { _, err := c.RevokeDevice(ctx, LostDevice{Device: make([]byte, 32)}); return err },
		"ReportMessage": func() error {
			_, err := c.ReportMessage(ctx, new(pb.ReportMessageRequest))
			return err
		},
		"BanUser":         func() error { _, err := c.BanUser(ctx, new(pb.BanUserRequest)); return err },
		"UnbanUser":       func() error { _, err := c.UnbanUser(ctx, new(pb.UnbanUserRequest)); return err },
		"ListReports":     func() error { _, err := c.ListReports(ctx, new(pb.ListReportsRequest)); return err },
		"ListBanned":      func() error { _, err := c.ListBanned(ctx, new(pb.ListBannedRequest)); return err },
		"ResolveReport":   func() error { _, err := c.ResolveReport(ctx, new(pb.ResolveReportRequest)); return err },
		"CheckRevocation": func() error { _, err := c.CheckRevocation(ctx, new(pb.CheckRevocationRequest)); return err },
		"AuditKeyTransparency": func() error {
			_, err := c.AuditKeyTransparency(ctx, new(pb.AuditKeyTransparencyRequest))
			return err
		},
	}
	for name, call := range calls {
		if err := call(); err != nil || f.count(name) != 1 {
			t.Errorf("%s: %v after %d calls", name, err, f.count(name))
		}
	}
	for _, m := range rpc.Methods() {
		ceremony := m.ID < 200 || m.Name == "UploadHybridKey" // have tests of their own
		if _, ok := calls[m.Name]; !ok && !ceremony {
			t.Errorf("%s has no typed call", m)
		}
	}
}

// Unless the caller says otherwise, a key without its proof is no key.
func TestKeysWithoutProof(t *testing.T) {
	s := newCeremonies(t)
	c := s.dial()
	alice := newPerson(t, "alice")
	if registration := s.register(t, c, alice); registration.Proved {
		t.Error("a reply without a proof proved the registration")
	}
	s.on("ResolveUser", func(c *fakeCall) {
		if c.req.(*pb.ResolveUserRequest).Proof == nil {
			t.Error("no proof was asked for")
		}
		c.ok(&pb.ResolveUserResponse{IdentityKey: public(alice.identity), Username: "alice"})
	})
	s.on("FetchHybridKey", func(c *fakeCall) { c.ok(&pb.FetchHybridKeyResponse{Keyset: new(pb.KeySet)}) })
	s.on("FetchKeyPackage", func(c *fakeCall) {
		c.ok(&pb.FetchKeyPackageResponse{Packages: []*pb.FetchKeyPackageResponse_Package{{DeviceKey: public(alice.device), KeyPackage: []byte("its")}}})
	})
	for name, call := range map[string]func() error{
		"FetchKeyPackage": func() error {
			_, err := c.FetchKeyPackage(t.Context(), &pb.FetchKeyPackageRequest{IdentityKey: public(alice.identity)})
			return err
		},
		"ResolveUser":    func() error { _, err := c.ResolveUser(t.Context(), "alice"); return err },
		"LookupUser":     func() error { _, err := c.LookupUser(t.Context(), "alice"); return err },
		"LookupIdentity": func() error { _, err := c.LookupIdentity(t.Context(), public(alice.identity)); return err },
		"FetchHybridKey": func() error {
			_, err := c.FetchHybridKey(t.Context(), &pb.FetchHybridKeyRequest{IdentityKey: public(alice.identity)})
			return err
		},
	} {
		if err := call(); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A device may leave between the taking of its package and the look at its identity:
// the package is left out, and the server is not accused.
func TestPackagesOfDevicesThatLeft(t *testing.T) {
	s := newCeremonies(t)
	c := s.dial()
	s.on("CheckRevocation", func(c *fakeCall) {
		answer := new(pb.CheckRevocationResponse)
		if string(c.req.(*pb.CheckRevocationRequest).GetKey()) == "left" {
			answer.Revocation = new(pb.Revocation)
		}
		c.ok(answer)
	})
	ofDevices := func(keys ...string) *kt.Identity {
		i := &kt.Identity{KeySet: new(pb.KeySet), DeviceRevocations: map[string]*kt.Revocation{"revoked": {}}}
		for _, key := range keys {
			i.KeySet.DeviceKeys = append(i.KeySet.DeviceKeys, []byte(key))
		}
		return i
	}
	ended := ofDevices("here")
	ended.Revocation = new(kt.Revocation)
	for name, test := range map[string]struct {
		identity *kt.Identity
		device   string
		gone     bool
		err      error
	}{
		"it is there":                {ofDevices("other", "here"), "here", false, nil},
		"the KeySet still lists it":  {ofDevices("revoked"), "revoked", true, nil},
		"the next KeySet is without": {ofDevices("other"), "left", true, nil},
		"the identity is revoked":    {ended, "here", true, nil},
		"it is a stranger's":         {ofDevices("other"), "stranger", false, ErrProtocol},
	} {
		if gone, err := c.leftSince(t.Context(), test.identity, []byte(test.device)); gone != test.gone || !errors.Is(err, test.err) {
			t.Errorf("%s: %v, %v", name, gone, err)
		}
	}
}
