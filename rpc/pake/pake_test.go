package pake

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/bytemare/opaque"
)

type world struct {
	server   *Server
	material *Material
	id       []byte
	record   []byte
	export   []byte
}

var password = []byte("correct horse battery staple")

// register makes a server and one record on it.
func register(t testing.TB, ksf KSF) *world {
	t.Helper()
	w := &world{material: NewMaterial(), id: bytes.Repeat([]byte{7}, CredentialIDSize)}
	var err error
	if w.server, err = NewServer(w.material); err != nil {
		t.Fatal(err)
	}
	client, request, err := StartRegistration(password, ksf)
	if err != nil {
		t.Fatal(err)
	}
	response, err := w.server.RegistrationResponse(request, w.id)
	if err != nil {
		t.Fatal(err)
	}
	if w.record, w.export, err = client.Finish(response); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][2]int{
		"request": {len(request), RegistrationRequestSize}, "response": {len(response), RegistrationResponseSize},
		"record": {len(w.record), RecordSize}, "export key": {len(w.export), ExportKeySize},
	} {
		if got[0] != got[1] {
			t.Fatalf("%s of %d bytes, want %d", name, got[0], got[1])
		}
	}
	return w
}

type login struct {
	ke1, ke2, ke3        []byte
	clientKey, serverKey []byte
	export               []byte
	clientErr, serverErr error
	state                *LoginState
}

// login runs a whole login against a server and record.
func (w *world) login(t testing.TB, server *Server, record, id, password []byte, ksf KSF) (l login) {
	t.Helper()
	client, ke1, err := StartLogin(password, ksf)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := server.ParseRecord(record)
	if err != nil {
		t.Fatal(err)
	}
	l.ke1 = ke1
	if l.ke2, l.state, err = server.LoginStart(ke1, parsed, id); err != nil {
		t.Fatal(err)
	}
	if len(ke1) != KE1Size || len(l.ke2) != KE2Size {
		t.Fatalf("KE1 of %d, KE2 of %d bytes", len(ke1), len(l.ke2))
	}
	l.ke3, l.clientKey, l.export, l.clientErr = client.Finish(l.ke2)
	if l.clientErr == nil {
		l.serverKey, l.serverErr = server.LoginFinish(l.state, l.ke3)
	}
	return l
}

func (w *world) checkGood(t *testing.T, l login) {
	t.Helper()
	if l.clientErr != nil || l.serverErr != nil {
		t.Fatalf("login failed: client %v, server %v", l.clientErr, l.serverErr)
	}
	if len(l.ke3) != KE3Size || len(l.clientKey) != SessionKeySize {
		t.Errorf("KE3 of %d, session key of %d bytes", len(l.ke3), len(l.clientKey))
	}
	if !bytes.Equal(l.clientKey, l.serverKey) {
		t.Error("client and server have different session keys")
	}
	if !bytes.Equal(l.export, w.export) {
		t.Error("the export key differs from the one at registration")
	}
}

// The profile itself, with Argon2id as it is used by people.
func TestRealProfile(t *testing.T) {
	w := register(t, KSF{})
	w.checkGood(t, w.login(t, w.server, w.record, w.id, password, KSF{}))
	if l := w.login(t, w.server, w.record, w.id, password, InsecureKSF()); !errors.Is(l.clientErr, ErrAuthentication) {
		t.Errorf("a login with another KSF: %v", l.clientErr)
	}
}

// What the profile says, against what the library is given: a change here locks
// out every registered user.
func TestProfileIsFixed(t *testing.T) {
	if got, want := hex.EncodeToString(profile().Serialize()), "0101010707070000"; got != want {
		t.Errorf("configuration %s, want %s", got, want)
	}
	o := KSF{}.options()
	if len(o.KSFParameters) != 3 || o.KSFParameters[0] != 3 || o.KSFParameters[1] != 65536 || o.KSFParameters[2] != 4 {
		t.Errorf("Argon2id parameters %v, want t=3, 64 MiB, p=4", o.KSFParameters)
	}
	if !bytes.Equal(o.KSFSalt, make([]byte, 16)) || o.KSFLength != 64 {
		t.Errorf("salt %x, length %d", o.KSFSalt, o.KSFLength)
	}
}

