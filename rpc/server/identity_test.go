package server

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quicprochat/commands/datadir"
)

// testDir is a data directory as far as certificates need one.
func testDir(t *testing.T, fs vfs.FS, path string) *datadir.Dir {
	t.Helper()
	if err := fs.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &datadir.Dir{FS: fs, Path: path, Secrets: &datadir.Secrets{CAKey: key}}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func open(t *testing.T, d *datadir.Dir) *identity {
	t.Helper()
	id, err := openIdentity(d, "", "", "chat.example.org", quiet())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestIssuedCertificates(t *testing.T) {
	id := open(t, testDir(t, vfs.NewMem(), "/data"))
	now := time.Now()
	leaf := id.current.Load().Leaf
	if leaf.IsCA || !id.ca.IsCA || leaf.PublicKeyAlgorithm != x509.ECDSA || leaf.PublicKey.(*ecdsa.PublicKey).Curve != elliptic.P256() {
		t.Errorf("leaf IsCA %v, CA IsCA %v, %v", leaf.IsCA, id.ca.IsCA, leaf.PublicKeyAlgorithm)
	}
	if life := leaf.NotAfter.Sub(now); life < 364*24*time.Hour || life > 366*24*time.Hour {
		t.Errorf("the leaf lives %v", life)
	}
	if life := id.ca.NotAfter.Sub(now); life < 3649*24*time.Hour || life > 3653*24*time.Hour {
		t.Errorf("the CA lives %v", life)
	}
	pool := x509.NewCertPool()
	pool.AddCert(id.ca)
	for _, name := range []string{"chat.example.org", "localhost", "127.0.0.1", "::1"} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "evil.example.org"}); err == nil {
		t.Error("verified for another name")
	}
}

func TestCertificatesStay(t *testing.T) {
	d := testDir(t, vfs.NewMem(), "/data")
	first, second := open(t, d), open(t, d)
	if !bytes.Equal(first.ca.Raw, second.ca.Raw) || !bytes.Equal(first.current.Load().Leaf.Raw, second.current.Load().Leaf.Raw) {
		t.Error("a second start made other certificates")
	}
	if !second.isOwn() {
		t.Error("the own leaf is not recognised")
	}
}

func TestRenewal(t *testing.T) {
	d := testDir(t, vfs.NewMem(), "/data")
	id := open(t, d)
	first := id.current.Load().Leaf
	id.check(first.NotBefore.Add(leafLifetime / 2)) // too early
	if id.current.Load().Leaf != first {
		t.Fatal("renewed at half of its life")
	}
	due := time.Now().Add(leafLifetime * 7 / 10)
	id.check(due)
	renewed := id.current.Load().Leaf
	if renewed == first || !renewed.NotAfter.After(first.NotAfter) || bytes.Equal(renewed.RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo) {
		t.Error("not renewed with a key of its own")
	}
	pool := x509.NewCertPool()
	pool.AddCert(id.ca)
	if _, err := renewed.Verify(x509.VerifyOptions{Roots: pool, DNSName: "chat.example.org", CurrentTime: due}); err != nil {
		t.Errorf("who pinned the CA refuses the renewed leaf: %v", err)
	}
	if got := open(t, d).current.Load().Leaf; !bytes.Equal(got.Raw, renewed.Raw) {
		t.Error("the renewed leaf was not stored")
	}
}

// TestRenewalFailure keeps the certificate in use when the new one can't be
// stored.
func TestRenewalFailure(t *testing.T) {
	d := testDir(t, vfs.NewMem(), "/data")
	id := open(t, d)
	first := id.current.Load()
	id.fs = errorfs.Wrap(id.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate {
			return errors.New("no space")
		}
		return nil
	}))
	id.check(time.Now().Add(leafLifetime * 9 / 10))
	if id.current.Load() != first {
		t.Error("the certificate in use was given up")
	}
}

// TestCrashDuringRenewal cuts a renewal off at each file operation: the next
// start must have a pair that fits, without help.
func TestCrashDuringRenewal(t *testing.T) {
	for stop := 0; ; stop++ {
		d := testDir(t, vfs.NewMem(), "/data")
		id := open(t, d)
		operations := 0
		id.fs = errorfs.Wrap(id.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
				return nil
			}
			if operations++; operations > stop {
				return errors.New("power cut")
			}
			return nil
		}))
		id.check(time.Now().Add(leafLifetime * 9 / 10))
		if pair := open(t, d).current.Load(); !matches(pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)) {
			t.Errorf("after %d operations: key and certificate do not match", stop)
		}
		for _, left := range []string{keyFile + pending} {
			if _, err := d.FS.Stat(d.File(left)); err == nil {
				t.Errorf("after %d operations: %s is left", stop, left)
			}
		}
		if operations <= stop {
			if stop < 5 {
				t.Errorf("only %d operations", operations)
			}
			return
		}
	}
}

func TestCARenewal(t *testing.T) {
	d := testDir(t, vfs.NewMem(), "/data")
	id := open(t, d)
	old := id.ca
	later := time.Now().Add(caLifetime * 7 / 10)
	if err := id.loadCA(later); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(old.Raw, id.ca.Raw) || !bytes.Equal(old.RawSubjectPublicKeyInfo, id.ca.RawSubjectPublicKeyInfo) {
		t.Error("want a new certificate for the same key")
	}
	id.mu.Lock()
	err := id.issue(later)
	id.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	for name, ca := range map[string]*x509.Certificate{"old": old, "new": id.ca} {
		pool := x509.NewCertPool()
		pool.AddCert(ca)
		if _, err := id.current.Load().Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "localhost", CurrentTime: later}); err != nil {
			t.Errorf("who pinned the %s CA refuses the leaf: %v", name, err)
		}
	}
}

