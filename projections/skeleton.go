package projections

import (
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	pb "quicprochat/proto/qpcv1"
)

// ID names an account or a message: 16 random bytes.
type ID = [16]byte

// Key is an Ed25519 public key: an identity's, a device's.
type Key = [32]byte

// Hash is a SHA-256 digest: of a session token, of a request, of the views.
type Hash = [32]byte

// Label is a key-transparency label (kt.Label).
type Label = [32]byte

// Opening opens a leaf's commitment (kt.Opening).
type Opening = [16]byte

// Entry is one record of the log with its event decoded.
type Entry struct {
	// Index is the record's position in the log.
	Index uint64
	// Leaf is the record's public leaf.
	Leaf []byte
	// Opening opens the leaf's commitment.
	Opening Opening
	// Raw is the event exactly as stored.
	Raw []byte
	// Event is Raw, decoded.
	Event *pb.Event
}

// Verify checks that the leaf is the one that commits to Raw.
func (e *Entry) Verify() error { panic("skeleton") }

// DecodeEvent decodes an event and refuses unknown types and unknown fields.
func DecodeEvent(raw []byte) (*pb.Event, error) { panic("skeleton") }

// Options configure the views.
type Options struct {
	// LogSize is the number of records that the recovered log holds, all of
	// them synced. Views with a larger cursor are ahead (RebuildError).
	LogSize uint64
	// Logger gets what happens in the background; nil discards it.
	Logger *slog.Logger
	// CacheBytes bounds Pebble's block cache; 0 means 32 MiB.
	CacheBytes int64
	// OnError is called at most once, with the first error of the store's
	// background work. The views can't be used for writing from then on.
	OnError func(error)
}

// RebuildReason tells why views must be built anew.
type RebuildReason uint8

// The reasons of a RebuildError.
const (
	// Missing: there is no views directory.
	Missing RebuildReason = iota + 1
	// Damaged: the store does not open, a block's checksum failed, or the
	// content has another format.
	Damaged
	// Ahead: the cursor lies beyond the log.
	Ahead
)

// RebuildError says that the views can't be used as they are: they are a
// cache of the log, so the remedy is DropAndRecreate.
type RebuildError struct {
	Reason RebuildReason
	Cursor uint64
	Err    error
}

func (e *RebuildError) Error() string { panic("skeleton") }

// Unwrap gives the cause.
func (e *RebuildError) Unwrap() error { return e.Err }

// Views is the store of everything folded from the log.
type Views struct{ db *pebble.DB }

// Open opens <dir>/views. It returns a *RebuildError when they are missing,
// damaged or ahead of the log.
func Open(fs vfs.FS, dir string, o Options) (*Views, error) { panic("skeleton") }

// DropAndRecreate removes <dir>/views and starts them again from the newest
// good snapshot under <dir>/snapshots that the log covers, else empty.
func DropAndRecreate(fs vfs.FS, dir string, o Options) (*Views, error) { panic("skeleton") }

// OpenOrRecreate is Open, and DropAndRecreate when that returns a
// *RebuildError; why is told through the second result (nil when opened).
func OpenOrRecreate(fs vfs.FS, dir string, o Options) (*Views, *RebuildError, error) {
	panic("skeleton")
}

// Cursor is the number of events applied and committed.
func (v *Views) Cursor() uint64 { panic("skeleton") }

// MarkSynced tells that the log is durable up to size records. The sync of a
// views file waits until the mark has reached what the file may hold.
func (v *Views) MarkSynced(size uint64) { panic("skeleton") }

// Fail tells that the log will never be durable beyond the mark: everything
// that waits for it, now or later, gets err at once.
func (v *Views) Fail(err error) { panic("skeleton") }

// NewBatch starts the batch of one group. There is at most one at a time, of
// one goroutine.
func (v *Views) NewBatch() *Batch { panic("skeleton") }

// Snapshot freezes the views as of the last Commit, for any number of
// concurrent readers, until Close.
func (v *Views) Snapshot() *Snapshot { panic("skeleton") }

// Flush starts writing what is in memory to disk and returns at once; the
// channel is closed when it is durable.
func (v *Views) Flush() (<-chan struct{}, error) { panic("skeleton") }

// Unflushed is the number of events applied since the last Flush began.
func (v *Views) Unflushed() uint64 { panic("skeleton") }

// WriteSnapshot writes the views as of the last Commit to
// <dir>/snapshots/<size>, durable on return.
func (v *Views) WriteSnapshot(fs vfs.FS, dir string) (size uint64, digest Hash, err error) {
	panic("skeleton")
}

// Close ends the views; what can be made durable without waiting is flushed.
func (v *Views) Close() error { panic("skeleton") }

// Reader reads the views: a *Batch sees its own writes, a *Snapshot is frozen.
type Reader interface {
	get(key []byte) (value []byte, found bool, err error)
	iter(lower, upper []byte) (*pebble.Iterator, error)
}