func TestLogin(t *testing.T) {
	w := register(t, InsecureKSF())
	first := w.login(t, w.server, w.record, w.id, password, InsecureKSF())
	w.checkGood(t, first)
	second := w.login(t, w.server, w.record, w.id, password, InsecureKSF())
	w.checkGood(t, second)
	if bytes.Equal(first.clientKey, second.clientKey) || bytes.Equal(first.ke1, second.ke1) {
		t.Error("two logins have the same key or KE1")
	}
	if _, err := w.server.LoginFinish(first.state, second.ke3); !errors.Is(err, ErrAuthentication) {
		t.Errorf("the KE3 of another login: %v", err)
	}
}

func TestLoginFails(t *testing.T) {
	w := register(t, InsecureKSF())
	other := register(t, InsecureKSF())
	fake, err := NewFakeRecord()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name       string
		server     *Server
		record, id []byte
		password   string
	}{
		{"wrong password", w.server, w.record, w.id, "wrong"},
		{"empty password", w.server, w.record, w.id, ""},
		{"another credential identifier", w.server, w.record, make([]byte, CredentialIDSize), string(password)},
		{"another server's keys", other.server, w.record, w.id, string(password)},
		{"another user's record", w.server, other.record, w.id, string(password)},
		{"fake record", w.server, fake, w.id, string(password)},
	} {
		l := w.login(t, tt.server, tt.record, tt.id, []byte(tt.password), InsecureKSF())
		if !errors.Is(l.clientErr, ErrAuthentication) || l.clientKey != nil || l.export != nil {
			t.Errorf("%s: client error %v, keys %x %x", tt.name, l.clientErr, l.clientKey, l.export)
		}
	}
}

func TestFakeRecordLooksReal(t *testing.T) {
	fake, err := NewFakeRecord()
	if err != nil || len(fake) != RecordSize {
		t.Fatalf("%d bytes, %v", len(fake), err)
	}
	other, err := NewFakeRecord()
	if err != nil || bytes.Equal(fake, other) {
		t.Errorf("two fake records are the same (%v)", err)
	}
	w := register(t, InsecureKSF())
	if _, err := w.server.ParseRecord(fake); err != nil {
		t.Error(err)
	}
}

func TestMaterial(t *testing.T) {
	w := register(t, InsecureKSF())
	stored := w.material.Marshal()
	if len(stored) != MaterialSize {
		t.Fatalf("%d bytes, want %d", len(stored), MaterialSize)
	}
	again, err := ParseMaterial(stored)
	if err != nil {
		t.Fatal(err)
	}
	if *again != *w.material {
		t.Error("material changed by storing it")
	}
	restarted, err := NewServer(again)
	if err != nil {
		t.Fatal(err)
	}
	w.checkGood(t, w.login(t, restarted, w.record, w.id, password, InsecureKSF()))
}

