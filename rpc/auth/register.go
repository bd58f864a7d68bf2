package auth

import (
	"context"
	"crypto/rand"
	"errors"

	"quicprochat/commands"
	"quicprochat/commands/datadir"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/pake"
)

// RegisterStart serves method 100. Refusals, all BadRequest: USERNAME_INVALID,
// MISSING_FIELD, OPAQUE_MALFORMED.
func (c *Ceremonies) RegisterStart(ctx context.Context, from Origin, req *pb.OpaqueRegisterStartRequest) (*pb.OpaqueRegisterStartResponse, error) {
	name, err := canonical(req.GetUsername())
	if err != nil {
		return nil, err
	}
	if err := size("registration_request", req.GetRegistrationRequest(), pake.RegistrationRequestSize); err != nil {
		return nil, err
	}
	challenge := commands.Challenge{Username: name, KeyVersion: datadir.OPAQUEVersion}
	rand.Read(challenge.CredentialID[:])
	var response []byte
	err = c.expensive(ctx, from, func() (err error) {
		response, err = c.opaque.RegistrationResponse(req.GetRegistrationRequest(), challenge.CredentialID[:])
		return malformed(err)
	})
	if err != nil {
		return nil, err
	}
	now := c.engine.Now()
	return &pb.OpaqueRegisterStartResponse{
		RegistrationResponse: response,
		Challenge:            c.sealer.seal(challenge, now),
		ServerName:           c.serverName,
		ServerTimeMs:         now,
		Username:             name,
	}, nil
}

// RegisterFinish serves method 101: a registration, with a session_token a
// password change, or with a reset_token a reset. caller is who the guard found
// behind the session. Refusals are those of commands.PrepareRegistration and
// RegisterAccount, of commands.PreparePasswordChange and ChangePassword, or of
// commands.PrepareReset and ResetRegistration; CHALLENGE_INVALID for a challenge
// that does not open.
func (c *Ceremonies) RegisterFinish(ctx context.Context, from Origin, caller commands.Caller, req *pb.OpaqueRegisterFinishRequest) (*pb.OpaqueRegisterFinishResponse, error) {
	changes := len(req.GetSessionToken()) > 0
	if changes {
		if err := requireFreshDevice(caller, c.engine.Now()); err != nil {
			return nil, err
		}
	}
	challenge, err := c.sealer.open(req.GetChallenge(), c.engine.Now())
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		var command *commands.Command
		err = c.expensive(ctx, from, func() (err error) {
			switch {
			case changes:
				command, err = c.preparePasswordChange(challenge, caller, req)
			case len(req.GetResetToken()) > 0:
				command, err = c.prepareReset(challenge, req)
			default:
				command, err = c.prepareRegistration(challenge, req)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		response, err := c.engine.Do(ctx, command)
		switch {
		case err == nil:
			return response.(*pb.OpaqueRegisterFinishResponse), nil
		case !errors.Is(err, commands.ErrStale) || try == resetTries:
			return nil, err
		}
	}
}

// resetTries is how often a reset is prepared anew when the account's keys changed
// meanwhile.
const resetTries = 4

func (c *Ceremonies) prepareReset(challenge commands.Challenge, req *pb.OpaqueRegisterFinishRequest) (*commands.Command, error) {
	view, err := c.engine.View()
	if err != nil {
		return nil, err
	}
	defer view.Release()
	reset, err := commands.PrepareReset(view.Reader, view.Now, c.serverName, c.vrf, challenge, req)
	if err != nil {
		return nil, err
	}
	if _, err := c.opaque.ParseRecord(req.GetUpload()); err != nil {
		return nil, malformed(err)
	}
	return commands.NewReset(rule(req), req, reset)
}

func (c *Ceremonies) prepareRegistration(challenge commands.Challenge, req *pb.OpaqueRegisterFinishRequest) (*commands.Command, error) {
	registration, err := commands.PrepareRegistration(c.serverName, c.vrf, challenge, req)
	if err != nil {
		return nil, err
	}
	if _, err := c.opaque.ParseRecord(req.GetUpload()); err != nil {
		return nil, malformed(err)
	}
	return commands.NewRegister(rule(req), req, registration)
}

func (c *Ceremonies) preparePasswordChange(challenge commands.Challenge, caller commands.Caller, req *pb.OpaqueRegisterFinishRequest) (*commands.Command, error) {
	change, err := commands.PreparePasswordChange(c.serverName, challenge, caller.DeviceKey, req)
	if err != nil {
		return nil, err
	}
	if _, err := c.opaque.ParseRecord(req.GetUpload()); err != nil {
		return nil, malformed(err)
	}
	return commands.NewChangePassword(rule(req), req, change)
}

// requireFreshDevice refuses a password change by any other session than one of
// a device with a recent login.
func requireFreshDevice(caller commands.Caller, nowMS uint64) error {
	if !caller.IsDevice() {
		return commands.Refuse(pb.Status_Forbidden, pb.Reason_SCOPE, "only a session of a device may change the password")
	}
	return caller.RequireFresh(nowMS)
}
