package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// Devices are those of the session's account.
type Devices struct {
	Username string
	// KeySet is the newest one. Unless Transparency is Off, the log proves it and
	// which of its keys are revoked.
	KeySet *pb.KeySet
	// IdentityRevoked tells that the identity key is revoked: nothing is to be
	// believed that the KeySet says.
	IdentityRevoked bool
	// RotationDue tells that the next KeySet must carry another hybrid key.
	RotationDue bool
	// Devices are those with a queue, oldest first, and those that the KeySet lists
	// although they were revoked. When they were added is the server's word.
	Devices []*pb.ListDevicesResponse_Device
	// Max is how many an account may have.
	Max int
}

// Active are the keys that the KeySet lists and that are not revoked, in its order.
func (d *Devices) Active() [][]byte {
	revoked := map[string]bool{}
	for _, device := range d.Devices {
		revoked[string(device.GetDeviceKey())] = device.GetRevocation() != nil
	}
	return slices.DeleteFunc(slices.Clone(d.KeySet.GetDeviceKeys()), func(key []byte) bool { return revoked[string(key)] })
}

// ListDevices answers with the devices of the session's account; a session of scope
// enroll will do. The reply is held against its proof. Errors: those of LookupUser.
func (c *Client) ListDevices(ctx context.Context) (*Devices, error) {
	resp := new(pb.ListDevicesResponse)
	session, ok := c.Session()
	if !ok {
		return nil, errors.New("client: log in first")
	}
	if c.cfg.Transparency.Off {
		if err := c.Call(ctx, new(pb.ListDevicesRequest), resp); err != nil {
			return nil, err
		}
		return devicesOf(resp), c.checkKeySet(resp.GetKeyset().GetIdentityKey(), resp.GetKeyset())
	}
	answer, err := c.lookup(ctx, kt.Query{Username: session.Username}, func(p *pb.ProofRequest) (*pb.KeyProof, error) {
		proto.Reset(resp)
		err := c.Call(ctx, &pb.ListDevicesRequest{Proof: p}, resp)
		return resp.GetProof(), err
	})
	if err != nil {
		return nil, err
	}
	return devicesOf(resp), checkDevices(resp, answer.Person)
}

func devicesOf(resp *pb.ListDevicesResponse) *Devices {
	return &Devices{
		Username: resp.GetUsername(), KeySet: resp.GetKeyset(), IdentityRevoked: resp.GetIdentityRevocation() != nil,
		RotationDue: resp.GetHybridRotationDue(), Devices: resp.GetDevices(), Max: int(resp.GetMaxDevices()),
	}
}

// checkDevices holds what a reply says against what the log proves.
func checkDevices(resp *pb.ListDevicesResponse, person *kt.Person) error {
	if !person.Exists() || !proto.Equal(resp.GetKeyset(), person.Identity.KeySet) {
		return fmt.Errorf("%w: ListDevices: the reply holds another KeySet than its proof", ErrProtocol)
	}
	if (resp.GetIdentityRevocation() != nil) != (person.Identity.Revocation != nil) {
		return fmt.Errorf("%w: ListDevices: the reply and its proof differ about the identity key", ErrProtocol)
	}
	told := map[string]bool{}
	for _, device := range resp.GetDevices() {
		key := device.GetDeviceKey()
		revoked := person.Identity.DeviceRevocations[string(key)] != nil
		listed := slices.ContainsFunc(person.Identity.KeySet.GetDeviceKeys(), func(k []byte) bool { return bytes.Equal(k, key) })
		if device.GetListed() != listed || (device.GetRevocation() != nil) != revoked {
			return fmt.Errorf("%w: ListDevices: the reply and its proof differ about a device", ErrProtocol)
		}
		told[string(key)] = true
	}
	for _, key := range person.Identity.KeySet.GetDeviceKeys() {
		if !told[string(key)] {
			return fmt.Errorf("%w: ListDevices: the reply leaves a device out", ErrProtocol)
		}
	}
	return nil
}

// Consent makes a device key's consent to belong to an identity of this server.
func (c *Client) Consent(identity ed25519.PublicKey, device ed25519.PrivateKey) *pb.DeviceConsent {
	s := statement.Device{ServerName: c.cfg.ServerName, IdentityKey: identity, DeviceKey: public(device)}
	return &pb.DeviceConsent{DeviceKey: public(device), Signature: s.Sign(device)}
}

// NewDevice is a device that is to become one of the session's account.
type NewDevice struct {
	// Identity signs the KeySet.
	Identity ed25519.PrivateKey
	// Known are the account's devices, as ListDevices gave them.
	Known *Devices
	// Consent is what the new device made (Client.Consent).
	Consent *pb.DeviceConsent
	// Replaces is the device whose queue goes over to the new one and which is
	// revoked, on the word of the identity key; or nil.
	Replaces ed25519.PublicKey
	Reason   statement.RevocationReason
	// HybridKey is an X-Wing public key that was never used before. It is needed
	// with Replaces and when a rotation is due; nil keeps the present one.
	HybridKey []byte
}

