package projections

import (
	"encoding/binary"

	pb "quicprochat/proto/qpcv1"
)

// ReceiptRecord is what was decided under a request id.
type ReceiptRecord struct {
	// RequestHash recognises a repetition of the same request.
	RequestHash Hash
	// Outcome is the response message without tokens, payloads and proofs.
	Outcome []byte
	// TimeMS is when it was decided, Unix milliseconds.
	TimeMS uint64
	// Index is the log index of the event that carries the receipt: the last one of
	// its command.
	Index uint64
}

// applyReceipt keeps the receipt that an event carries. That no receipt was
// there is what the deciding command found; asking again would cost each
// message a read.
func applyReceipt(b *Batch, receipt *pb.Receipt, index, nowMS uint64) error {
	caller, err := field32(receipt.GetCaller(), "receipt's caller")
	if err != nil {
		return err
	}
	id, err := fieldID(receipt.GetRequestId(), "request id")
	if err != nil {
		return err
	}
	hash, err := field32(receipt.GetRequestHash(), "request hash")
	if err != nil {
		return err
	}
	row := append(b.row[:0], hash[:]...)
	row = binary.BigEndian.AppendUint64(row, nowMS)
	row = binary.BigEndian.AppendUint64(row, index)
	b.row = appendBytes(row, receipt.GetOutcome())
	return b.put(receiptKey(b.scratch(), caller, receipt.GetMethod(), id), b.row)
}

// Receipt finds what was decided for (caller, method, request id).
func Receipt(r Reader, caller Key, method uint32, requestID ID) (ReceiptRecord, bool, error) {
	return readRow(r, "receipts", receiptKey(r.scratch(), caller, method, requestID), func(in *rowReader) ReceiptRecord {
		return ReceiptRecord{RequestHash: in.array32(), TimeMS: in.u64(), Index: in.u64(), Outcome: append([]byte(nil), in.bytes()...)}
	})
}

// applyReceiptsExpired drops receipts by time, as one range.
func applyReceiptsExpired(b *Batch, ev *pb.ReceiptsExpired) error {
	return b.store.DeleteRange(receiptBound(nil, 0), receiptBound(nil, ev.GetBeforeMs()), nil)
}

// ExpiredReceipts tells whether there are receipts whose request id's time is
// below beforeMS: a ReceiptsExpired event with this time is due then.
func ExpiredReceipts(r Reader, beforeMS uint64) (bool, error) {
	due := false
	err := scanRows(r, receiptBound(nil, 0), receiptBound(nil, beforeMS), func(_, _ []byte) (bool, error) {
		due = true
		return false, nil
	})
	return due, err
}
