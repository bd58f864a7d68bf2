package commands

import (
	"fmt"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// ResolveUser answers with the identity key that a username is bound to, from
// the published view. version is that of the binding in key transparency.
// Refusals: BadRequest MISSING_FIELD, USERNAME_INVALID, NOT_SUPPORTED; NotFound
// NO_SUCH_USER.
func ResolveUser(v *View, req *pb.ResolveUserRequest) (*pb.ResolveUserResponse, error) {
	if req.GetUsername() == "" {
		return nil, missing("username")
	}
	name, err := statement.CanonicalUsername(req.GetUsername())
	if err != nil {
		return nil, refuseStatement("username", err)
	}
	account, found, err := projections.AccountByName(v.Reader, name)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, Refuse(pb.Status_NotFound, pb.Reason_NO_SUCH_USER, "there is no user of this name")
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
