package commands

import (
	"fmt"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// refuseKeyChange refuses one more change of an account's keys on a UTC day on
// which it had MaxKeyChanges: each is a leaf and a map entry for ever. Revocations
// and an administrator's reset are never refused. Refusal: RateLimited RATE.
func refuseKeyChange(tx *Tx, account projections.ID) error {
	if !tx.Quotas() {
		return nil
	}
	n, err := projections.KeyChanges(tx.View(), account, tx.Now())
	if err != nil || n < MaxKeyChanges {
		return err
	}
	return &Refusal{
		Status: pb.Status_RateLimited, Reason: pb.Reason_RATE, Limit: MaxKeyChanges,
		Message:      fmt.Sprintf("this account's keys changed %d times today, which is the most: go on tomorrow (UTC)", n),
		RetryAfterMS: dayMS - tx.Now()%dayMS,
	}
}
