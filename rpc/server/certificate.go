package server

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// Life times of certificates that the server issues.
const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	leafLifetime = 365 * 24 * time.Hour
	// backdate lets clients in whose clocks are somewhat slow.
	backdate = time.Hour
)

// newCA makes the certificate of the server's own authority. It may sign
// leaves only. A later one for the same key verifies the same leaves.
func newCA(key crypto.Signer, serverName string, now time.Time) ([]byte, error) {
	id, err := keyID(key.Public())
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               caName(serverName),
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          id,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the CA certificate: %w", err)
	}
	return der, nil
}

func caName(serverName string) pkix.Name {
	return pkix.Name{CommonName: "quicprochat CA of " + serverName}
}

// newLeaf makes a key and the certificate that the server shows: one year, for
// the server name and for loopback. It never outlives the CA.
func newLeaf(ca *x509.Certificate, caKey crypto.Signer, serverName string, now time.Time) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the certificate's key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	end := now.Add(leafLifetime)
	if end.After(ca.NotAfter) {
		end = ca.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: serverName},
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              leafNames(serverName),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback},
	}
	cert, err = x509.CreateCertificate(rand.Reader, template, ca, private.Public(), caKey)
	if err != nil {
		return nil, nil, fmt.Errorf("make the server's certificate: %w", err)
	}
	key, err = x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the certificate's key: %w", err)
	}
	return cert, key, nil
}

func leafNames(serverName string) []string {
	names := []string{serverName, "localhost"}
	return slices.Compact(names)
}

// issuedBy reports whether the CA signed cert: such a leaf is the server's own
// to renew.
func issuedBy(cert, ca *x509.Certificate) bool {
	return !cert.IsCA && cert.CheckSignatureFrom(ca) == nil
}

// namesIssuer reports whether cert says that the CA issued it, by name or by key
// identifier: one of them is left when a bit of the other has rotted.
func namesIssuer(cert, ca *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, ca.RawSubject) ||
		len(ca.SubjectKeyId) > 0 && bytes.Equal(cert.AuthorityKeyId, ca.SubjectKeyId)
}

// signedBy reports whether the signature of cert is the CA's, whatever else the
// certificates say.
func signedBy(cert, ca *x509.Certificate) bool {
	return ca.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

// renewAt is when a certificate is to be replaced: after two thirds of its
// life.
func renewAt(cert *x509.Certificate) time.Time {
	life := cert.NotAfter.Sub(cert.NotBefore)
	return cert.NotBefore.Add(life / 3 * 2)
}

// keyID is the subject key identifier of RFC 7093, section 2, method 1. It
// depends on the key alone, so that leaves find any CA certificate of it.
func keyID(public crypto.PublicKey) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encode the CA's public key: %w", err)
	}
	sum := sha256.Sum256(spki)
	return sum[:20], nil
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}

// parseKey reads a private key as operators have it: PKCS #8, or one of the
// older encodings of an ECDSA or RSA key.
func parseKey(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
		return nil, fmt.Errorf("a key of type %T can't sign", key)
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	return nil, fmt.Errorf("no DER private key in PKCS #8, SEC 1 or PKCS #1")
}

// matches reports whether the key belongs to the certificate.
func matches(cert *x509.Certificate, key crypto.Signer) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}
