package commands

import "time"

// Sizes of requests and pages. They protect memory and the single writer, and
// hold whether or not quotas are on.
const (
	// MaxPayload is the longest payload of one message in bytes (1 MiB: Welcome
	// messages of post-quantum MLS suites exceed 500 KB). Shortest is 1 byte.
	MaxPayload = 1 << 20
	// MaxBatchItems is the most items of one BatchEnqueue.
	MaxBatchItems = 1_000
	// MaxBatchBytes is the most payload of one BatchEnqueue in bytes (4 MiB).
	MaxBatchBytes = 4 << 20
	// MaxPageItems is the most envelopes in one answer of Fetch, FetchWait and
	// Peek, and what a max_items of 0 stands for.
	MaxPageItems = 256
	// MaxPageBytes is the most payload in one such answer in bytes (1 MiB); a
	// page holds at least one item, so the longest message always fits.
	MaxPageBytes = 1 << 20
	// MaxAckSeqs is the most single positions in one Ack.
	MaxAckSeqs = 1_024
	// MaxHybridKeys is the most identities in one FetchHybridKeys.
	MaxHybridKeys = 256
	// MaxKeyPackages is the most KeyPackages for one use of one device and cipher
	// suite, and the most in one UploadKeyPackage.
	MaxKeyPackages = 100
	// LowKeyPackages is below how many KeyPackages for one use a device is told,
	// as one is taken, to upload more.
	LowKeyPackages = 10
	// MaxDevices is the most active devices of one account (protocol.md, 700).
	MaxDevices = 10
)

// Life times.
const (
	// MaxTTL is the longest time a message waits unread, and what a ttl_s of 0
	// stands for.
	MaxTTL = 30 * 24 * time.Hour
	// ResetTokenLife is how long a reset's token is good.
	ResetTokenLife = 24 * time.Hour
	// MaxFetchWait is the longest wait of a FetchWait; longer wishes are clamped.
	MaxFetchWait = 60 * time.Second
)

// Quotas. They bound what people can make the server store, and are off with
// Tx.Quotas() false (--limits off).
const (
	// MaxQueueItems is the most messages in one device queue.
	MaxQueueItems = 10_000
	// MaxQueueBytes is the most payload in one device queue in bytes (64 MiB).
	MaxQueueBytes = 64 << 20
	// MaxKeyChanges is the most changes of one account's keys (new KeySets,
	// hand-overs to a successor) on one UTC day: the log keeps each for ever.
	MaxKeyChanges = 100
	// MaxSenderItems is the most messages of one sending account in one device
	// queue: a tenth, so that nobody can fill a queue alone.
	MaxSenderItems = MaxQueueItems / 10
	// MaxSenderBytes is the most payload of one sending account in one device
	// queue in bytes: a tenth.
	MaxSenderBytes = MaxQueueBytes / 10
)

// Sizes of keys, ids and OPAQUE messages in bytes. Those of KeySets and hybrid
// keys are in kt/statement.
const (
	// KeySize is an Ed25519 public key (RFC 8032).
	KeySize = 32
	// OpaqueRecordSize is an OPAQUE RegistrationRecord of the fixed profile: a
	// ristretto255 key, a masking key and an envelope (RFC 9807, section 5).
	OpaqueRecordSize = 192
	// CredentialIDSize is the OPRF credential identifier of one registration.
	CredentialIDSize = 32
	// TokenSize is a session token: random, a bearer secret.
	TokenSize = 32
	// ResetTokenSize is the one-time token of a reset: random, a bearer secret.
	ResetTokenSize = 16
	// LoginIDSize is the one-shot id of a login.
	LoginIDSize = 16
	// MessageIDSize is the random id of a message.
	MessageIDSize = 16
)