func TestParseMaterialRefuses(t *testing.T) {
	good := NewMaterial().Marshal()
	other := NewMaterial().Marshal()
	change := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	for _, tt := range []struct {
		name string
		b    []byte
	}{
		{"empty", nil},
		{"short", good[:MaterialSize-1]},
		{"long", append(bytes.Clone(good), 0)},
		{"newer version", change(func(b []byte) { b[0] = 2 })},
		{"zero seed", change(func(b []byte) { clear(b[1:65]) })},
		{"zero private key", change(func(b []byte) { clear(b[65:97]) })},
		{"private key not reduced", change(func(b []byte) { copy(b[65:97], bytes.Repeat([]byte{0xff}, 32)) })},
		{"identity as public key", change(func(b []byte) { clear(b[97:]) })},
		{"public key off the group", change(func(b []byte) { copy(b[97:], bytes.Repeat([]byte{0xff}, 32)) })},
		{"keys of two pairs", change(func(b []byte) { copy(b[97:], other[97:]) })},
	} {
		if m, err := ParseMaterial(tt.b); !errors.Is(err, ErrMaterial) || m != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestStatesServeOnce(t *testing.T) {
	w := register(t, InsecureKSF())
	registration, request, err := StartRegistration(password, InsecureKSF())
	if err != nil {
		t.Fatal(err)
	}
	response, err := w.server.RegistrationResponse(request, w.id)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := registration.Finish(response); err != nil {
		t.Fatal(err)
	}
	if _, _, err := registration.Finish(response); !errors.Is(err, ErrUsed) {
		t.Errorf("second Finish of a registration: %v", err)
	}
	client, _, err := StartLogin(password, InsecureKSF())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, _, _, err = client.Finish(nil)
	}
	if !errors.Is(err, ErrUsed) {
		t.Errorf("second Finish of a login: %v", err)
	}
}

// The caller may wipe or change the password and the messages afterwards.
func TestInputsAreCopied(t *testing.T) {
	w := register(t, InsecureKSF())
	mine := bytes.Clone(password)
	client, ke1, err := StartLogin(mine, InsecureKSF())
	if err != nil {
		t.Fatal(err)
	}
	clear(mine)
	stored := bytes.Clone(w.record)
	record, err := w.server.ParseRecord(stored)
	if err != nil {
		t.Fatal(err)
	}
	clear(stored)
	ke2, state, err := w.server.LoginStart(ke1, record, w.id)
	if err != nil {
		t.Fatal(err)
	}
	ke3, _, _, err := client.Finish(ke2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.server.LoginFinish(state, ke3); err != nil {
		t.Error(err)
	}
}

// The library as another implementation would use it, by the profile's words.
func TestAgainstTheLibraryAlone(t *testing.T) {
	w := register(t, KSF{cheap: true})
	client, err := opaque.DefaultConfiguration().Client()
	if err != nil {
		t.Fatal(err)
	}
	ke1, err := client.GenerateKE1(password)
	if err != nil {
		t.Fatal(err)
	}
	record, err := w.server.ParseRecord(w.record)
	if err != nil {
		t.Fatal(err)
	}
	ke2, state, err := w.server.LoginStart(ke1.Serialize(), record, w.id)
	if err != nil {
		t.Fatal(err)
	}
	m, err := client.Deserialize.KE2(ke2)
	if err != nil {
		t.Fatal(err)
	}
	ke3, key, _, err := client.GenerateKE3(m, nil, nil, KSF{cheap: true}.options())
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.server.LoginFinish(state, ke3.Serialize())
	if err != nil || !bytes.Equal(got, key) {
		t.Errorf("session keys differ, %v", err)
	}
}

// BenchmarkKE2 is the server's share of a login; Library is the library alone.
func BenchmarkKE2(b *testing.B) {
	w := register(b, InsecureKSF())
	_, ke1, err := StartLogin(password, InsecureKSF())
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Profile", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			record, err := w.server.ParseRecord(w.record)
			if err != nil {
				b.Fatal(err)
			}
			if _, _, err := w.server.LoginStart(ke1, record, w.id); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Library", func(b *testing.B) {
		s := w.server.inner
		m, err := s.Deserialize.KE1(ke1)
		if err != nil {
			b.Fatal(err)
		}
		record, err := s.Deserialize.RegistrationRecord(w.record)
		if err != nil {
			b.Fatal(err)
		}
		client := &opaque.ClientRecord{RegistrationRecord: record, CredentialIdentifier: w.id}
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := s.GenerateKE2(m, client); err != nil {
				b.Fatal(err)
			}
		}
	})
}
