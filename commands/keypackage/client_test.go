package keypackage_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/thomas-vilte/mls-go/ciphersuite"
	"github.com/thomas-vilte/mls-go/credentials"
	"github.com/thomas-vilte/mls-go/keypackages"

	"quicprochat/commands/keypackage"
	"quicprochat/rpc/sim"
)

// TestPackagesOfAnMLSClient reads what an independent implementation of MLS
// makes, in every suite that it has.
func TestPackagesOfAnMLSClient(t *testing.T) {
	for _, suite := range []keypackage.Suite{
		keypackage.X25519AES128Ed25519, keypackage.P256AES128P256, keypackage.X25519ChaCha20Ed25519, keypackage.P521AES256P521,
	} {
		t.Run(suite.String(), func(t *testing.T) {
			credential, _, err := credentials.GenerateCredentialWithKeyForCS([]byte("alice"), ciphersuite.CipherSuite(suite))
			if err != nil {
				t.Fatal(err)
			}
			made, _, err := keypackages.Generate(credential, ciphersuite.CipherSuite(suite))
			if err != nil {
				t.Fatal(err)
			}
			k, err := keypackage.Parse(made.Marshal())
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(k.Verify(), k.CheckLifetime(uint64(time.Now().UnixMilli()))); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(k.InitKey, made.InitKey) || !bytes.Equal(k.EncryptionKey, made.LeafNode.EncryptionKey) ||
				k.NotAfter != made.LeafNode.Lifetime.NotAfter || k.Suite != suite || k.LastResort {
				t.Errorf("read %+v", k)
			}
			endless, _, err := keypackages.Generate(credential, ciphersuite.CipherSuite(suite), keypackages.InfiniteLifetime())
			if err != nil {
				t.Fatal(err)
			}
			if k, err := keypackage.Parse(endless.Marshal()); err != nil || k.Verify() != nil || k.CheckLifetime(uint64(time.Now().UnixMilli())) == nil {
				t.Errorf("an endless lifetime: %v", err)
			}
		})
	}
}

// TestAnMLSClientReadsOurs holds the packages that tests are made of against the
// same implementation.
func TestAnMLSClientReadsOurs(t *testing.T) {
	p := newPackage()
	p.Extensions = []sim.Extension{sim.LastResort}
	read, err := keypackages.UnmarshalKeyPackage(p.Sign(device))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(read.Validate(), read.Verify(ciphersuite.CipherSuite(1))); err != nil {
		t.Error(err)
	}
}
