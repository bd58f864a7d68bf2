package projections

import (
	pb "quicprochat/proto/qpcv1"
)

// Accounts are users unless they have a row here: moderators and admins are
// few, so that one scan lists them.

// applyRoleChanged gives an account a role that it does not have.
func applyRoleChanged(b *Batch, ev *pb.RoleChanged) error {
	account, err := fieldID(ev.GetAccountId(), "account id")
	if err != nil {
		return err
	}
	if _, found, err := b.get(keyOfID(b.scratch(), prefixAccount, account)); err != nil || !found {
		return orInvalid(err, "the account does not exist")
	}
	if err := checkActor(b, ev.GetActor()); err != nil {
		return err
	}
	current, err := RoleOf(b, account)
	if err != nil {
		return err
	}
	switch role := ev.GetRole(); {
	case role == current:
		return invalid("the account has this role")
	case role == pb.Role_USER:
		return b.remove(keyOfID(b.scratch(), prefixRole, account))
	case role == pb.Role_MODERATOR, role == pb.Role_ADMIN:
		b.row = append(b.row[:0], byte(role))
		return b.put(keyOfID(b.scratch(), prefixRole, account), b.row)
	}
	return invalid("role %d", ev.GetRole())
}

// checkActor holds that what an administrator did names one.
func checkActor(b *Batch, actor *pb.Actor) error {
	switch actor.GetWay() {
	case pb.Actor_SOCKET, pb.Actor_DIRECTORY:
		if len(actor.GetAccountId()) != 0 {
			return invalid("an account acts on the server's machine")
		}
		return nil
	case pb.Actor_SESSION:
		account, err := fieldID(actor.GetAccountId(), "actor's account id")
		if err != nil {
			return err
		}
		role, err := RoleOf(b, account)
		if err != nil || role == pb.Role_USER {
			return orInvalid(err, "the actor is a user")
		}
		return nil
	}
	return invalid("actor of way %d", actor.GetWay())
}

// RoleOf is the role of an account; one that does not exist is a user.
func RoleOf(r Reader, account ID) (pb.Role, error) {
	role, found, err := readRow(r, "roles", keyOfID(r.scratch(), prefixRole, account), decodeRole)
	if err != nil || !found {
		return pb.Role_USER, err
	}
	return role, nil
}

func decodeRole(in *rowReader) pb.Role {
	role := pb.Role(in.u8())
	in.bad = in.bad || (role != pb.Role_MODERATOR && role != pb.Role_ADMIN)
	return role
}

// RoleHolder is an account with a role above user.
type RoleHolder struct {
	Account ID
	Role    pb.Role
}

// RoleHolders lists up to limit accounts with a role above user, those with an
// id above after, in the order of ids, which means nothing.
func RoleHolders(r Reader, after ID, limit int) (holders []RoleHolder, err error) {
	start := append(keyOfID(nil, prefixRole, after), 0) // the first key beyond after's
	if after == (ID{}) {
		start = keyOf(nil, prefixRole)
	}
	err = scanRows(r, start, keyRangeEnd(keyOf(nil, prefixRole)), func(key, value []byte) (bool, error) {
		if len(holders) >= limit {
			return false, nil
		}
		in := rowReader{rest: value}
		h := RoleHolder{Account: ID(key[1:]), Role: decodeRole(&in)}
		holders = append(holders, h)
		return true, in.end("roles")
	})
	return holders, err
}
