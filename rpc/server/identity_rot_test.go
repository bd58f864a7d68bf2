package server

import (
	"bytes"
	"crypto/x509"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// One rotten bit in a certificate or its key stops the start, with the file and
// what to do about it, or changes nothing: a server that shows what no client
// accepts is never started in silence.
func TestRottenCertificates(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	d := testDir(t, vfs.NewMem(), "/data")
	pinned := open(t, d).ca
	for _, name := range []string{caFile, certFile, keyFile} {
		id := &identity{fs: d.FS}
		good, err := id.read(d.File(name))
		if err != nil {
			t.Fatal(err)
		}
		refused := 0
		for at := range good {
			bad := bytes.Clone(good)
			bad[at] ^= 1 << rng.IntN(8)
			if err := id.write(d.File(name), bad, 0o600); err != nil {
				t.Fatal(err)
			}
			started, err := openIdentity(d, "", "", "chat.example.org", quiet())
			if err != nil {
				refused++
				if text := err.Error(); !strings.Contains(text, d.File(name)) || !strings.Contains(text, "move") {
					t.Errorf("%s, byte %d: %v", name, at, err)
				}
				continue
			}
			pool := x509.NewCertPool()
			pool.AddCert(pinned)
			leaf := started.current.Load().Leaf
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "chat.example.org"}); err != nil || !started.isOwn() {
				t.Errorf("%s, byte %d is %#x in place of %#x: started, and clients say %v (seed %d)", name, at, bad[at], good[at], err, seed)
			}
		}
		if name != keyFile && refused < len(good) || refused < len(good)/4 {
			t.Errorf("%s: %d of %d flips were noticed (seed %d)", name, refused, len(good), seed)
		}
		if err := id.write(d.File(name), good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, d)
}

// What the refusals say to do helps: without the rotten files a new pair is
// made, which clients accept that pinned the CA as it was.
func TestRottenCertificatesAreMadeAnew(t *testing.T) {
	for _, names := range [][]string{{caFile}, {certFile, keyFile}} {
		d := testDir(t, vfs.NewMem(), "/data")
		pinned := open(t, d).ca
		for _, name := range names {
			if err := d.FS.Remove(d.File(name)); err != nil {
				t.Fatal(err)
			}
		}
		pool := x509.NewCertPool()
		pool.AddCert(pinned)
		if _, err := open(t, d).current.Load().Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "chat.example.org"}); err != nil {
			t.Errorf("without %v: %v", names, err)
		}
	}
}
