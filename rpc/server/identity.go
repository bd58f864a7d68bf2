package server

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/commands/datadir"
)

// Files of the certificates in the data directory, DER.
const (
	caFile   = "ca-cert.der"
	certFile = "server-cert.der"
	keyFile  = "server-key.der"
)

// renewCheck is how often the age of the certificate is looked at. A long
// timer would not count the time that a machine sleeps.
const renewCheck = time.Hour

// expiryWarning is how long before the end of an operator's certificate the
// log says so.
const expiryWarning = 14 * 24 * time.Hour

// identity is the certificate pair that the listener shows. A leaf issued by
// the server's own CA is renewed here; any other pair is the operator's and is
// used as it is.
type identity struct {
	fs         vfs.FS
	certPath   string
	keyPath    string
	caPath     string
	serverName string
	caKey      crypto.Signer
	logger     *slog.Logger

	mu      sync.Mutex // one load or renewal at a time
	ca      *x509.Certificate
	current atomic.Pointer[tls.Certificate]
}

// openIdentity loads the pair, or makes what is missing: CA certificate and
// leaf. Of the pair exactly one file missing is refused, because either the
// operator forgot it or a renewal would throw the other one away.
func openIdentity(d *datadir.Dir, certPath, keyPath, serverName string, logger *slog.Logger) (*identity, error) {
	if certPath == "" {
		certPath, keyPath = d.File(certFile), d.File(keyFile)
	}
	id := &identity{
		fs: d.FS, certPath: certPath, keyPath: keyPath, caPath: d.File(caFile),
		serverName: serverName, caKey: d.Secrets.CAKey, logger: logger,
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	if err := id.loadCA(time.Now()); err != nil {
		return nil, err
	}
	if err := id.loadPair(time.Now()); err != nil {
		return nil, err
	}
	return id, nil
}

// loadCA reads the CA certificate, or makes one: at first, when the file holds
// one of another key, and after two thirds of its life.
func (id *identity) loadCA(now time.Time) error {
	der, err := id.read(id.caPath)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("can't read the CA certificate %s: make it readable (%w)", id.caPath, err)
	}
	if err == nil {
		ca, err := x509.ParseCertificate(der)
		switch {
		case err != nil:
			return fmt.Errorf("%s is no DER certificate: move it away and a new one is made for the same CA key", id.caPath)
		case !matches(ca, id.caKey):
			return fmt.Errorf("%s does not belong to the CA key in secrets/: restore the file that does, or move it away and give clients the new one", id.caPath)
		case !signedBy(ca, ca):
			return fmt.Errorf("%s is damaged (its signature is wrong), so no client would accept it: restore it, or move it away and a new one is made for the same CA key", id.caPath)
		case now.Before(renewAt(ca)):
			id.ca = ca
			return nil
		}
		id.logger.Warn("the CA certificate is renewed: give clients the new file before the old one expires",
			slog.String("file", id.caPath), slog.Time("old_expires", ca.NotAfter))
	}
	if der, err = newCA(id.caKey, id.serverName, now); err != nil {
		return err
	}
	if id.ca, err = x509.ParseCertificate(der); err != nil {
		return fmt.Errorf("parse the CA certificate: %w", err)
	}
	if err := id.replace(id.caPath, der, 0o644); err != nil {
		return fmt.Errorf("can't store the CA certificate %s: make its folder writable (%w)", id.caPath, err)
	}
	return nil
}

// loadPair reads the pair and puts it to use; a missing pair, or an own leaf
// that is due, is made anew.
func (id *identity) loadPair(now time.Time) error {
	if err := id.finishReplacement(); err != nil {
		return fmt.Errorf("can't finish the renewal of %s: make its folder writable (%w)", id.certPath, err)
	}
	certDER, certErr := id.read(id.certPath)
	keyDER, keyErr := id.read(id.keyPath)
	switch {
	case errors.Is(certErr, os.ErrNotExist) && errors.Is(keyErr, os.ErrNotExist):
		return id.issue(now)
	case errors.Is(certErr, os.ErrNotExist):
		return fmt.Errorf("the certificate %s is missing while its key is there: restore it, or move the key away and a new pair is made", id.certPath)
	case errors.Is(keyErr, os.ErrNotExist):
		return fmt.Errorf("the key %s is missing while its certificate is there: restore it, or move the certificate away and a new pair is made", id.keyPath)
	case certErr != nil:
		return fmt.Errorf("can't read the certificate %s: make it readable (%w)", id.certPath, certErr)
	case keyErr != nil:
		return fmt.Errorf("can't read the key %s: make it readable for this user (%w)", id.keyPath, keyErr)
	}
	if err := id.checkMode(); err != nil {
		return err
	}
	pair, err := parsePair(certDER, keyDER)
	if err != nil {
		return fmt.Errorf("the pair %s and %s can't be used: %w, or move both away and a new pair is made", id.certPath, id.keyPath, err)
	}
	if namesIssuer(pair.Leaf, id.ca) && !signedBy(pair.Leaf, id.ca) {
		return fmt.Errorf("the certificate %s is damaged, or of another server of this name (this server's CA is said to be its issuer and did not sign it), so no client would accept it: restore it, or move it and its key %s away and a new pair is made", id.certPath, id.keyPath)
	}
	if issuedBy(pair.Leaf, id.ca) && !now.Before(renewAt(pair.Leaf)) || id.misnamed(pair.Leaf) {
		return id.issue(now)
	}
	id.current.Store(pair)
	return nil
}

