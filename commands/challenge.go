package commands

import (
	"crypto/sha256"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// Challenge is what the server sealed into the challenge of OpaqueRegisterStart
// and has opened again: good for one name, and not expired.
type Challenge struct {
	Username     string // canonical
	CredentialID [CredentialIDSize]byte
	KeyVersion   uint32 // of the OPAQUE seed and key that evaluated the OPRF
}

// check refuses a Finish whose name is not the sealed one, or whose upload has
// not the size of a record. Whether the record's bytes are group elements is
// looked at by whoever owns the OPAQUE profile.
func (c *Challenge) check(req *pb.OpaqueRegisterFinishRequest) error {
	name, err := statement.CanonicalUsername(req.GetUsername())
	if err != nil {
		return refuseStatement("username", err)
	}
	if name != c.Username {
		return Refuse(pb.Status_BadRequest, pb.Reason_CHALLENGE_INVALID, "the challenge was given for another name")
	}
	if len(req.GetUpload()) != OpaqueRecordSize {
		return Refuse(pb.Status_BadRequest, pb.Reason_OPAQUE_MALFORMED,
			"upload has %d bytes, not %d", len(req.GetUpload()), OpaqueRecordSize)
	}
	return nil
}

// statement is the qpc-register-v1 that the request must carry.
func (c *Challenge) statement(serverName string, req *pb.OpaqueRegisterFinishRequest) statement.Register {
	return statement.Register{
		ServerName:  serverName,
		Username:    c.Username,
		UploadHash:  sha256.Sum256(req.GetUpload()),
		IdentityKey: req.GetIdentityKey(),
		Challenge:   req.GetChallenge(),
	}
}

// record is the OPAQUE record as it goes into the log.
func (c *Challenge) record(upload []byte, version uint32) *pb.OpaqueRecord {
	return &pb.OpaqueRecord{
		Upload:       upload,
		CredentialId: c.CredentialID[:],
		KeyVersion:   c.KeyVersion,
		Version:      version,
	}
}
