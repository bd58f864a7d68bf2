package kt

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
)

// Config is the content of a CONFIG leaf: it names the log and its keys. One
// stands at index 0; another follows whenever the log key or the origin changes,
// signed by the log key before it. The VRF key is that of index 0 for as long as
// the log lives.
//
//	u16 format_version │ u16 len │ origin │ log_key[32] │ vrf_key[32] │
//	u8 hash │ u8 signature │ u8 commitment │ u8 vrf │ u8 linked │
//	  linked = 1:  u64 previous index │ signature[64]
type Config struct {
	// FormatVersion is the format of the log's leaves: 0 has no heads.
	FormatVersion uint16
	// Origin is the log's name in checkpoints: server_name/N, see Origin.
	Origin string
	// LogKey signs checkpoints (Ed25519).
	LogKey ed25519.PublicKey
	// VRFKey checks labels.
	VRFKey VRFPublicKey
	// Previous links to the CONFIG before; nil at index 0.
	Previous *PreviousConfig
}

// PreviousConfig ties a CONFIG to the one before it.
type PreviousConfig struct {
	// Index is the previous CONFIG's log index.
	Index uint64
	// Signature is by the previous CONFIG's log key over Config.SignedBytes.
	Signature [ed25519.SignatureSize]byte
}

// The suites of this format, one byte each. They stand in the leaf so that a
// later format can name others and a verifier of this one refuses them.
const (
	suiteSHA256     = 1 // tree: RFC 6962 with SHA-256
	suiteEd25519    = 1 // checkpoints: C2SP signed-note signature type 0x01
	suiteHMACSHA256 = 1 // commitments: qpc-commitment-v1
	suiteECVRFTAI   = 3 // labels: RFC 9381 suite_string 0x03
)

const (
	// configLabel separates the signature on a CONFIG from a checkpoint's, which
	// the same key makes.
	configLabel = "qpc-config-v1"
	// configFixedSize is a body without origin and link.
	configFixedSize = 2 + 2 + 32 + 32 + 4 + 1
	configLinkSize  = 8 + ed25519.SignatureSize
	maxConfigSize   = configFixedSize + maxOriginSize + configLinkSize
)

// FormatVersion is the format of the logs that this package describes, and the
// newest that it knows: every checkpoint is signed at a size whose last leaf is a
// HEAD. A log of an earlier format has no HEAD.
const FormatVersion = 1

// NewConfig is the configuration for index 0 of a new log of FormatVersion. Its
// origin is server_name/1. Errors are about a malformed server name or key.
func NewConfig(serverName string, logKey ed25519.PublicKey, vrfKey VRFPublicKey) (Config, error) {
	if err := ValidateServerName(serverName); err != nil {
		return Config{}, err
	}
	c := Config{FormatVersion: FormatVersion, Origin: Origin(serverName, FirstGeneration), LogKey: logKey, VRFKey: vrfKey}
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Validate checks the origin's form, both keys and the link's index. It does not
// check the link's signature: VerifyLink does. Errors wrap ErrLeaf.
func (c Config) Validate() error {
	if _, _, err := ParseOrigin(c.Origin); err != nil {
		return fmt.Errorf("%w: CONFIG: %w", ErrLeaf, err)
	}
	if err := ValidatePublicKey(c.LogKey); err != nil {
		return fmt.Errorf("%w: CONFIG log key: %w", ErrLeaf, err)
	}
	if err := c.VRFKey.Validate(); err != nil {
		return fmt.Errorf("%w: CONFIG VRF key: %w", ErrLeaf, err)
	}
	return nil
}

// AppendConfig appends the body of a CONFIG leaf, without the class byte. It
// panics if c does not pass Validate.
func AppendConfig(dst []byte, c Config) []byte {
	if err := c.Validate(); err != nil {
		panic("kt: AppendConfig: " + err.Error())
	}
	dst = c.appendUnsigned(dst)
	if c.Previous != nil {
		dst = append(dst, c.Previous.Signature[:]...)
	}
	return dst
}

// appendUnsigned appends the body up to the link's signature.
func (c Config) appendUnsigned(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, c.FormatVersion)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(c.Origin)))
	dst = append(dst, c.Origin...)
	dst = append(dst, c.LogKey...)
	dst = append(dst, c.VRFKey[:]...)
	dst = append(dst, suiteSHA256, suiteEd25519, suiteHMACSHA256, suiteECVRFTAI)
	if c.Previous == nil {
		return append(dst, 0)
	}
	return binary.BigEndian.AppendUint64(append(dst, 1), c.Previous.Index)
}

