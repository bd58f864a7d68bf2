package projections

import "encoding/binary"

// The keyspace of the views: one byte says which view a row belongs to, the
// rest is the row's key within it. Integers are big-endian, so byte order is
// numeric order. The numbers are part of viewsFormat and are never reused.
const (
	prefixMeta     = 0x01 // → format u32 ‖ cursor u64 ‖ last event time u64
	prefixConfig   = 0x02 // → CONFIG body
	prefixSnapshot = 0x03 // → size u64 ‖ digest[32]
	prefixConfigAt = 0x04 // index u64 → CONFIG body

	prefixAccount     = 0x10 // account[16] → Account
	prefixAccountName = 0x11 // canonical username → account[16]
	prefixKeyOwner    = 0x12 // key[32] → account[16] ‖ flags u8
	prefixOpaque      = 0x13 // account[16] → OPAQUE record
	prefixDevice      = 0x14 // device[32] → account[16] ‖ added ms u64
	prefixRole        = 0x15 // account[16] → role u8 (above user only)

	prefixKTLabel   = 0x20 // label[32] → commitment[32] ‖ index u64
	prefixKTEntry   = 0x21 // label[32] → opening[16] ‖ event
	prefixKTVersion = 0x22 // kind u8 ‖ u16 len ‖ id ‖ version u32 → label[32]
	prefixKTNewest  = 0x23 // kind u8 ‖ u16 len ‖ id → version u32 ‖ label[32] ‖ next label[32]
	prefixKTOrder   = 0x24 // number u64 → label[32]

	prefixMapPage      = 0x25 // depth u8 ‖ prefix[(depth+1)/2] → page
	prefixTransparency = 0x26 // → KT leaves u64 ‖ heads u64 ‖ newest head u64 ‖ newest CONFIG u64
	prefixHead         = 0x27 // epoch u64 → index u64
	prefixHeadNode     = 0x28 // level u8 ‖ number u64 → hash[32]
	prefixRevocation   = 0x29 // key[32] → label[32] ‖ VRF proof[80]
	prefixReset        = 0x2a // account[16] → token hash[32] ‖ expires ms u64 ‖ way u8
	prefixKeyChanges   = 0x2b // account[16] → day u32 ‖ count u32

	prefixSession        = 0x30 // token hash[32] → Session
	prefixAccountSession = 0x31 // account[16] ‖ token hash[32] → ∅
	prefixSessionExpiry  = 0x32 // expires ms u64 ‖ token hash[32] → ∅
	prefixSessionIdle    = 0x33 // last day u32 ‖ token hash[32] → ∅

	prefixQueue       = 0x40 // device[32] → QueueState
	prefixQueueItem   = 0x41 // device[32] ‖ seq u64 → QueueItem
	prefixShare       = 0x42 // device[32] ‖ sender[16] → count u64 ‖ bytes u64
	prefixPayload     = 0x43 // owner[16] ‖ message[16] → references u32 (shared payloads only)
	prefixQueueExpiry = 0x44 // minute u32 ‖ device[32] → ∅
	prefixDrain       = 0x45 // device[32] ‖ hour u32 → up to seq u64
	prefixDrainDue    = 0x46 // hour u32 ‖ device[32] → ∅

	prefixReceipt = 0x50 // request id[16] ‖ caller[32] ‖ method u32 → Receipt

	prefixKeyPackageStock  = 0x60 // device[32] → KeyPackageStocks
	prefixKeyPackage       = 0x61 // device[32] ‖ suite u16 ‖ number u64 → KeyPackage
	prefixKeyPackageKnown  = 0x62 // device[32] ‖ SHA-256[32] → fate u8 ‖ suite u16 ‖ number u64
	prefixKeyPackageExpiry = 0x63 // hour u32 ‖ device[32] ‖ SHA-256[32] → expires ms u64
	prefixKeyPackageKept   = 0x64 // hour u32 ‖ account[16] ‖ package[16] → until ms u64

	prefixChannel        = 0x68 // channel[16] → Channel
	prefixChannelText    = 0x69 // channel[16] → bytes name ‖ bytes description
	prefixChannelMember  = 0x6a // channel[16] ‖ account[16] → ChannelMember
	prefixAccountChannel = 0x6b // account[16] ‖ channel[16] → ∅
)

// Moderation.
const (
	prefixBan         = 0x70 // account[16] → Ban
	prefixBanEnd      = 0x71 // until ms u64 ‖ account[16] → ∅
	prefixReport      = 0x72 // number u64 → Report
	prefixReportID    = 0x73 // report[16] → number u64
	prefixReportCount = 0x74 // → number of the last report u64

	prefixChannelBan    = 0x75 // channel[16] ‖ account[16] → Ban
	prefixChannelBanEnd = 0x76 // until ms u64 ‖ channel[16] ‖ account[16] → ∅
	prefixReportAge     = 0x77 // resolved u8 ‖ touched ms u64 ‖ number u64 → report[16]
)

// pointCached tells which rows the writer keeps in memory between batches: those
// that are read and written by key only, and by most commands.
func pointCached(prefix byte) bool {
	switch prefix {
	case prefixMeta, prefixAccount, prefixKeyOwner, prefixDevice, prefixSession, prefixQueue, prefixShare,
		prefixMapPage, prefixTransparency, prefixChannel, prefixKeyPackageStock, prefixBan:
		return true
	}
	return false
}

// memorable tells which rows a snapshot that is asked often keeps: those that say
// who calls, and whom they name.
func memorable(prefix byte) bool {
	switch prefix {
	case prefixSession, prefixDevice, prefixAccount, prefixAccountName, prefixKeyOwner, prefixRole, prefixBan:
		return true
	}
	return false
}

