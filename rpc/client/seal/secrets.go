package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// Secrets go from one device of a person to another in a payload of their own kind,
// sealed for a hybrid key that only the receiving device has:
//
//	payload   = 0x02 ‖ enc[1120] ‖ ciphertext
//	info      = "qpc-secrets-v1" ‖ 0x00 ‖ server_name ‖ 0x00 ‖ identity key ‖ recipient device key
//	plaintext = u32 length ‖ SealedSecrets ‖ zeros up to a multiple of 256 bytes
const secretsVersion = 0x02

// IsSecrets tells a payload of secrets from a message.
func IsSecrets(payload []byte) bool { return len(payload) > 0 && payload[0] == secretsVersion }

// SealSecrets closes secrets for one device of the sender's own identity. to is
// that device's key and the hybrid key that it showed.
func SealSecrets(from Sender, to *pb.DeviceSealKey, secrets *pb.DeviceSecrets, timeMS uint64) ([]byte, error) {
	public, err := hpke.MLKEM768X25519().NewPublicKey(to.GetHybridKey())
	if err != nil {
		return nil, fmt.Errorf("seal: the device's hybrid key: %w", err)
	}
	encoded, err := proto.Marshal(secrets)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	content := &pb.SealedSecrets{
		Secrets: encoded, IdentityKey: from.IdentityKey, SenderDeviceKey: from.Device.Public().(ed25519.PublicKey),
		RecipientDeviceKey: to.GetDeviceKey(), Id: make([]byte, 16), TimeMs: timeMS,
	}
	_, _ = rand.Read(content.Id) // never fails, by its documentation
	content.Signature = signedSecrets(from.ServerName, content).Sign(from.Device)
	plaintext, err := marshalPadded(content)
	if err != nil {
		return nil, err
	}
	sealed, err := hpke.Seal(public, hpke.HKDFSHA256(), hpke.AES256GCM(), secretsInfo(from.ServerName, from.IdentityKey, to.GetDeviceKey()), plaintext)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return append([]byte{secretsVersion}, sealed...), nil
}

// OpenSecrets opens secrets that were sealed for this device and checks that the
// device they name signed them. That this one belongs to the identity is checked by
// the caller: it must be listed in the KeySet and not revoked.
func OpenSecrets(serverName string, identity, device ed25519.PublicKey, key *HybridKey, payload []byte) (*pb.DeviceSecrets, ed25519.PublicKey, error) {
	if len(payload) < 1+encapsulated || payload[0] != secretsVersion {
		return nil, nil, ErrMalformed
	}
	plaintext, err := openWithAny([]*HybridKey{key}, secretsInfo(serverName, identity, device), payload[1:])
	if err != nil {
		return nil, nil, err
	}
	content := new(pb.SealedSecrets)
	if err := unmarshalPadded(plaintext, content); err != nil {
		return nil, nil, err
	}
	if len(content.GetId()) != 16 {
		return nil, nil, ErrMalformed
	}
	if !bytes.Equal(content.GetIdentityKey(), identity) || !bytes.Equal(content.GetRecipientDeviceKey(), device) {
		return nil, nil, ErrNotForUs
	}
	if err := signedSecrets(serverName, content).Verify(content.GetSenderDeviceKey(), content.GetSignature()); err != nil {
		return nil, nil, ErrSignature
	}
	secrets := new(pb.DeviceSecrets)
	if err := proto.Unmarshal(content.GetSecrets(), secrets); err != nil {
		return nil, nil, ErrMalformed
	}
	return secrets, content.GetSenderDeviceKey(), nil
}

// signedSecrets can't be taken for a message: no identity key is a device key of
// the same identity's other device.
func signedSecrets(serverName string, c *pb.SealedSecrets) statement.Message {
	return statement.Message{
		ServerName: serverName, SenderKey: c.GetIdentityKey(), DeviceKey: c.GetSenderDeviceKey(),
		RecipientKey: c.GetRecipientDeviceKey(), ID: [16]byte(c.GetId()), TimeMS: c.GetTimeMs(),
		PlaintextHash: sha256.Sum256(c.GetSecrets()),
	}
}

func secretsInfo(serverName string, identity, device []byte) []byte {
	info := append([]byte("qpc-secrets-v1\x00"), serverName...)
	return append(append(append(info, 0), identity...), device...)
}

// codePrefix begins the text form of a device code.
const codePrefix = "qpc-device-1:"

// ErrCode means that a text is no device code, or one that its device key did not
// consent to.
var ErrCode = errors.New("seal: not a device code")

// FormatCode is a code as text: one word of about 1,900 letters, for a file, a
// clipboard or a QR code.
func FormatCode(code *pb.DeviceCode) (string, error) {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(code)
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	return codePrefix + base64.RawURLEncoding.EncodeToString(encoded), nil
}

// ParseCode reads a code and checks that its device key consented to belong to the
// identity that it names.
func ParseCode(text string) (*pb.DeviceCode, error) {
	rest, found := strings.CutPrefix(strings.TrimSpace(text), codePrefix)
	raw, err := base64.RawURLEncoding.DecodeString(rest)
	code := new(pb.DeviceCode)
	if !found || err != nil || proto.Unmarshal(raw, code) != nil || len(code.GetHybridKey()) != HybridKeySize {
		return nil, ErrCode
	}
	if statement.ValidatePublicKey(code.GetIdentityKey()) != nil || statement.ValidatePublicKey(code.GetDeviceKey()) != nil {
		return nil, ErrCode
	}
	consent := statement.Device{ServerName: code.GetServerName(), IdentityKey: code.GetIdentityKey(), DeviceKey: code.GetDeviceKey()}
	if err := consent.Verify(code.GetDeviceKey(), code.GetSignature()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCode, err)
	}
	return code, nil
}
