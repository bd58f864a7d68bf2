package commands

import (
	"fmt"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// PreparedBatch is a BatchEnqueueRequest, checked and hashed outside the writer.
// Only PrepareBatch makes one.
type PreparedBatch struct {
	// items in order: a message, or why that item is refused whatever the view.
	items  []batchItem
	atomic bool
}

type batchItem struct {
	message outgoing
	refused *Refusal
}

// PrepareBatch checks a request as far as that needs no view. An item that is
// wrong by itself refuses an atomic call at once, and in any other call becomes
// that item's result. The payloads must not change until the command is done.
// Refusals of the call, all BadRequest: MISSING_FIELD without items,
// TOO_MANY_ITEMS, PAYLOAD_TOO_LARGE (limit in bytes, over all items); those of
// NewEnqueue when atomic.
func PrepareBatch(req *pb.BatchEnqueueRequest) (*PreparedBatch, error) {
	switch n := len(req.GetItems()); {
	case n == 0:
		return nil, missing("items")
	case n > MaxBatchItems:
		return nil, tooMany("items", n, MaxBatchItems)
	}
	total := 0
	for _, item := range req.GetItems() {
		total += len(item.GetPayload())
	}
	if total > MaxBatchBytes {
		return nil, tooLarge("a batch", total, MaxBatchBytes)
	}
	p := &PreparedBatch{items: make([]batchItem, len(req.GetItems())), atomic: req.GetAtomic()}
	for i, item := range req.GetItems() {
		message, err := newOutgoing(item)
		if err != nil && p.atomic {
			return nil, refuseItem(i, err)
		}
		p.items[i] = batchItem{message, AsRefusal(err)}
	}
	return p, nil
}

// refuseItem says which item of an atomic call refused it.
func refuseItem(i int, err error) error {
	refusal := AsRefusal(err)
	if refusal == nil {
		return err
	}
	named := *refusal
	named.Message = fmt.Sprintf("item %d: %s", i, refusal.Message)
	return &named
}

// BatchEnqueue decides many messages at once. Each is judged as in Enqueue after
// those before it, so items of one recipient get consecutive positions and count
// against the quotas together. An atomic call is refused by its first refused
// item; in any other call the result of each item carries its status and reason.
func BatchEnqueue(tx *Tx, p *PreparedBatch) (*pb.BatchEnqueueResponse, error) {
	d := delivery{
		tx:         tx,
		recipients: make(map[recipientName]*recipient),
		rooms:      make(map[projections.Key]*room),
	}
	messages := make([]*placed, len(p.items))
	results := make([]*pb.BatchEnqueueResponse_Result, len(p.items))
	for i := range p.items {
		item := &p.items[i]
		refusal := item.refused
		if refusal == nil {
			var err error
			messages[i], err = d.place(&item.message)
			if refusal = AsRefusal(err); refusal == nil && err != nil {
				return nil, err
			}
		}
		results[i] = &pb.BatchEnqueueResponse_Result{}
		if refusal == nil {
			continue
		}
		if p.atomic {
			return nil, refuseItem(i, refusal)
		}
		results[i].Status, results[i].Reason = refusal.Status, refusal.Reason
	}
	for i, message := range messages {
		if message == nil {
			continue
		}
		id, err := d.emit(message)
		if err != nil {
			return nil, err
		}
		results[i].MessageId = id[:]
	}
	return &pb.BatchEnqueueResponse{Results: results, ServerTimeMs: tx.Now()}, nil
}

// NewBatchEnqueue makes the command of a BatchEnqueue in either form. Refusals are
// those of PrepareBatch or of PreparePost.
func NewBatchEnqueue(rule *pb.Rule, req *pb.BatchEnqueueRequest) (*Command, error) {
	if isPost(req) {
		return newPost(rule, req)
	}
	p, err := PrepareBatch(req)
	if err != nil {
		return nil, err
	}
	c, err := NewCommand(rule, req, func(tx *Tx) (*pb.BatchEnqueueResponse, error) { return BatchEnqueue(tx, p) })
	if err != nil {
		return nil, err
	}
	c.Entries = len(p.items) * MaxDevices
	return c, nil
}

// newPost makes the command of the channel form. How many queues it fills only the
// writer finds out: a large channel is the estimate.
func newPost(rule *pb.Rule, req *pb.BatchEnqueueRequest) (*Command, error) {
	p, err := PreparePost(req)
	if err != nil {
		return nil, err
	}
	c, err := NewCommand(rule, req, func(tx *Tx) (*pb.BatchEnqueueResponse, error) { return PostToChannel(tx, p) })
	if err != nil {
		return nil, err
	}
	c.Entries = MaxChannelMembers
	return c, nil
}
