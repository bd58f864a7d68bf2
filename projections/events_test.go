package projections

import (
	"sync"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// Events of test people. Every id and key follows from the name.

func accountID(name string) ID    { return idOf("account", name) }
func identityKey(name string) Key { return keyOfName("identity", name) }
func deviceKey(name string) Key   { return keyOfName("device", name) }

func opaqueRecord(name string, version uint32) *pb.OpaqueRecord {
	var upload []byte
	for part := range opaqueUploadSize / 32 {
		upload = append(upload, bytesOf("upload", name, version, part)...)
	}
	return &pb.OpaqueRecord{Upload: upload, CredentialId: bytesOf("credential", name, version), KeyVersion: 1, Version: version}
}

func registered(name string) *pb.AccountRegistered {
	id, identity, device := accountID(name), identityKey(name), deviceKey(name)
	return &pb.AccountRegistered{
		AccountId: id[:], Username: name, IdentityKey: identity[:], DeviceKey: device[:],
		Opaque: opaqueRecord(name, 1), RegistrationHash: bytesOf("registration", name),
	}
}

func tokenOf(name string, n int) Hash { return Hash(bytesOf("token", name, n)) }

func sessionStarted(name string, n int, expiresMS uint64) *pb.SessionStarted {
	id, device, token := accountID(name), deviceKey(name), tokenOf(name, n)
	return &pb.SessionStarted{
		TokenHash: token[:], AccountId: id[:], DeviceKey: device[:], Scope: pb.SessionScope_DEVICE, ExpiresMs: expiresMS,
	}
}

func sessionsEnded(tokens ...Hash) *pb.SessionsEnded {
	ev := &pb.SessionsEnded{Cause: pb.SessionsEnded_EXPIRED}
	for _, token := range tokens {
		ev.TokenHashes = append(ev.TokenHashes, token[:])
	}
	return ev
}

func accountEntry(name string, version uint32) *pb.KeyTransparencyEntry {
	identity := identityKey(name)
	return ktEntryOf(kt.KindAccount, []byte(name), version, bindingOf(identity))
}

func identityEntry(name string, version uint32) *pb.KeyTransparencyEntry {
	identity := identityKey(name)
	return ktEntryOf(kt.KindIdentity, identity[:], version, keySetOf(name, version))
}

func keySetOf(name string, version uint32) []byte {
	identity, device := identityKey(name), deviceKey(name)
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(&pb.KeySet{
		IdentityKey: identity[:], Version: version, DeviceKeys: [][]byte{device[:]}, TimeMs: testStart,
		Signature: append(bytesOf("signature", name, version), bytesOf("signature 2", name)...),
	})
	if err != nil {
		panic(err)
	}
	return raw
}

// bindingOf is the value of an account's version 0.
func bindingOf(identity Key) []byte {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(&pb.AccountBinding{IdentityKey: identity[:], Authority: pb.Authority_FIRST})
	if err != nil {
		panic(err)
	}
	return raw
}

func ktEntryOf(kind kt.Kind, id []byte, version uint32, value []byte) *pb.KeyTransparencyEntry {
	return &pb.KeyTransparencyEntry{
		Kind: uint32(kind), Id: id, Version: version, Value: value,
		VrfProof: vrfProofOf(kind, id, version), NextVrfProof: vrfProofOf(kind, id, version+1),
	}
}

// vrfProofs are the proofs made so far, by VRF input: one costs 0.1 ms.
var vrfProofs sync.Map

func vrfProofOf(kind kt.Kind, id []byte, version uint32) []byte {
	input := string(kt.VRFInput(kind, id, version))
	proof, known := vrfProofs.Load(input)
	if !known {
		_, made := testVRF.Label(kind, id, version)
		proof, _ = vrfProofs.LoadOrStore(input, made)
	}
	p := proof.(kt.VRFProof)
	return p[:]
}

func messageID(n int) ID { return idOf("message", n) }

// enqueued is message n from one person to another's devices at given numbers.
func enqueued(n int, from, to string, size uint32, expiresMS uint64, targets ...*pb.MessageEnqueued_Target) *pb.MessageEnqueued {
	id, owner, sender := messageID(n), accountID(to), accountID(from)
	return &pb.MessageEnqueued{
		MessageId: id[:], AccountId: owner[:], SenderId: sender[:], Targets: targets,
		PayloadSize: size, PayloadSha256: bytesOf("payload", n), ExpiresMs: expiresMS,
	}
}

func target(device Key, seq uint64) *pb.MessageEnqueued_Target {
	return &pb.MessageEnqueued_Target{DeviceKey: device[:], Seq: seq}
}

func drained(device Key, upTo uint64) *pb.MessagesDrained {
	return &pb.MessagesDrained{DeviceKey: device[:], UpTo: upTo}
}

func confirmed(device Key, upTo uint64) *pb.MessagesConfirmed {
	return &pb.MessagesConfirmed{DeviceKey: device[:], UpTo: upTo}
}

func acked(device Key, upTo uint64, seqs ...uint64) *pb.MessagesAcked {
	return &pb.MessagesAcked{DeviceKey: device[:], UpTo: upTo, Seqs: seqs}
}

func expired(device Key, seqs ...uint64) *pb.MessagesExpired {
	return &pb.MessagesExpired{DeviceKey: device[:], Seqs: seqs}
}

func released(device Key, upTo uint64) *pb.DrainedReleased {
	return &pb.DrainedReleased{DeviceKey: device[:], UpTo: upTo}
}

// register makes a person with an account, one device and the KT entries.
func (w *world) register(names ...string) {
	w.t.Helper()
	for _, name := range names {
		w.do(accountEntry(name, 0))
		w.do(identityEntry(name, 0))
		w.do(registered(name))
	}
}

// send enqueues message n of 100 bytes for one day, to the one device of a
// person, and returns its queue number.
func (w *world) send(n int, from, to string) uint64 {
	w.t.Helper()
	q := w.queue(to)
	w.do(enqueued(n, from, to, 100, w.now+dayMS, target(deviceKey(to), q.NextSeq)))
	return q.NextSeq
}

func (w *world) queue(name string) QueueState {
	w.t.Helper()
	q, found, err := Queue(w.reader(), deviceKey(name))
	if err != nil || !found {
		w.t.Fatalf("queue of %s: found %v, %v", name, found, err)
	}
	return q
}

// seqs lists the numbers of the items in a person's queue.
func (w *world) seqs(name string, from uint64) []uint64 {
	w.t.Helper()
	items, more, err := QueueItems(w.reader(), deviceKey(name), from, 1<<20, 1<<40)
	if err != nil || more {
		w.t.Fatalf("items of %s: more %v, %v", name, more, err)
	}
	seqs := []uint64{}
	for _, it := range items {
		seqs = append(seqs, it.Seq)
	}
	return seqs
}
