package commands

import (
	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// MaxRoleEntries is the most accounts in one answer of ListRoles, and what a
// max_entries of 0 stands for.
const MaxRoleEntries = 256

// NewGrantRole makes the command that gives an account a role above user, by an
// actor on the server's machine. The same role again is Ok and changes nothing.
// Refusals: BadRequest USERNAME_INVALID, MISSING_FIELD, INVALID_FIELD; NotFound
// NO_SUCH_USER.
func NewGrantRole(rule *pb.Rule, req *pb.GrantRoleRequest, by pb.Actor_Way) (*Command, error) {
	role := req.GetRole()
	if role != pb.Role_MODERATOR && role != pb.Role_ADMIN {
		return nil, invalid("role must be MODERATOR or ADMIN: RevokeRole makes a user")
	}
	name, err := nameOf(req.GetUsername())
	if err != nil {
		return nil, err
	}
	return NewCommand(rule, req, func(tx *Tx) (*pb.GrantRoleResponse, error) {
		previous, err := changeRole(tx, name, role, by)
		if err != nil {
			return nil, err
		}
		return &pb.GrantRoleResponse{Username: name, Previous: previous, ServerTimeMs: tx.Now()}, nil
	})
}

// NewRevokeRole makes the command that makes an account a plain user again.
// Refusals: BadRequest USERNAME_INVALID, MISSING_FIELD; NotFound NO_SUCH_USER.
func NewRevokeRole(rule *pb.Rule, req *pb.RevokeRoleRequest, by pb.Actor_Way) (*Command, error) {
	name, err := nameOf(req.GetUsername())
	if err != nil {
		return nil, err
	}
	return NewCommand(rule, req, func(tx *Tx) (*pb.RevokeRoleResponse, error) {
		previous, err := changeRole(tx, name, pb.Role_USER, by)
		if err != nil {
			return nil, err
		}
		return &pb.RevokeRoleResponse{Username: name, Previous: previous, ServerTimeMs: tx.Now()}, nil
	})
}

// nameOf is the canonical form of a username in a request.
func nameOf(username string) (string, error) {
	if username == "" {
		return "", missing("username")
	}
	name, err := statement.CanonicalUsername(username)
	if err != nil {
		return "", refuseStatement("username", err)
	}
	return name, nil
}

// changeRole decides a role and returns the one before.
func changeRole(tx *Tx, username string, role pb.Role, by pb.Actor_Way) (previous pb.Role, err error) {
	account, found, err := projections.AccountByName(tx.View(), username)
	if err != nil {
		return 0, err
	}
	if !found {
		return 0, errNoSuchUser
	}
	previous, err = projections.RoleOf(tx.View(), account.ID)
	if err != nil || previous == role {
		return previous, err
	}
	return previous, tx.Emit(&pb.Event{Body: &pb.Event_RoleChanged{RoleChanged: &pb.RoleChanged{
		AccountId: account.ID[:], Role: role, Actor: &pb.Actor{Way: by},
	}}})
}

var errNoSuchUser = Refuse(pb.Status_NotFound, pb.Reason_NO_SUCH_USER, "there is no user of this name")

// ListRoles answers with the accounts that have a role above user, from the
// published view. Refusals, both BadRequest: INVALID_FIELD for a position that
// no page gave; TOO_MANY_ITEMS.
func ListRoles(v *View, req *pb.ListRolesRequest) (*pb.ListRolesResponse, error) {
	limit := int(min(req.GetMaxEntries(), MaxRoleEntries+1))
	switch {
	case limit > MaxRoleEntries:
		return nil, tooMany("entries", int(req.GetMaxEntries()), MaxRoleEntries)
	case limit == 0:
		limit = MaxRoleEntries
	}
	var after projections.ID
	switch n := len(req.GetAfter()); n {
	case 0:
	case len(after):
		after = projections.ID(req.GetAfter())
	default:
		return nil, invalid("after has %d bytes, not %d", n, len(after))
	}
	holders, err := projections.RoleHolders(v.Reader, after, limit+1)
	if err != nil {
		return nil, err
	}
	resp := new(pb.ListRolesResponse)
	if len(holders) > limit {
		holders = holders[:limit]
		resp.Next = append(resp.Next, holders[limit-1].Account[:]...)
	}
	for _, h := range holders {
		account, found, err := projections.AccountByID(v.Reader, h.Account)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		resp.Entries = append(resp.Entries, &pb.ListRolesResponse_Entry{
			Username: account.Username, Role: h.Role, IdentityKey: account.IdentityKey[:],
		})
	}
	return resp, nil
}