// maxKeySize is enough for every key but those that hold a username or KT id.
const maxKeySize = 1 + 16 + 32 + 4

func keyOf(dst []byte, prefix byte) []byte { return append(dst, prefix) }

func keyOfID(dst []byte, prefix byte, id ID) []byte {
	return append(append(dst, prefix), id[:]...)
}

func keyOf32(dst []byte, prefix byte, key [32]byte) []byte {
	return append(append(dst, prefix), key[:]...)
}

func nameKey(dst []byte, canonical string) []byte {
	return append(append(dst, prefixAccountName), canonical...)
}

func accountSessionKey(dst []byte, account ID, token Hash) []byte {
	return append(keyOfID(dst, prefixAccountSession, account), token[:]...)
}

func sessionExpiryKey(dst []byte, expiresMS uint64, token Hash) []byte {
	return append(keyOfU64(dst, prefixSessionExpiry, expiresMS), token[:]...)
}

func sessionIdleKey(dst []byte, day uint32, token Hash) []byte {
	return append(keyOfU32(dst, prefixSessionIdle, day), token[:]...)
}

func itemKey(dst []byte, device Key, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(keyOf32(dst, prefixQueueItem, device), seq)
}

func shareKey(dst []byte, device Key, sender ID) []byte {
	return append(keyOf32(dst, prefixShare, device), sender[:]...)
}

func payloadKey(dst []byte, ref PayloadRef) []byte {
	return append(keyOfID(dst, prefixPayload, ref.Owner), ref.ID[:]...)
}

func queueExpiryKey(dst []byte, minute uint32, device Key) []byte {
	return append(keyOfU32(dst, prefixQueueExpiry, minute), device[:]...)
}

func drainKey(dst []byte, device Key, hour uint32) []byte {
	return binary.BigEndian.AppendUint32(keyOf32(dst, prefixDrain, device), hour)
}

func drainDueKey(dst []byte, hour uint32, device Key) []byte {
	return append(keyOfU32(dst, prefixDrainDue, hour), device[:]...)
}

func channelBanKey(dst []byte, channel, account ID) []byte {
	return append(keyOfID(dst, prefixChannelBan, channel), account[:]...)
}

func channelBanEndKey(dst []byte, untilMS uint64, channel, account ID) []byte {
	return append(append(keyOfU64(dst, prefixChannelBanEnd, untilMS), channel[:]...), account[:]...)
}

func reportAgeKey(dst []byte, resolved bool, touchedMS, number uint64) []byte {
	dst = append(dst, prefixReportAge, boolByte(resolved))
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, touchedMS), number)
}

func banEndKey(dst []byte, untilMS uint64, account ID) []byte {
	return append(keyOfU64(dst, prefixBanEnd, untilMS), account[:]...)
}

func memberKey(dst []byte, channel, account ID) []byte {
	return append(keyOfID(dst, prefixChannelMember, channel), account[:]...)
}

func accountChannelKey(dst []byte, account, channel ID) []byte {
	return append(keyOfID(dst, prefixAccountChannel, account), channel[:]...)
}

// receiptKey orders receipts by time: a UUIDv7 begins with its Unix
// milliseconds in 48 bits (RFC 9562, section 5.7).
func receiptKey(dst []byte, caller Key, method uint32, requestID ID) []byte {
	dst = append(keyOfID(dst, prefixReceipt, requestID), caller[:]...)
	return binary.BigEndian.AppendUint32(dst, method)
}

// receiptBound is the first key of receipts whose time is at least ms.
func receiptBound(dst []byte, ms uint64) []byte {
	const max48 = 1<<48 - 1
	ms = min(ms, max48)
	return append(append(dst, prefixReceipt), byte(ms>>40), byte(ms>>32), byte(ms>>24), byte(ms>>16), byte(ms>>8), byte(ms))
}

func keyPackageKey(dst []byte, device Key, suite uint16, number uint64) []byte {
	dst = binary.BigEndian.AppendUint16(keyOf32(dst, prefixKeyPackage, device), suite)
	return binary.BigEndian.AppendUint64(dst, number)
}

func knownPackageKey(dst []byte, device Key, hash Hash) []byte {
	return append(keyOf32(dst, prefixKeyPackageKnown, device), hash[:]...)
}

func keyPackageExpiryKey(dst []byte, hour uint32, device Key, hash Hash) []byte {
	return append(append(keyOfU32(dst, prefixKeyPackageExpiry, hour), device[:]...), hash[:]...)
}

func keptPackageKey(dst []byte, hour uint32, account, id ID) []byte {
	return append(append(keyOfU32(dst, prefixKeyPackageKept, hour), account[:]...), id[:]...)
}

// ktKey is the key of an identifier; its version, where wanted, follows.
func ktKey(dst []byte, prefix, kind byte, id []byte) []byte {
	dst = append(dst, prefix, kind)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(id)))
	return append(dst, id...)
}

func ktVersionKey(dst []byte, kind byte, id []byte, version uint32) []byte {
	return binary.BigEndian.AppendUint32(ktKey(dst, prefixKTVersion, kind, id), version)
}

func keyOfU64(dst []byte, prefix byte, v uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, prefix), v)
}

func keyOfU32(dst []byte, prefix byte, v uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, prefix), v)
}

// keyRangeEnd is the first key after all keys that begin with start.
func keyRangeEnd(start []byte) []byte {
	end := append([]byte(nil), start...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
