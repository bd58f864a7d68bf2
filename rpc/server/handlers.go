package server

import (
	"context"
	"errors"

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
	resp, err := c.decideHybridKey(ctx, req)
	if err != nil {
		return nil, err
	}
	c.closeView()
	resp.Proof, err = c.service.engine.ProveOwn(ctx, req.GetProof(), func(p *commands.Proofs) error {
		return p.Identity(req.GetKeyset().GetIdentityKey())
	})
	return resp, err
}

// decideHybridKey prepares the VRF proofs for the version that the published
// view shows, and again when the writer sees a newer one.
func (c *call) decideHybridKey(ctx context.Context, req *pb.UploadHybridKeyRequest) (*pb.UploadHybridKeyResponse, error) {
	for try := 1; ; try++ {
		resp, err := decided[*pb.UploadHybridKeyResponse](ctx, c, func() (*commands.Command, error) {
			upload, err := commands.PrepareHybridKey(c.view.Reader, c.service.serverName, c.service.vrf, req)
			if err != nil {
				return nil, err
			}
			return commands.NewUploadHybridKey(c.method.Rule, req, upload)
		})
		if err == nil {
			return resp, nil
		}
		if !errors.Is(err, commands.ErrStale) {
			return nil, err
		}
		if try == prepareTries {
			return nil, &commands.Refusal{
				Status: pb.Status_Unavailable, Reason: pb.Reason_OVERLOADED,
				Message: "the account's keys change too often: try again", RetryAfterMS: 1000,
			}
		}
		if err := c.refreshView(); err != nil {
			return nil, err
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