func TestNewServerNameNewLeaf(t *testing.T) {
	d := testDir(t, vfs.NewMem(), "/data")
	open(t, d)
	id, err := openIdentity(d, "", "", "other.example.org", quiet())
	if err != nil {
		t.Fatal(err)
	}
	if err := id.current.Load().Leaf.VerifyHostname("other.example.org"); err != nil {
		t.Error(err)
	}
}

// operatorPair is a pair that somebody else issued.
func operatorPair(t *testing.T, lifetime time.Duration) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "operator"},
		NotBefore: time.Now().Add(-lifetime), NotAfter: time.Now().Add(lifetime / 100),
		DNSNames: []string{"chat.example.org"}, IPAddresses: []net.IP{net.IPv6loopback},
	}
	cert, err = x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	key, err = x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func writeBoth(t *testing.T, d *datadir.Dir, cert, key []byte) {
	t.Helper()
	id := &identity{fs: d.FS}
	for name, content := range map[string][]byte{certFile: cert, keyFile: key} {
		if err := id.write(d.File(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOperatorsPairIsUsedAsItIs(t *testing.T) {
	d := testDir(t, vfs.NewMem(), "/data")
	cert, key := operatorPair(t, 100*time.Hour) // 99 % of its life are over
	writeBoth(t, d, cert, key)
	id := open(t, d)
	id.check(time.Now())
	if !bytes.Equal(id.current.Load().Certificate[0], cert) || id.isOwn() {
		t.Error("the operator's certificate was replaced")
	}
	// Another pair, loaded at SIGHUP; and a broken one, which changes nothing.
	cert2, key2 := operatorPair(t, time.Hour)
	writeBoth(t, d, cert2, key2)
	if err := id.reload(); err != nil || !bytes.Equal(id.current.Load().Certificate[0], cert2) {
		t.Errorf("reload: %v", err)
	}
	writeBoth(t, d, cert, key2)
	if err := id.reload(); err == nil || !bytes.Equal(id.current.Load().Certificate[0], cert2) {
		t.Errorf("reload of a pair that does not match: %v", err)
	}
	if got, err := id.certificate(&tls.ClientHelloInfo{}); err != nil || !bytes.Equal(got.Certificate[0], cert2) {
		t.Errorf("new handshakes get another certificate: %v", err)
	}
}

func TestRefusedPairs(t *testing.T) {
	cert, key := operatorPair(t, time.Hour)
	_, other := operatorPair(t, time.Hour)
	tests := []struct {
		name      string
		cert, key []byte
		word      string
	}{
		{"certificate missing", nil, key, "missing"},
		{"key missing", cert, nil, "missing"},
		{"certificate is text", []byte("-----BEGIN CERTIFICATE-----"), key, "outform der"},
		{"certificate empty", []byte{}, key, "outform der"},
		{"key is text", cert, []byte("-----BEGIN PRIVATE KEY-----"), "outform der"},
		{"key of another pair", cert, other, "one pair"},
		{"huge certificate", make([]byte, maxCertificateFile+1), key, "larger"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := testDir(t, vfs.NewMem(), "/data")
			id := &identity{fs: d.FS}
			for name, content := range map[string][]byte{certFile: test.cert, keyFile: test.key} {
				if content == nil {
					continue
				}
				if err := id.write(d.File(name), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := openIdentity(d, "", "", "chat.example.org", quiet())
			if err == nil || !strings.Contains(err.Error(), test.word) {
				t.Errorf("got %v, want a word of %q", err, test.word)
			}
		})
	}
}

func TestRefusedCA(t *testing.T) {
	d := testDir(t, vfs.NewMem(), "/data")
	open(t, d)
	d.Secrets.CAKey, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if _, err := openIdentity(d, "", "", "chat.example.org", quiet()); err == nil || !strings.Contains(err.Error(), "CA key") {
		t.Errorf("CA of another key: %v", err)
	}
	if err := (&identity{fs: d.FS}).write(d.File(caFile), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openIdentity(d, "", "", "chat.example.org", quiet()); err == nil || !strings.Contains(err.Error(), "no DER") {
		t.Errorf("no certificate: %v", err)
	}
}

// TestModesOnDisk: the key is 0600 whatever the umask, and one that others may
// read is refused.
func TestModesOnDisk(t *testing.T) {
	dir := t.TempDir()
	d := testDir(t, vfs.Default, dir)
	open(t, d)
	for name, want := range map[string]os.FileMode{keyFile: 0o600, certFile: 0o644, caFile: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v (%v)", name, info.Mode().Perm(), want, err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, keyFile), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := openIdentity(d, "", "", "chat.example.org", quiet()); !errors.Is(err, datadir.ErrMode) {
		t.Errorf("key that others may read: %v", err)
	}
}

func TestParseKey(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, _ := ed25519.GenerateKey(nil)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(ed)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{"SEC 1": sec1, "PKCS #1": x509.MarshalPKCS1PrivateKey(rsaKey), "PKCS #8": pkcs8} {
		if _, err := parseKey(der); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := parseKey([]byte("no key")); err == nil {
		t.Error("text was taken for a key")
	}
}
