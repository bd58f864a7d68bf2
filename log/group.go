package log

import "quicprochat/kt"

// Group collects the records and payload operations that become durable together. One goroutine at a time makes
// and commits groups, one after the other: a new group starts at the index where the one committed before it ended.
// A group that is not wanted any more is dropped with Discard.
type Group struct{}

// NewGroup starts an empty group behind the last committed one.
func (l *Log) NewGroup() *Group { panic("not yet") }

// First is the index of the group's first record.
func (g *Group) First() uint64 { panic("not yet") }

// Next is the index that the next appended record gets.
func (g *Group) Next() uint64 { panic("not yet") }

// Empty tells that the group would write nothing.
func (g *Group) Empty() bool { panic("not yet") }

// Bytes is the number of bytes that the group would write.
func (g *Group) Bytes() int { panic("not yet") }

// Append adds a record, copying its bytes, and returns its index. r.Erased must be false.
func (g *Group) Append(r Record) uint64 { panic("not yet") }

// PutPayload stores a payload, copying its bytes.
func (g *Group) PutPayload(k PayloadKey, data []byte) { panic("not yet") }

// ReleasePayload deletes one payload.
func (g *Group) ReleasePayload(k PayloadKey) { panic("not yet") }

// DeletePayloads deletes all payloads of an owner.
func (g *Group) DeletePayloads(owner [16]byte) { panic("not yet") }

// Discard drops the group without a trace.
func (g *Group) Discard() { panic("not yet") }

// Root is the RFC 6962 root of the log with the group's records.
func (g *Group) Root() kt.Hash { panic("not yet") }

// Commit writes the group as one batch and returns before its sync. The records are readable at once, though not yet
// durable. After an error the outcome is unknown: the log has failed and the process must restart. The group must not
// be used afterwards.
func (g *Group) Commit() (*Pending, error) { panic("not yet") }

// Pending is a committed group whose sync may not have returned yet.
type Pending struct{}

// Wait returns when the group is durable. An error is of unknown outcome and fails the log. Wait is called exactly
// once for each Pending, in commit order.
func (p *Pending) Wait() error { panic("not yet") }

// Size is the size of the log with the group.
func (p *Pending) Size() uint64 { panic("not yet") }

// Root is the RFC 6962 root at Size.
func (p *Pending) Root() kt.Hash { panic("not yet") }
