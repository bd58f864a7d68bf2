package server

import (
	"context"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
)

// registerDevice prepares signatures and VRF proofs on the published view, and
// proves on request the identity with the new KeySet.
func (c *call) registerDevice(ctx context.Context, req *pb.RegisterDeviceRequest) (*pb.RegisterDeviceResponse, error) {
	resp, err := prepared[*pb.RegisterDeviceResponse](ctx, c, func() (*commands.Command, error) {
		device, err := commands.PrepareDevice(c.view.Reader, c.service.serverName, c.service.vrf, req)
		if err != nil {
			return nil, err
		}
		return commands.NewRegisterDevice(c.method.Rule, req, device)
	})
	if err != nil {
		return nil, err
	}
	c.closeView()
	resp.Proof, err = c.service.engine.ProveOwn(ctx, req.GetProof(), func(p *commands.Proofs) error {
		return p.Identity(req.GetKeyset().GetIdentityKey())
	})
	return resp, err
}

// revokeDevice does the same; without a KeySet the proof is of the revocation.
func (c *call) revokeDevice(ctx context.Context, req *pb.RevokeDeviceRequest) (*pb.RevokeDeviceResponse, error) {
	resp, err := prepared[*pb.RevokeDeviceResponse](ctx, c, func() (*commands.Command, error) {
		removal, err := commands.PrepareDeviceRemoval(c.view.Reader, c.service.serverName, c.service.vrf, req)
		if err != nil {
			return nil, err
		}
		return commands.NewRevokeDevice(c.method.Rule, req, removal)
	})
	if err != nil {
		return nil, err
	}
	c.closeView()
	resp.Proof, err = c.service.engine.ProveOwn(ctx, req.GetProof(), func(p *commands.Proofs) error {
		if keySet := req.GetKeyset(); keySet != nil {
			return p.Identity(keySet.GetIdentityKey())
		}
		return p.Revocation(req.GetDeviceKey())
	})
	return resp, err
}
