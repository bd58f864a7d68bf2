package server_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/server"
)

// writePair makes a self-signed pair of the operator's, as files.
func writePair(t *testing.T, certPath, keyPath string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "operator"}, DNSNames: []string{serverName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(certPath, cert, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyPath, der, 0o600); err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestOperatorsCertificate serves with a pair from the disk and reloads it: new
// handshakes see the new one, connections that are open go on.
func TestOperatorsCertificate(t *testing.T) {
	dir := t.TempDir()
	certPath, keyPath := filepath.Join(dir, "cert.der"), filepath.Join(dir, "key.der")
	cert := writePair(t, certPath, keyPath)
	w := boot(t, func(c *server.Config) {
		c.FS, c.Dir = vfs.Default, filepath.Join(dir, "data")
		c.TLSCert, c.TLSKey = certPath, keyPath
	})
	w.fs = vfs.Default
	if w.node.CAFile() != certPath {
		t.Errorf("clients are told to pin %s", w.node.CAFile())
	}
	c := w.dial()
	shown := func(c *conn) []byte { return c.ConnectionState().TLS.PeerCertificates[0].Raw }
	if !bytes.Equal(shown(c), cert) {
		t.Error("another certificate is shown")
	}
	renewed := writePair(t, certPath, keyPath)
	if err := w.node.Reload(); err != nil {
		t.Fatal(err)
	}
	if d := w.dial(); !bytes.Equal(shown(d), renewed) {
		t.Error("the new certificate is not shown")
	}
	if err := os.Remove(keyPath); err != nil {
		t.Fatal(err)
	}
	if err := w.node.Reload(); err == nil {
		t.Error("a reload without a key went well")
	}
	if d := w.dial(); !bytes.Equal(shown(d), renewed) {
		t.Error("a failed reload took the certificate away")
	}
	must[*pb.HealthResponse](c, &pb.HealthRequest{})
}
