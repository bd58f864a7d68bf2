package projections

import (
	"encoding/binary"

	pb "quicprochat/proto/qpcv1"
)

// Sizes of an OPAQUE record's parts in bytes (RFC 9807 with ristretto255).
const (
	opaqueUploadSize       = 192
	opaqueCredentialIDSize = 32
)

// applyPasswordChanged replaces the record and ends all other sessions.
func applyPasswordChanged(b *Batch, ev *pb.PasswordChanged) error {
	account, err := fieldID(ev.GetAccountId(), "account id")
	if err != nil {
		return err
	}
	kept, err := field32(ev.GetKeptSession(), "kept session")
	if err != nil {
		return err
	}
	if err := b.replaceOpaqueRecord(account, ev.GetOpaque()); err != nil {
		return err
	}
	return b.endOtherSessions(account, kept)
}

// replaceOpaqueRecord puts a record in the place of an older one.
func (b *Batch) replaceOpaqueRecord(account ID, next *pb.OpaqueRecord) error {
	current, found, err := OpaqueRecord(b, account)
	if err != nil || !found {
		return orInvalid(err, "the account does not exist")
	}
	if next.GetVersion() <= current.GetVersion() {
		return invalid("record version %d after %d", next.GetVersion(), current.GetVersion())
	}
	return b.putOpaqueRecord(account, next)
}

func (b *Batch) putOpaqueRecord(account ID, record *pb.OpaqueRecord) error {
	if n := len(record.GetUpload()); n != opaqueUploadSize {
		return invalid("OPAQUE record of %d bytes", n)
	}
	if n := len(record.GetCredentialId()); n != opaqueCredentialIDSize {
		return invalid("OPAQUE credential identifier of %d bytes", n)
	}
	row := append(b.row[:0], record.GetUpload()...)
	row = append(row, record.GetCredentialId()...)
	row = binary.BigEndian.AppendUint32(row, record.GetKeyVersion())
	b.row = binary.BigEndian.AppendUint32(row, record.GetVersion())
	return b.put(keyOfID(b.scratch(), prefixOpaque, account), b.row)
}

// OpaqueRecord is what an account's password left on the server.
func OpaqueRecord(r Reader, account ID) (*pb.OpaqueRecord, bool, error) {
	return readRow(r, "OPAQUE records", keyOfID(r.scratch(), prefixOpaque, account), func(in *rowReader) *pb.OpaqueRecord {
		return &pb.OpaqueRecord{
			Upload:       append([]byte(nil), in.take(opaqueUploadSize)...),
			CredentialId: append([]byte(nil), in.take(opaqueCredentialIDSize)...),
			KeyVersion:   in.u32(),
			Version:      in.u32(),
		}
	})
}