// misnamed tells an own leaf that is for another name than the server's.
func (id *identity) misnamed(leaf *x509.Certificate) bool {
	return issuedBy(leaf, id.ca) && leaf.VerifyHostname(id.serverName) != nil
}

// checkMode refuses a key that others may read.
func (id *identity) checkMode() error {
	if vfs.Root(id.fs) != vfs.Default {
		return nil
	}
	return datadir.CheckPrivate(id.keyPath)
}

// parsePair reads a certificate, or a chain of concatenated ones, leaf first.
func parsePair(certDER, keyDER []byte) (*tls.Certificate, error) {
	chain, err := x509.ParseCertificates(certDER)
	if err != nil || len(chain) == 0 {
		return nil, errors.New("the certificate is no DER X.509 certificate: convert it with openssl x509 -outform der")
	}
	key, err := parseKey(keyDER)
	if err != nil {
		return nil, fmt.Errorf("%w: convert it with openssl pkcs8 -topk8 -nocrypt -outform der", err)
	}
	if !matches(chain[0], key) {
		return nil, errors.New("the key does not belong to the certificate: give the files of one pair")
	}
	pair := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return pair, nil
}

// issue makes a new leaf, stores it and puts it to use.
func (id *identity) issue(now time.Time) error {
	cert, key, err := newLeaf(id.ca, id.caKey, id.serverName, now)
	if err != nil {
		return err
	}
	pair, err := parsePair(cert, key)
	if err != nil {
		return fmt.Errorf("read back the new certificate: %w", err)
	}
	if err := id.replacePair(cert, key); err != nil {
		return fmt.Errorf("can't store the new certificate %s: make its folder writable (%w)", id.certPath, err)
	}
	id.current.Store(pair)
	id.logger.Info("certificate issued", slog.String("file", id.certPath), slog.Time("expires", pair.Leaf.NotAfter))
	return nil
}

// certificate is the pair for new handshakes.
func (id *identity) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return id.current.Load(), nil
}

// isOwn reports whether the pair in use was issued here.
func (id *identity) isOwn() bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	return issuedBy(id.current.Load().Leaf, id.ca)
}

// reload reads the pair again; on an error the one in use stays.
func (id *identity) reload() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if err := id.loadPair(time.Now()); err != nil {
		return err
	}
	id.logger.Info("certificate loaded", slog.String("file", id.certPath), slog.Time("expires", id.current.Load().Leaf.NotAfter))
	return nil
}

// keep renews the server's own leaf when it is due, and warns of an operator's
// that nobody renews, until ctx ends.
func (id *identity) keep(ctx context.Context) {
	tick := time.NewTicker(renewCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			id.check(time.Now())
		}
	}
}

// check is one look at the age of the certificate.
func (id *identity) check(now time.Time) {
	id.mu.Lock()
	defer id.mu.Unlock()
	leaf := id.current.Load().Leaf
	if now.Before(renewAt(leaf)) {
		return
	}
	if !issuedBy(leaf, id.ca) {
		if left := leaf.NotAfter.Sub(now); left < expiryWarning {
			id.logger.Warn("the certificate expires soon: replace the files and send SIGHUP",
				slog.String("file", id.certPath), slog.Time("expires", leaf.NotAfter))
		}
		return
	}
	if err := id.issue(now); err != nil {
		id.logger.Error("certificate not renewed", slog.Any("error", err), slog.Time("expires", leaf.NotAfter))
	}
}