// ParseConfig reads the body of a CONFIG leaf, without the class byte. It is
// strict: AppendConfig of the result gives the same bytes. Errors wrap ErrLeaf.
func ParseConfig(body []byte) (Config, error) {
	if len(body) < configFixedSize || len(body) > maxConfigSize {
		return Config{}, fmt.Errorf("%w: CONFIG body of %d bytes", ErrLeaf, len(body))
	}
	c := Config{FormatVersion: binary.BigEndian.Uint16(body)}
	n := int(binary.BigEndian.Uint16(body[2:]))
	if len(body) < configFixedSize+n {
		return Config{}, fmt.Errorf("%w: CONFIG body of %d bytes with an origin of %d", ErrLeaf, len(body), n)
	}
	b := body[4:]
	c.Origin, b = string(b[:n]), b[n:]
	c.LogKey, b = ed25519.PublicKey(append([]byte(nil), b[:32]...)), b[32:]
	c.VRFKey, b = VRFPublicKey(b[:32]), b[32:]
	if suites := [4]byte(b); suites != [4]byte{suiteSHA256, suiteEd25519, suiteHMACSHA256, suiteECVRFTAI} {
		return Config{}, fmt.Errorf("%w: CONFIG with unknown suites %x", ErrLeaf, suites)
	}
	linked, b := b[4], b[5:]
	switch {
	case linked == 0 && len(b) == 0:
	case linked == 1 && len(b) == configLinkSize:
		c.Previous = &PreviousConfig{Index: binary.BigEndian.Uint64(b), Signature: [64]byte(b[8:])}
	default:
		return Config{}, fmt.Errorf("%w: CONFIG with link flag %d and %d bytes after it", ErrLeaf, linked, len(b))
	}
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// SignedBytes is what the previous log key signs to pass the log on to c:
// "qpc-config-v1" ‖ 0x00 ‖ the body up to the signature.
func (c Config) SignedBytes() []byte {
	return c.appendUnsigned(append([]byte(configLabel), 0))
}

// Link makes c the successor of the CONFIG at log index previous and signs it
// with that CONFIG's log key.
func (c *Config) Link(previous uint64, key ed25519.PrivateKey) {
	c.Previous = &PreviousConfig{Index: previous}
	c.Previous.Signature = [64]byte(ed25519.Sign(key, c.SignedBytes()))
}

// VerifyLink checks that c follows before, which stands at log index previous:
// index, signature by the log key of before, the same VRF key, the same server
// name, a format and a generation not below. Errors wrap ErrLeaf.
func (c Config) VerifyLink(before Config, previous uint64) error {
	if c.Previous == nil || c.Previous.Index != previous {
		return fmt.Errorf("%w: CONFIG does not name index %d as the one before", ErrLeaf, previous)
	}
	if c.VRFKey != before.VRFKey {
		return fmt.Errorf("%w: CONFIG changes the VRF key", ErrLeaf)
	}
	if c.FormatVersion < before.FormatVersion {
		return fmt.Errorf("%w: CONFIG goes back from format %d to %d", ErrLeaf, before.FormatVersion, c.FormatVersion)
	}
	name, gen, err := ParseOrigin(c.Origin)
	if err != nil {
		return fmt.Errorf("%w: CONFIG: %w", ErrLeaf, err)
	}
	nameBefore, genBefore, err := ParseOrigin(before.Origin)
	if err != nil {
		return fmt.Errorf("%w: previous CONFIG: %w", ErrLeaf, err)
	}
	if name != nameBefore || gen < genBefore {
		return fmt.Errorf("%w: CONFIG changes the origin from %s to %s", ErrLeaf, before.Origin, c.Origin)
	}
	if !ed25519.Verify(before.LogKey, c.SignedBytes(), c.Previous.Signature[:]) {
		return fmt.Errorf("%w: CONFIG is not signed by the log key before it", ErrLeaf)
	}
	return nil
}