// RegisterDevice adds a device, in a session whose login is less than 5 minutes old
// or in one of scope enroll. It returns the new KeySet. Afterwards the new device
// logs in with its key. A refusal KEYSET_VERSION says that Known is old.
func (c *Client) RegisterDevice(ctx context.Context, d NewDevice) (*pb.KeySet, error) {
	devices := slices.DeleteFunc(d.Known.Active(), func(key []byte) bool { return bytes.Equal(key, d.Replaces) })
	next, err := c.nextKeySet(d.Identity, d.Known.KeySet, append(devices, d.Consent.GetDeviceKey()), d.HybridKey)
	if err != nil {
		return nil, err
	}
	req := &pb.RegisterDeviceRequest{Device: d.Consent, Keyset: next}
	if len(d.Replaces) > 0 {
		req.Replaces, req.Reason = d.Replaces, uint32(d.Reason)
		req.Signature = c.SignRevocation(d.Identity, d.Replaces, d.Reason).GetSignature()
	}
	_, err = c.ownChange(kt.Query{IdentityKey: next.GetIdentityKey()}, next, func(p *pb.ProofRequest) (*pb.KeyProof, error) {
		req.Proof = p
		resp := new(pb.RegisterDeviceResponse)
		err := c.Call(ctx, req, resp)
		return resp.GetProof(), err
	})
	if err != nil {
		return nil, err
	}
	return next, nil
}

// LostDevice is a device that is to leave the session's account.
type LostDevice struct {
	Device ed25519.PublicKey
	Reason statement.RevocationReason
	// Identity signs the revocation and the next KeySet. Without it both stand on
	// the server's word: the KeySet goes on listing the device until one comes.
	Identity ed25519.PrivateKey
	// Known are the account's devices, as ListDevices gave them.
	Known *Devices
	// HybridKey is an X-Wing public key that was never used before; needed with
	// Identity where the present KeySet has one.
	HybridKey []byte
}

// RevokeDevice takes a device out of the account for ever, with its queue and its
// sessions. The session's own device needs no fresh login: it is logged out by it.
// The KeySet is the new one, nil without Identity.
func (c *Client) RevokeDevice(ctx context.Context, d LostDevice) (*pb.KeySet, error) {
	req := &pb.RevokeDeviceRequest{DeviceKey: d.Device, Reason: uint32(d.Reason)}
	if d.Identity == nil {
		_, err := c.proveChange(kt.Query{RevokedKey: d.Device}, func(p *pb.ProofRequest) (*pb.KeyProof, error) {
			req.Proof = p
			resp := new(pb.RevokeDeviceResponse)
			err := c.Call(ctx, req, resp)
			return resp.GetProof(), err
		}, showsRevocation)
		return nil, err
	}
	devices := slices.DeleteFunc(d.Known.Active(), func(key []byte) bool { return bytes.Equal(key, d.Device) })
	next, err := c.nextKeySet(d.Identity, d.Known.KeySet, devices, d.HybridKey)
	if err != nil {
		return nil, err
	}
	req.Keyset, req.Signature = next, c.SignRevocation(d.Identity, d.Device, d.Reason).GetSignature()
	_, err = c.ownChange(kt.Query{IdentityKey: next.GetIdentityKey()}, next, func(p *pb.ProofRequest) (*pb.KeyProof, error) {
		req.Proof = p
		resp := new(pb.RevokeDeviceResponse)
		err := c.Call(ctx, req, resp)
		return resp.GetProof(), err
	})
	if err != nil {
		return nil, err
	}
	return next, nil
}

// RotateHybridKey publishes another hybrid key for the devices that are active, as
// is due when one left without a KeySet. It returns the new KeySet.
func (c *Client) RotateHybridKey(ctx context.Context, identity ed25519.PrivateKey, known *Devices, hybridKey []byte) (*pb.KeySet, error) {
	next, err := c.nextKeySet(identity, known.KeySet, known.Active(), hybridKey)
	if err != nil {
		return nil, err
	}
	return c.publishKeySet(ctx, next)
}

// nextKeySet makes the KeySet that follows current. Without a hybrid key it keeps
// current's.
func (c *Client) nextKeySet(identity ed25519.PrivateKey, current *pb.KeySet, devices [][]byte, hybridKey []byte) (*pb.KeySet, error) {
	if len(identity) != ed25519.PrivateKeySize || !bytes.Equal(public(identity), current.GetIdentityKey()) {
		return nil, errors.New("client: the KeySet is not of this identity key")
	}
	previous := statement.KeySetHash(c.cfg.ServerName, current)
	next := &pb.KeySet{
		IdentityKey: public(identity), Version: current.GetVersion() + 1, PreviousHash: previous[:], DeviceKeys: devices,
		KemId: current.GetKemId(), HybridKey: current.GetHybridKey(), TimeMs: uint64(c.clock.now()),
	}
	if len(hybridKey) > 0 {
		next.KemId, next.HybridKey = statement.KEMXWing, hybridKey
	}
	statement.SignKeySet(c.cfg.ServerName, next, identity)
	if err := statement.VerifyKeySet(c.cfg.ServerName, next); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return next, nil
}
