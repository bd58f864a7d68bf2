package commands

import (
	"fmt"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// ResolveUser answers with the identity key that a username is bound to, from
// the published view. version is that of the binding in key transparency. With a
// proof a name that nobody has, or whose key was revoked, is no refusal: the proof
// shows it. A banned user is not found. Refusals: BadRequest MISSING_FIELD, USERNAME_INVALID; NotFound
// NO_SUCH_USER, or KEY_REVOKED while the user has no other key; those of Proofs.
func ResolveUser(v *View, req *pb.ResolveUserRequest) (*pb.ResolveUserResponse, error) {
	if req.GetUsername() == "" {
		return nil, missing("username")
	}
	name, err := statement.CanonicalUsername(req.GetUsername())
	if err != nil {
		return nil, refuseStatement("username", err)
	}
	resp, err := resolveName(v, name)
	if err != nil || v.Proofs == nil {
		return resp, err
	}
	if err := v.Proofs.Person(name); err != nil {
		return nil, err
	}
	resp.Proof, err = v.Proofs.Proof()
	return resp, err
}

func resolveName(v *View, name string) (*pb.ResolveUserResponse, error) {
	account, found, err := projections.AccountByName(v.Reader, name)
	if err != nil {
		return nil, err
	}
	if !found && v.Proofs != nil {
		return &pb.ResolveUserResponse{Username: name}, nil
	}
	if !found {
		return nil, errNoSuchUser
	}
	switch banned, err := projections.BannedAt(v.Reader, account.ID, v.Now); {
	case err != nil:
		return nil, err
	case banned:
		return nil, errNoSuchUser // also with a proof, which would show the person
	}
	if v.Proofs == nil {
		if err := refuseRevoked(v.Reader, account.IdentityKey, pb.Status_NotFound, "the identity key of this user"); err != nil {
			return nil, err
		}
	}
	version, found, err := projections.KTNewest(v.Reader, kt.KindAccount, []byte(name))
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("commands: an account without a key-transparency entry")
	}
	return &pb.ResolveUserResponse{IdentityKey: account.IdentityKey[:], Version: version, Username: name}, nil
}
