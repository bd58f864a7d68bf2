package client

import (
	"context"
	"fmt"
	"time"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// PendingError: no checkpoint covers the leaf yet. Ask again.
type PendingError struct {
	// RetryAfter is when the next checkpoint is due at the latest.
	RetryAfter time.Duration
}

// Error says when to ask again.
func (e *PendingError) Error() string {
	return fmt.Sprintf("no checkpoint covers it yet: ask again in %v", e.RetryAfter.Round(time.Second))
}

// Receipt proves that the log has a leaf, in the tree that it showed to this
// Client before and since. What the leaf commits to is told to whoever did it, in a
// session. Errors: *PendingError; kt.ErrReceipt; those of LookupUser.
func (c *Client) Receipt(ctx context.Context, index uint64) (*kt.Receipt, error) {
	req := &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Index{Index: index}}
	if session, ok := c.Session(); ok {
		req.SessionToken = session.Token
	}
	r, err := c.receipt(ctx, req)
	if err == nil && r.Index != index {
		err = fmt.Errorf("%w: it is of record %d, not of %d", kt.ErrReceipt, r.Index, index)
	}
	return r, err
}

// MessageReceipt proves that the log has a message that this device sent under a
// request id (Enqueue, BatchEnqueue) within the last day; 20 a day. Errors: a
// refusal NO_SUCH_ENTRY for a message that the server does not find; those of
// Receipt.
func (c *Client) MessageReceipt(ctx context.Context, messageID, requestID []byte) (*kt.Receipt, error) {
	r, err := c.receipt(ctx, &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Message{
		Message: &pb.SentMessage{MessageId: messageID, RequestId: requestID},
	}})
	if err == nil && !r.IsMessage(messageID) {
		err = fmt.Errorf("%w: record %d is not that of the message", kt.ErrReceipt, r.Index)
	}
	return r, err
}

// receipt asks for a leaf, then for the newest head, and for the proof that this
// one continues the tree of the leaf.
func (c *Client) receipt(ctx context.Context, req *pb.AuditKeyTransparencyRequest) (*kt.Receipt, error) {
	resp, err := c.AuditKeyTransparency(ctx, req)
	if err != nil {
		return nil, err
	}
	if resp.GetPending() {
		return nil, &PendingError{time.Duration(resp.GetRetryAfterMs()) * time.Millisecond}
	}
	_, shown, err := kt.PeekNote(resp.GetLeaf().GetNote())
	if err != nil {
		return nil, err
	}
	answer, err := c.lookup(ctx, kt.Query{}, func(p *pb.ProofRequest) (*pb.KeyProof, error) {
		resp, err := c.AuditKeyTransparency(ctx, &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Head{}, Proof: p})
		return resp.GetProof(), err
	})
	if err != nil {
		return nil, err
	}
	if resp.GetLeaf().GetIndex() >= answer.Head.Size { // signed, not cosigned
		return nil, &PendingError{time.Second}
	}
	var consistency [][]byte
	if older, newer := min(shown, answer.Head.Size), max(shown, answer.Head.Size); older < newer {
		between, err := c.AuditKeyTransparency(ctx, &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Sizes{
			Sizes: &pb.SizePair{From: older, To: newer},
		}})
		if err != nil {
			return nil, err
		}
		consistency = between.GetConsistency().GetHashes()
	}
	return kt.VerifyReceipt(answer.Head, resp.GetLeaf(), consistency)
}

// NewRequestID makes a request id for one call, of the server's time. A request
// that carries it can be repeated, and its receipt be asked for.
func (c *Client) NewRequestID() []byte {
	id := c.clock.newRequestID()
	return id[:]
}
