package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"google.golang.org/protobuf/proto"

	"quicprochat/commands/datadir"
	"quicprochat/kt"
	"quicprochat/log"
	pb "quicprochat/proto/qpcv1"
)

// eventTypeMessageEnqueued is the field number of message_enqueued in
// qpc.v1.Event.body: the context of the leaf's commitment.
const eventTypeMessageEnqueued = 20

// messageProof is what shows that a message's event is in the log.
type messageProof struct {
	index, size uint64 // of the record, of the log
	leaf        []byte
	event       *pb.Event
	path        [][]byte // RFC 6962 audit path
	root        kt.Hash  // as the head anchor has it
}

// proveMessage opens a stopped server's log and checks the inclusion of the
// event that made a message. It uses nothing of the server but the log: leaf
// and path are checked by an independent implementation of RFC 6962.
func proveMessage(ctx context.Context, dataDir string, messageID []byte) (p *messageProof, err error) {
	dir, err := datadir.Open(ctx, vfs.Default, dataDir, datadir.Options{NoCreate: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	l, _, err := dir.OpenLog(nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return findAndProve(l, messageID)
}

func findAndProve(l *log.Log, messageID []byte) (*messageProof, error) {
	p, record, err := findMessage(l, messageID)
	if err != nil {
		return nil, err
	}
	p.size, p.root = l.Anchored()
	if p.size != l.Size() {
		return nil, fmt.Errorf("the anchor is at %d, but the stopped log has %d records", p.size, l.Size())
	}
	if p.path, err = l.InclusionProof(p.index, p.size); err != nil {
		return nil, err
	}
	if err := p.verify(record.Opening, record.Event); err != nil {
		return nil, err
	}
	changed := bytes.Clone(record.Event)
	changed[len(changed)/2] ^= 1
	if p.verify(record.Opening, changed) == nil {
		return nil, errors.New("the proof holds for a changed event, too")
	}
	return p, nil
}

// verify goes from the event to the root: opening and event give the
// commitment, that the leaf, that with the path the root.
func (p *messageProof) verify(opening kt.Opening, event []byte) error {
	context := kt.OpaqueContext(eventTypeMessageEnqueued)
	leaf := kt.AppendOpaqueLeaf(nil, kt.Commit(opening, context[:], event))
	hasher := rfc6962.DefaultHasher
	err := proof.VerifyInclusion(hasher, p.index, p.size, hasher.HashLeaf(leaf), p.path, p.root[:])
	if err != nil {
		return fmt.Errorf("the inclusion proof of record %d does not hold: %w", p.index, err)
	}
	return nil
}

// findMessage looks for the one record that enqueued a message.
func findMessage(l *log.Log, messageID []byte) (*messageProof, log.Record, error) {
	var found *messageProof
	var record log.Record
	err := l.Iterate(0, l.Size(), func(index uint64, r log.Record) error {
		event := new(pb.Event)
		if err := proto.Unmarshal(r.Event, event); err != nil {
			return fmt.Errorf("record %d: %w", index, err)
		}
		if !bytes.Equal(event.GetMessageEnqueued().GetMessageId(), messageID) {
			return nil
		}
		if found != nil {
			return fmt.Errorf("records %d and %d both tell of message %x", found.index, index, messageID)
		}
		found = &messageProof{index: index, leaf: bytes.Clone(r.Leaf), event: event}
		record = log.Record{Opening: r.Opening, Event: bytes.Clone(r.Event)}
		return nil
	})
	if err == nil && found == nil {
		err = fmt.Errorf("no record tells of message %x", messageID)
	}
	return found, record, err
}

// checkPayloadHash compares what was sent with what the event says.
func checkPayloadHash(payload, want []byte) error {
	if sum := sha256.Sum256(payload); !bytes.Equal(sum[:], want) {
		return fmt.Errorf("the event has payload hash %x, but what was sent hashes to %x", want, sum)
	}
	return nil
}
