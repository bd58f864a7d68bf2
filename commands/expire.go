package commands

import (
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

const (
	// DrainedGraceMS is how long what a draining Fetch handed out stays, in
	// milliseconds (protocol.md, 201).
	DrainedGraceMS = dayMS
	// expiryLimit bounds what one housekeeping command removes.
	expiryLimit = 512
	// receiptStepMS keeps the expiry of receipts to one event per 10 minutes.
	receiptStepMS = 10 * 60 * 1000
)

// expiries are the housekeeping commands. Each removes a bounded number of
// things that are over at tx.Now and tells whether more are left.
var expiries = []func(*Tx) (more bool, err error){
	expireMessages,
	releaseDrained,
	expireSessions,
	expireReceipts,
	expireKeyPackages,
	releaseKeyPackages,
	expireBans,
	expireChannelBans,
	expireReports,
}

// expireMessages removes messages whose time to live ended.
func expireMessages(tx *Tx) (more bool, err error) {
	queues, err := projections.ExpiredMessages(tx.View(), tx.Now(), expiryLimit)
	items := 0
	for _, q := range queues {
		if err := tx.Emit(&pb.Event{Body: &pb.Event_MessagesExpired{
			MessagesExpired: &pb.MessagesExpired{DeviceKey: q.Device[:], Seqs: q.Seqs},
		}}); err != nil {
			return false, err
		}
		items += len(q.Seqs)
	}
	return items >= expiryLimit, err
}

// releaseDrained removes what was drained and has passed its grace.
func releaseDrained(tx *Tx) (more bool, err error) {
	queues, err := projections.DrainedDue(tx.View(), tx.Now(), DrainedGraceMS, expiryLimit)
	for _, q := range queues {
		if err := tx.Emit(&pb.Event{Body: &pb.Event_DrainedReleased{
			DrainedReleased: &pb.DrainedReleased{DeviceKey: q.Device[:], UpTo: q.UpTo},
		}}); err != nil {
			return false, err
		}
	}
	return len(queues) >= expiryLimit, err
}

// expireSessions ends sessions past their end or idle for too long.
func expireSessions(tx *Tx) (more bool, err error) {
	sessions, err := projections.ExpiredSessions(tx.View(), tx.Now(), SessionIdleMS, expiryLimit)
	if err != nil || len(sessions) == 0 {
		return false, err
	}
	ended := &pb.SessionsEnded{Cause: pb.SessionsEnded_EXPIRED}
	for i := range sessions {
		ended.TokenHashes = append(ended.TokenHashes, sessions[i].TokenHash[:])
	}
	err = tx.Emit(&pb.Event{Body: &pb.Event_SessionsEnded{SessionsEnded: ended}})
	return len(sessions) >= expiryLimit, err
}

// expireReceipts forgets receipts whose request_id would be refused for its
// time anyway.
func expireReceipts(tx *Tx) (more bool, err error) {
	if tx.Now() < RequestIDWindowMS {
		return false, nil
	}
	before := (tx.Now() - RequestIDWindowMS) / receiptStepMS * receiptStepMS
	due, err := projections.ExpiredReceipts(tx.View(), before)
	if err != nil || !due {
		return false, err
	}
	return false, tx.Emit(&pb.Event{Body: &pb.Event_ReceiptsExpired{
		ReceiptsExpired: &pb.ReceiptsExpired{BeforeMs: before},
	}})
}

// expireKeyPackages forgets KeyPackages whose lifetime is over, those that were
// used up too.
func expireKeyPackages(tx *Tx) (more bool, err error) {
	packages, err := projections.ExpiredKeyPackages(tx.View(), tx.Now(), expiryLimit)
	if err != nil || len(packages) == 0 {
		return false, err
	}
	expired := &pb.KeyPackagesExpired{}
	for i := range packages {
		p := &packages[i]
		expired.Packages = append(expired.Packages, &pb.KeyPackagesExpired_Package{
			DeviceKey: p.Device[:], Sha256: p.Hash[:], ExpiresMs: p.ExpiresMS,
		})
	}
	err = tx.Emit(&pb.Event{Body: &pb.Event_KeyPackagesExpired{KeyPackagesExpired: expired}})
	return len(packages) >= expiryLimit, err
}

// releaseKeyPackages drops the bytes of used KeyPackages once no repetition of a
// call can ask for them.
func releaseKeyPackages(tx *Tx) (more bool, err error) {
	packages, err := projections.KeptKeyPackages(tx.View(), tx.Now(), expiryLimit)
	if err != nil || len(packages) == 0 {
		return false, err
	}
	released := &pb.KeyPackagesReleased{}
	for i := range packages {
		p := &packages[i]
		released.Packages = append(released.Packages, &pb.KeyPackagesReleased_Package{
			AccountId: p.Account[:], PackageId: p.ID[:], KeptUntilMs: p.UntilMS,
		})
	}
	err = tx.Emit(&pb.Event{Body: &pb.Event_KeyPackagesReleased{KeyPackagesReleased: released}})
	return len(packages) >= expiryLimit, err
}

// recordSnapshot records a snapshot that was written.
func recordSnapshot(tx *Tx, size uint64, digest projections.Hash) error {
	return tx.Emit(&pb.Event{Body: &pb.Event_SnapshotTaken{
		SnapshotTaken: &pb.SnapshotTaken{Size: size, Digest: digest[:]},
	}})
}