// Batch collects what the events of one group change.
type Batch struct{}

func (b *Batch) get(key []byte) ([]byte, bool, error)               { panic("skeleton") }
func (b *Batch) iter(lower, upper []byte) (*pebble.Iterator, error) { panic("skeleton") }

// Cursor is the index that the next event must have.
func (b *Batch) Cursor() uint64 { panic("skeleton") }

// Released tells which payloads lost their last reference since the last call.
func (b *Batch) Released() []PayloadRef { panic("skeleton") }

// Commit makes the batch part of the views; the Batch can't be used any more.
func (b *Batch) Commit() error { panic("skeleton") }

// Close drops the batch; after Commit it does nothing.
func (b *Batch) Close() error { panic("skeleton") }

// Snapshot is the views frozen at one size.
type Snapshot struct{}

func (s *Snapshot) get(key []byte) ([]byte, bool, error)               { panic("skeleton") }
func (s *Snapshot) iter(lower, upper []byte) (*pebble.Iterator, error) { panic("skeleton") }

// Size is the number of events that the snapshot has seen.
func (s *Snapshot) Size() uint64 { panic("skeleton") }

// Close frees the snapshot.
func (s *Snapshot) Close() error { panic("skeleton") }

// Apply folds one event into the batch.
func Apply(b *Batch, e *Entry) error { panic("skeleton") }

// ApplyError says which event could not be applied, and why.
type ApplyError struct {
	Index uint64
	Err   error
}

func (e *ApplyError) Error() string { panic("skeleton") }

// Unwrap gives the cause.
func (e *ApplyError) Unwrap() error { return e.Err }

// LastEventTime is the time of the last event applied, Unix milliseconds.
func LastEventTime(r Reader) (uint64, error) { panic("skeleton") }

// ServerConfig is the CONFIG leaf's body.
func ServerConfig(r Reader) (config []byte, found bool, err error) { panic("skeleton") }

// Account is what is known of one account.
type Account struct {
	ID               ID
	Username         string
	IdentityKey      Key
	RegistrationHash Hash
	RegisteredMS     uint64
	// Devices are the active devices, oldest first.
	Devices []Key
}

// AccountByName finds an account by its canonical username.
func AccountByName(r Reader, canonical string) (Account, bool, error) { panic("skeleton") }

// AccountByID finds an account by its id.
func AccountByID(r Reader, id ID) (Account, bool, error) { panic("skeleton") }

// AccountByKey finds the account whose identity key this is.
func AccountByKey(r Reader, identityKey Key) (Account, bool, error) { panic("skeleton") }

// Owner tells whose a key is and what for. A key may be both.
type Owner struct {
	AccountID  ID
	IsIdentity bool
	IsDevice   bool
}

// KeyOwner finds the account that an identity or device key belongs to.
func KeyOwner(r Reader, key Key) (Owner, bool, error) { panic("skeleton") }

// OpaqueRecord is what an account's password left (version rises per change).
func OpaqueRecord(r Reader, account ID) (*pb.OpaqueRecord, bool, error) { panic("skeleton") }

// Device is one device of an account.
type Device struct {
	Key       Key
	AccountID ID
	AddedMS   uint64
	Active    bool
}

// DeviceByKey finds a device.
func DeviceByKey(r Reader, key Key) (Device, bool, error) { panic("skeleton") }

// DeviceActive tells whether the key is that of an active device.
func DeviceActive(r Reader, key Key) (bool, error) { panic("skeleton") }

// KeySet is the newest KeySet of an identity.
func KeySet(r Reader, identityKey Key) (*pb.KeySet, bool, error) { panic("skeleton") }

// KTRef is what the transparency map knows of one label.
type KTRef struct {
	Label      Label
	Commitment Hash
	Index      uint64
}

// KTVersion is one version of one identifier, with all that a proof needs.
type KTVersion struct {
	KTRef
	Kind    uint8
	ID      []byte
	Version uint32
	Opening Opening
	// Raw is the event that the commitment is over.
	Raw []byte
	// Event is Raw, decoded: value and VRF proofs.
	Event *pb.Event
}

// KTLabel finds a label of the map: a username is taken when the label of its
// version 0 is found.
func KTLabel(r Reader, label Label) (KTRef, bool, error) { panic("skeleton") }

// KTEntry finds one version of an identifier.
func KTEntry(r Reader, kind uint8, id []byte, version uint32) (KTVersion, bool, error) {
	panic("skeleton")
}

// KTNewest is the newest version's number of an identifier.
func KTNewest(r Reader, kind uint8, id []byte) (version uint32, found bool, err error) {
	panic("skeleton")
}

// Session is one login.
type Session struct {
	TokenHash Hash
	AccountID ID
	// DeviceKey is zero for scope ENROLL_ONLY.
	DeviceKey Key
	Scope     pb.SessionScope
	LoginMS   uint64
	ExpiresMS uint64
	// LastDay is the UTC day of the last use, days since 1970-01-01.
	LastDay uint32
}

