package keypackage

import (
	"errors"
	"fmt"
	"slices"
)

// MaxSize is the longest KeyPackage that is read, in bytes.
const MaxSize = 16 << 10

// maxExtensions is the most extensions in one list.
const maxExtensions = 64

// What may be wrong with a KeyPackage. Every error of this package has one of
// these in its chain, and a text that is safe to show to whoever sent it.
var (
	// ErrTooLarge: more than MaxSize bytes.
	ErrTooLarge = errors.New("the KeyPackage is too large")
	// ErrMalformed: the bytes are not the encoding of a KeyPackage.
	ErrMalformed = errors.New("not a KeyPackage")
	// ErrVersion: another protocol version than mls10.
	ErrVersion = errors.New("not of version mls10")
	// ErrSuite: a cipher suite that is not known here.
	ErrSuite = errors.New("the cipher suite is not known")
	// ErrLeaf: the leaf node is not one of a KeyPackage, or contradicts itself.
	ErrLeaf = errors.New("the leaf node is not valid")
	// ErrExtension: an extension is doubled, or one that the leaf does not support.
	ErrExtension = errors.New("an extension is not valid")
	// ErrKey: a key is none of the suite's, or init_key and encryption_key are one.
	ErrKey = errors.New("a key is not valid")
	// ErrSignature: one of the two signatures does not verify.
	ErrSignature = errors.New("a signature does not verify")
	// ErrLifetime: the lifetime is over, has not begun or is too long.
	ErrLifetime = errors.New("the lifetime is not valid")
)

// Numbers of RFC 9420.
const (
	versionMLS10 = 1
	// wireFormatKeyPackage is mls_key_package (section 6).
	wireFormatKeyPackage = 5
	// sourceKeyPackage is the leaf node source key_package (section 7.2).
	sourceKeyPackage = 1
	credentialBasic  = 1
	credentialX509   = 2
	// lastDefaultExtension: types 1 to 5 are supported by all and never listed
	// (section 7.2).
	lastDefaultExtension = 5
	// extensionLastResort marks a KeyPackage that may be handed out more than once
	// (last_resort of draft-ietf-mls-extensions, in the registry of section 17.3).
	extensionLastResort = 10
)

// KeyPackage is one KeyPackage, parsed. Its fields share memory with the input.
type KeyPackage struct {
	// Raw is the KeyPackage itself, without an MLSMessage around it.
	Raw   []byte
	Suite Suite
	// InitKey and EncryptionKey are public keys of the suite's KEM.
	InitKey, EncryptionKey []byte
	// SignatureKey verifies both signatures.
	SignatureKey []byte
	// NotBefore and NotAfter bound the lifetime, Unix seconds.
	NotBefore, NotAfter uint64
	// LastResort tells that the package may be handed out more than once.
	LastResort bool

	credential       uint16
	suites, versions numbers // capabilities
	types            numbers // capabilities: extensions
	credentials      numbers // capabilities
	leafExtensions   []uint16
	extensions       []uint16

	leafTBS, leafSignature []byte
	tbs, signature         []byte
}

// Parse reads a KeyPackage, bare or in an MLSMessage, as far as its encoding
// goes: what it says may still be wrong (Verify, CheckLifetime). Nothing may follow it. Errors:
// ErrTooLarge, ErrMalformed, ErrVersion, ErrLeaf for another source.
func Parse(data []byte) (*KeyPackage, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, len(data), MaxSize)
	}
	r := reader{rest: data}
	if len(data) > 4 && data[4] == 0 { // an MLSMessage, see the package comment
		if r.u16("MLSMessage.version") != versionMLS10 {
			return nil, fmt.Errorf("%w: the MLSMessage is not", ErrVersion)
		}
		if format := r.u16("MLSMessage.wire_format"); format != wireFormatKeyPackage {
			return nil, fmt.Errorf("%w: an MLSMessage with wire format %d", ErrMalformed, format)
		}
	}
	k := &KeyPackage{Raw: r.rest}
	if r.u16("version") != versionMLS10 && r.err == nil {
		return nil, ErrVersion
	}
	k.Suite = Suite(r.u16("cipher_suite"))
	k.InitKey = r.vector("init_key")
	if err := k.parseLeaf(&r); err != nil {
		return nil, err
	}
	k.extensions = r.extensions("extensions")
	k.LastResort = slices.Contains(k.extensions, extensionLastResort)
	k.tbs = k.Raw[:len(k.Raw)-len(r.rest)]
	k.signature = r.vector("signature")
	if len(r.rest) > 0 {
		r.fail("%d bytes follow it", len(r.rest))
	}
	if r.err != nil {
		return nil, r.err
	}
	return k, nil
}

// parseLeaf reads the leaf node (section 7.2).
func (k *KeyPackage) parseLeaf(r *reader) error {
	start := r.rest
	k.EncryptionKey = r.vector("encryption_key")
	k.SignatureKey = r.vector("signature_key")
	k.parseCredential(r)
	k.versions = r.numbers("capabilities.versions")
	k.suites = r.numbers("capabilities.cipher_suites")
	k.types = r.numbers("capabilities.extensions")
	r.numbers("capabilities.proposals")
	k.credentials = r.numbers("capabilities.credentials")
	// Another source has other fields after it.
	if source := r.u8("leaf_node_source"); source != sourceKeyPackage && r.err == nil {
		return fmt.Errorf("%w: its source is %d, not key_package", ErrLeaf, source)
	}
	k.NotBefore, k.NotAfter = r.u64("lifetime.not_before"), r.u64("lifetime.not_after")
	k.leafExtensions = r.extensions("leaf_node.extensions")
	k.leafTBS = start[:len(start)-len(r.rest)]
	k.leafSignature = r.vector("leaf_node.signature")
	return r.err
}

// parseCredential reads a credential (section 5.3): what stands in it is between
// the clients, only its end must be found.
func (k *KeyPackage) parseCredential(r *reader) {
	switch k.credential = r.u16("credential_type"); k.credential {
	case credentialBasic:
		r.vector("credential.identity")
	case credentialX509:
		certificates := reader{rest: r.vector("credential.certificates")}
		for len(certificates.rest) > 0 {
			certificates.vector("certificate")
		}
		if r.err == nil && certificates.err != nil {
			r.fail("credential.certificates is no list of certificates")
		}
	default:
		if r.err == nil {
			r.fail("credential type %d is not known", k.credential)
		}
	}
}

// extensions are the types in a list of extensions.
func (r *reader) extensions(field string) (types []uint16) {
	list := reader{rest: r.vector(field)}
	for len(list.rest) > 0 && len(types) <= maxExtensions {
		types = append(types, list.u16(field))
		list.vector(field)
	}
	switch {
	case r.err != nil:
	case len(types) > maxExtensions:
		r.fail("%s has more than %d entries", field, maxExtensions)
	case list.err != nil:
		r.fail("%s is no list of extensions", field)
	}
	return types
}
