package commands_test

import (
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// revocation completes a RevokeKeyRequest: by=NAME signs it with that key, and
// successor=NAME hands the account of the session from key to that one, with a
// KeySet that lists the devices of the newest one.
func (w *world) revocation(req *pb.RevokeKeyRequest, session string, a *arguments) {
	by, next := a.take("by", ""), a.take("successor", "")
	if next != "" {
		account := w.newestKeySet(person(session))
		req.Key = w.public(person(session))
		req.Successor = &pb.Successor{Username: person(session), Keyset: &pb.KeySet{
			IdentityKey: w.public(next), DeviceKeys: account.GetDeviceKeys(), TimeMs: w.now(),
		}}
	}
	a.apply(req, false)
	if by != "" {
		req.Signature = statement.Revoke{
			ServerName: serverName, Key: req.GetKey(), Reason: statement.RevocationReason(req.GetReason()),
		}.Sign(w.key(by))
	}
	if s := req.GetSuccessor(); s.GetKeyset() != nil {
		statement.SignKeySet(serverName, s.GetKeyset(), w.signer(s.GetKeyset().GetIdentityKey(), next))
		both := statement.Successor{
			ServerName: serverName, Username: s.GetUsername(), OldKey: req.GetKey(), NewKey: s.GetKeyset().GetIdentityKey(),
			KeySetHash: statement.KeySetHash(serverName, s.GetKeyset()),
		}
		s.OldSignature = both.Sign(w.signer(req.GetKey(), person(session)))
		s.NewSignature = both.Sign(w.signer(s.GetKeyset().GetIdentityKey(), next))
	}
	a.apply(req, true)
}