// ExpiredAt tells whether the session is over at nowMS: past ExpiresMS, or not
// used on the UTC day of (nowMS - idleMS) or later.
func (s Session) ExpiredAt(nowMS, idleMS uint64) bool { panic("skeleton") }

// SessionByToken finds a session by the SHA-256 of its token.
func SessionByToken(r Reader, tokenHash Hash) (Session, bool, error) { panic("skeleton") }

// SessionsOf lists an account's sessions.
func SessionsOf(r Reader, account ID) ([]Session, error) { panic("skeleton") }

// ExpiredSessions lists up to limit sessions that are over at nowMS.
func ExpiredSessions(r Reader, nowMS, idleMS uint64, limit int) ([]Session, error) {
	panic("skeleton")
}

// QueueState is the summary of one device's queue.
type QueueState struct {
	// Owner is the account of the device.
	Owner ID
	// NextSeq is the number that the next item must have; the first is 1.
	NextSeq uint64
	// Cursor is the highest number that was drained or confirmed.
	Cursor uint64
	// Head is the number of the first item that is there; NextSeq when none is.
	Head uint64
	// Count and Bytes are over all items that are there.
	Count uint64
	Bytes uint64
	// DrainedCount and DrainedBytes are over those of them that were drained.
	DrainedCount uint64
	DrainedBytes uint64
	// GapCount is the number of messages lost since the last told gap.
	GapCount uint64
	// GapUpTo is the queue number that confirms the gap.
	GapUpTo uint64
}

// Tail is the highest number assigned, 0 before the first.
func (q QueueState) Tail() uint64 { return q.NextSeq - 1 }

// Queue finds the queue of an active device.
func Queue(r Reader, device Key) (QueueState, bool, error) { panic("skeleton") }

// QueueItem is one message in one device's queue.
type QueueItem struct {
	Seq       uint64
	MessageID ID
	// Owner is the account that the payload is stored under.
	Owner      ID
	Sender     ID
	Size       uint32
	EnqueuedMS uint64
	ExpiresMS  uint64
	Drained    bool
}

// QueueItems lists items with a number of at least from, in order: at most
// maxItems, at most maxBytes of payload but at least one; more tells whether
// others follow. Items past their time to live are listed until they are
// removed.
func QueueItems(r Reader, device Key, from uint64, maxItems int, maxBytes uint64) (items []QueueItem, more bool, err error) {
	panic("skeleton")
}

// QueueItemAt finds one item.
func QueueItemAt(r Reader, device Key, seq uint64) (QueueItem, bool, error) { panic("skeleton") }

// Share is what one sender has in one device's queue.
type Share struct {
	Count uint64
	Bytes uint64
}

// SenderShare tells what a sender has in a device's queue; zero when nothing.
func SenderShare(r Reader, device Key, sender ID) (Share, error) { panic("skeleton") }

// PayloadRef names a stored payload: (owner account, message id).
type PayloadRef struct{ Owner, ID ID }

// QueueExpiry is the body of a MessagesExpired event to emit.
type QueueExpiry struct {
	Device Key
	// Seqs may be empty: the event then only moves the queue's expiry marker.
	Seqs []uint64
}

// ExpiredMessages lists queues with items past their time to live at nowMS, at
// most limit items in all. Each result is to become one MessagesExpired event,
// also one without Seqs.
func ExpiredMessages(r Reader, nowMS uint64, limit int) ([]QueueExpiry, error) { panic("skeleton") }

// QueueRelease is the body of a DrainedReleased event to emit.
type QueueRelease struct {
	Device Key
	UpTo   uint64
}

// DrainedDue lists queues with items that were drained at least graceMS before
// nowMS (to the hour, never too early).
func DrainedDue(r Reader, nowMS, graceMS uint64, limit int) ([]QueueRelease, error) {
	panic("skeleton")
}

// ReceiptRecord is the outcome kept for one request id.
type ReceiptRecord struct {
	RequestHash Hash
	Outcome     []byte
	// TimeMS is when it was decided.
	TimeMS uint64
}

// Receipt finds what was decided for (caller, method, request id).
func Receipt(r Reader, caller Key, method uint32, requestID ID) (ReceiptRecord, bool, error) {
	panic("skeleton")
}

// ExpiredReceipts tells whether receipts with a request_id time below beforeMS
// exist: a ReceiptsExpired{before_ms} event is due then.
func ExpiredReceipts(r Reader, beforeMS uint64) (bool, error) { panic("skeleton") }

// SnapshotRecord is the last SnapshotTaken event.
type SnapshotRecord struct {
	Size   uint64
	Digest Hash
}

// LastSnapshot is the newest snapshot that the log records.
func LastSnapshot(r Reader) (SnapshotRecord, bool, error) { panic("skeleton") }

// Digest is a hash over all keys and values in order.
func Digest(r Reader) (Hash, error) { panic("skeleton") }
