package server

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/auth"
)

// origin is where the call comes from, as package auth wants to know it.
func (c *call) origin() auth.Origin {
	conn := c.request.connection
	return auth.Origin{Prefix: conn.admission.neighbours.prefix, Connection: conn.id}
}

// registerFinish proves the account as it stands afterwards, on request: to a
// repeated registration too.
func (c *call) registerFinish(ctx context.Context, req *pb.OpaqueRegisterFinishRequest) (*pb.OpaqueRegisterFinishResponse, error) {
	resp, err := c.service.ceremonies.RegisterFinish(ctx, c.origin(), c.caller, req)
	if err != nil {
		return nil, err
	}
	c.closeView()
	resp.Proof, err = c.service.engine.ProveOwn(ctx, req.GetProof(), func(p *commands.Proofs) error {
		name, err := statement.CanonicalUsername(req.GetUsername())
		if err != nil {
			return err
		}
		return p.Person(name)
	})
	return resp, err
}

// prepareTries is how often a key-transparency version is prepared anew when
// others wrote one meanwhile.
const prepareTries = 4

// uploadHybridKey proves the new KeySet on request; receipts hold no proofs, so a
// retry gets a fresh one.
func (c *call) uploadHybridKey(ctx context.Context, req *pb.UploadHybridKeyRequest) (*pb.UploadHybridKeyResponse, error) {
	resp, err := prepared[*pb.UploadHybridKeyResponse](ctx, c, func() (*commands.Command, error) {
		upload, err := commands.PrepareHybridKey(c.view.Reader, c.service.serverName, c.service.vrf, req)
		if err != nil {
			return nil, err
		}
		return commands.NewUploadHybridKey(c.method.Rule, req, upload)
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

// revokeKey prepares signatures and VRF proofs on the published view. It proves on
// request that the key is revoked, or who has the name after a hand-over.
func (c *call) revokeKey(ctx context.Context, req *pb.RevokeKeyRequest) (*pb.RevokeKeyResponse, error) {
	resp, err := prepared[*pb.RevokeKeyResponse](ctx, c, func() (*commands.Command, error) {
		revocation, err := commands.PrepareRevocation(c.view.Reader, c.service.serverName, c.service.vrf, req)
		if err != nil {
			return nil, err
		}
		return commands.NewRevokeKey(c.method.Rule, req, revocation)
	})
	if err != nil {
		return nil, err
	}
	c.closeView()
	resp.Proof, err = c.service.engine.ProveOwn(ctx, req.GetProof(), func(p *commands.Proofs) error {
		if s := req.GetSuccessor(); s != nil {
			return p.Person(s.GetUsername())
		}
		return p.Revocation(req.GetKey())
	})
	return resp, err
}

// audit answers from log and checkpoint.
func (c *call) audit(ctx context.Context, req *pb.AuditKeyTransparencyRequest) (*pb.AuditKeyTransparencyResponse, error) {
	c.closeView()
	return c.service.engine.Audit(ctx, c.caller, req)
}

// prepared runs a command that is made from the published view, and makes it
// anew from a newer view when the writer finds it stale.
func prepared[Resp proto.Message](ctx context.Context, c *call, prepare func() (*commands.Command, error)) (Resp, error) {
	var none Resp
	for try := 1; ; try++ {
		resp, err := decided[Resp](ctx, c, prepare)
		if err == nil {
			return resp, nil
		}
		if !errors.Is(err, commands.ErrStale) {
			return none, err
		}
		if try == prepareTries {
			return none, &commands.Refusal{
				Status: pb.Status_Unavailable, Reason: pb.Reason_OVERLOADED,
				Message: "the account's keys change too often: try again", RetryAfterMS: 1000,
			}
		}
		if err := c.refreshView(); err != nil {
			return none, err
		}
	}
}

// health serves method 802. While the server starts or stops nobody comes here:
// the call is answered Unavailable.
func (c *call) health(context.Context, *pb.HealthRequest) (*pb.HealthResponse, error) {
	s := c.server
	resp := &pb.HealthResponse{
		Status: "ok", Ready: true, UptimeMs: uint64(s.elapsed().Milliseconds()),
		ServerName: c.service.serverName, ServerTimeMs: c.service.engine.Now(), Version: s.version,
	}
	if latest := c.service.engine.Checkpoint(); latest != nil {
		resp.CheckpointSize = latest.Size
		latest.Release()
	}
	if c.service.engine.SigningStopped() != nil {
		resp.Status = "unsigned"
	}
	if err := c.service.engine.Ready(); err != nil {
		resp.Ready, resp.Status = false, "failed"
		if r := commands.AsRefusal(err); r != nil && r.Reason == pb.Reason_CLOCK {
			resp.Status = "clock"
		}
	}
	return resp, nil
}
