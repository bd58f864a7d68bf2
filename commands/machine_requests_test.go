package commands_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"quicprochat/commands"
	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// request is one call with what the OPAQUE ceremony before it established: the
// engine takes that as given.
type request struct {
	proto.Message
	challenge commands.Challenge
	attempt   commands.LoginAttempt
	// wrong is why the request is refused whatever the server knows; 0 = it is
	// well-formed.
	wrong pb.Reason
	// packages are what an upload is of; spent is what the limiters say of a
	// FetchKeyPackage.
	packages map[string]*modelPackage
	spent    bool
	// signer is whose signature a revocation bears; zero: it bears none.
	signer projections.Key
	// late is why the request is refused once the keys that it names are known.
	late pb.Reason
	// tag is what the tag of a report was made for.
	tag *modelTag
}

// methodOf is the row of a request, of the server's table or the admin socket's.
func methodOf(req proto.Message) *rpc.Method {
	if method, known := rpc.MethodOf(req); known {
		return method
	}
	method, _ := rpc.LocalMethodOf(req)
	return method
}

// tokenOf is the session token of a request.
func tokenOf(req proto.Message) []byte {
	if with, ok := req.(interface{ GetSessionToken() []byte }); ok {
		return with.GetSessionToken()
	}
	return nil
}

// setBytes sets a field by its name.
func setBytes(req proto.Message, field string, value []byte) {
	m := req.ProtoReflect()
	m.Set(m.Descriptor().Fields().ByName(protoreflect.Name(field)), protoreflect.ValueOfBytes(value))
}

// withoutID takes the request_id out of a copy of a request, and the token.
func withoutID(req proto.Message) (id projections.ID, body proto.Message) {
	copy(id[:], req.(interface{ GetRequestId() []byte }).GetRequestId())
	body = proto.Clone(req)
	setBytes(body, "request_id", nil)
	setBytes(body, "session_token", nil)
	return id, body
}

// requestTime is the time in a UUIDv7, Unix milliseconds.
func requestTime(id projections.ID) uint64 { return binary.BigEndian.Uint64(id[:]) >> 16 }

// newID makes the request_id of a moment.
func (m *machine) newID(at time.Time) []byte {
	m.counts["request"]++
	id := seedFrom(fmt.Sprint("request ", m.counts["request"]))
	binary.BigEndian.PutUint64(id[:], uint64(at.UnixMilli())<<16|0x7000)
	id[8] = 0x80 | id[8]&0x3f
	return id[:16:16]
}

// fault spoils a request and says how it must be refused.
type fault[R proto.Message] struct {
	reason pb.Reason
	spoil  func(R)
}

// spoil draws whether a request is broken, and how.
func spoil[R proto.Message](t *rapid.T, r *request, faults []fault[R]) *request {
	if rapid.IntRange(0, 7).Draw(t, "spoil") > 0 {
		return r
	}
	drawn := rapid.IntRange(0, len(faults)-1).Draw(t, "fault")
	faults[drawn].spoil(r.Message.(R))
	r.wrong = faults[drawn].reason
	return r
}

// withID gives a request its request_id, rarely one that must be refused.
func (m *machine) withID(t *rapid.T, r *request) *request {
	now := time.Now()
	setBytes(r.Message, "request_id", m.newID(now))
	if r.wrong != 0 {
		return r
	}
	switch rapid.IntRange(0, 24).Draw(t, "request id") {
	case 24:
		r.wrong = pb.Reason_MISSING_FIELD
		setBytes(r.Message, "request_id", nil)
	case 23:
		r.wrong = pb.Reason_REQUEST_ID_INVALID
		setBytes(r.Message, "request_id", []byte("0123456789abcdef"))
	case 22:
		hours := rapid.SampledFrom([]int{-25, -23, 23, 25}).Draw(t, "hours")
		setBytes(r.Message, "request_id", m.newID(now.Add(time.Duration(hours)*time.Hour)))
	}
	return r
}

var people = []string{"alice", "bob", "carol"}

func (m *machine) drawName(t *rapid.T, label string) string {
	return rapid.SampledFrom(people).Draw(t, label)
}

// mostly is a name, or rarely any of them.
func (m *machine) mostly(t *rapid.T, name, label string) string {
	if rapid.IntRange(0, 5).Draw(t, "other "+label) > 0 {
		return name
	}
	return m.drawName(t, label)
}

var registerFaults = []fault[*pb.OpaqueRegisterFinishRequest]{
	{pb.Reason_SIGNATURE_INVALID, func(r *pb.OpaqueRegisterFinishRequest) { r.Signature[0] ^= 1 }},
	{pb.Reason_SIGNATURE_INVALID, func(r *pb.OpaqueRegisterFinishRequest) { r.Device.Signature[0] ^= 1 }},
	{pb.Reason_SIGNATURE_INVALID, func(r *pb.OpaqueRegisterFinishRequest) { r.Keyset.TimeMs++ }},
	{pb.Reason_KEYSET_INVALID, func(r *pb.OpaqueRegisterFinishRequest) { r.Keyset.Version = 1 }},
	{pb.Reason_OPAQUE_MALFORMED, func(r *pb.OpaqueRegisterFinishRequest) { r.Upload = r.Upload[1:] }},
	{pb.Reason_CHALLENGE_INVALID, func(r *pb.OpaqueRegisterFinishRequest) { r.Username = "somebody" }},
	{pb.Reason_USERNAME_INVALID, func(r *pb.OpaqueRegisterFinishRequest) { r.Username = "no spaces" }},
	{pb.Reason_MISSING_FIELD, func(r *pb.OpaqueRegisterFinishRequest) { r.Device = nil }},
	{pb.Reason_MISSING_FIELD, func(r *pb.OpaqueRegisterFinishRequest) { r.Keyset = nil }},
	{pb.Reason_NOT_SUPPORTED, func(r *pb.OpaqueRegisterFinishRequest) { r.RecoveryBundle = []byte("sealed") }},
}

func (m *machine) drawRegistration(t *rapid.T) *request {
	name := m.drawName(t, "name")
	identity := m.mostly(t, name, "identity")
	device := m.mostly(t, name, "device") + "/1"
	req, challenge := m.registrationRequest(name, identity, device)
	return spoil(t, &request{Message: req, challenge: challenge}, registerFaults)
}

// drawLogin logs in with the key of some device or identity, rarely with a KE2
// made from an older password, rarely with a wrong signature.
func (m *machine) drawLogin(t *rapid.T) *request {
	name := m.drawName(t, "name")
	key := m.drawDevice(t, m.mostly(t, name, "key"))
	if rapid.IntRange(0, 3).Draw(t, "by the identity") == 0 {
		key = m.identity(name)
	}
	attempt := commands.LoginAttempt{Username: name, LoginID: [16]byte{7}, TranscriptHash: seedFrom("transcript")}
	if a := m.model.accounts[name]; a != nil {
		attempt.Account = a.id
		attempt.RecordVersion = a.record
		if a.record > 0 && rapid.IntRange(0, 3).Draw(t, "old password") == 0 {
			attempt.RecordVersion--
		}
	}
	return spoil(t, m.loginRequest(attempt, key), []fault[*pb.OpaqueLoginFinishRequest]{
		{pb.Reason_LOGIN_FAILED, func(r *pb.OpaqueLoginFinishRequest) { r.Signature[0] ^= 1 }},
	})
}

func (m *machine) loginRequest(attempt commands.LoginAttempt, key string) *request {
	req := &pb.OpaqueLoginFinishRequest{Username: attempt.Username, LoginId: attempt.LoginID[:], IdentityKey: m.public(key)}
	req.Signature = statement.Login{
		ServerName: serverName, Username: attempt.Username, LoginID: attempt.LoginID[:],
		TranscriptHash: attempt.TranscriptHash, Key: req.GetIdentityKey(),
	}.Sign(m.key(key))
	return &request{Message: req, attempt: attempt}
}

func (m *machine) drawPassword(t *rapid.T) *request {
	session := m.drawSession(t)
	if len(session) == 0 {
		return nil // without a token it would be a registration
	}
	name := m.mostly(t, m.personOf(session), "name")
	m.counts["password"]++
	label := fmt.Sprint("password ", m.counts["password"])
	challenge := commands.Challenge{Username: name, CredentialID: seedFrom(label), KeyVersion: 1}
	req := &pb.OpaqueRegisterFinishRequest{
		SessionToken: session, Username: name, Upload: recordOf(label), IdentityKey: m.public(m.identity(name)), Challenge: []byte("c"),
	}
	m.signRegister(req, name, m.key(m.deviceOf(session)))
	return spoil(t, &request{Message: req, challenge: challenge}, []fault[*pb.OpaqueRegisterFinishRequest]{
		{pb.Reason_SIGNATURE_INVALID, func(r *pb.OpaqueRegisterFinishRequest) { r.Signature[0] ^= 1 }},
		{pb.Reason_INVALID_FIELD, func(r *pb.OpaqueRegisterFinishRequest) { r.Keyset = &pb.KeySet{} }},
		{pb.Reason_MISSING_FIELD, func(r *pb.OpaqueRegisterFinishRequest) { r.IdentityKey = nil }},
		{pb.Reason_NOT_SUPPORTED, func(r *pb.OpaqueRegisterFinishRequest) { r.RecoveryBundle = []byte("sealed") }},
	})
}

// drawKeySet is the successor of somebody's newest KeySet, or of an older one.
func (m *machine) drawKeySet(t *rapid.T) *request {
	session := m.drawSession(t)
	name := m.mostly(t, m.personOf(session), "name")
	next := m.nextKeySet(t, name, m.active(name))
	next.KemId, next.HybridKey = statement.KEMXWing, m.hybridKey(m.drawName(t, "hybrid key"))
	m.twist(t, next)
	statement.SignKeySet(serverName, next, m.key(m.identity(name)))
	r := &request{Message: &pb.UploadHybridKeyRequest{SessionToken: session, Keyset: next}}
	return m.withID(t, spoil(t, r, []fault[*pb.UploadHybridKeyRequest]{
		{pb.Reason_SIGNATURE_INVALID, func(r *pb.UploadHybridKeyRequest) { r.Keyset.TimeMs++ }},
		{pb.Reason_KEYSET_INVALID, func(r *pb.UploadHybridKeyRequest) { r.Keyset.HybridKey = r.Keyset.HybridKey[1:] }},
		{pb.Reason_MISSING_FIELD, func(r *pb.UploadHybridKeyRequest) { r.Keyset = nil }},
	}))
}

var enqueueFaults = []fault[*pb.EnqueueRequest]{
	{pb.Reason_MISSING_FIELD, func(r *pb.EnqueueRequest) { r.Payload = nil }},
	{pb.Reason_MISSING_FIELD, func(r *pb.EnqueueRequest) { r.Recipient = nil }},
	{pb.Reason_PAYLOAD_TOO_LARGE, func(r *pb.EnqueueRequest) { r.Payload = []byte(huge + "x") }},
	{pb.Reason_INVALID_FIELD, func(r *pb.EnqueueRequest) { r.TtlS = 31 * 24 * 3600 }},
	{pb.Reason_INVALID_FIELD, func(r *pb.EnqueueRequest) { r.Class = 99 }},
	{pb.Reason_MISSING_FIELD, func(r *pb.EnqueueRequest) {
		r.Class, r.Payload, r.TtlS, r.ChannelId = pb.MessageClass_EPHEMERAL, []byte("x"), 0, nil
	}},
	{pb.Reason_INVALID_FIELD, func(r *pb.EnqueueRequest) { r.ChannelId = make([]byte, 15) }},
	{pb.Reason_KEY_INVALID, func(r *pb.EnqueueRequest) {
		r.Recipient = &pb.EnqueueRequest_RecipientKey{RecipientKey: make([]byte, 31)}
	}},
}

// huge is the longest payload: seven of them are more than one sender may have
// in one queue.
var huge = strings.Repeat("x", 1<<20)

var lifetimes = rapid.SampledFrom([]uint32{0, 0, 0, 5, 40, 100, 3600, 3 * 24 * 3600})

func (m *machine) drawPayload(t *rapid.T) []byte {
	m.counts["payload"]++
	if m.quotas && rapid.IntRange(0, 2).Draw(t, "huge") == 0 {
		return []byte(huge)
	}
	return fmt.Appendf(nil, "payload %d", m.counts["payload"])
}

// drawRecipient names a person by identity key or by device key, rarely nobody.
func (m *machine) drawRecipient(t *rapid.T) (key []byte, isDevice bool) {
	names := []string{"bob", "alice", "carol", "nobody"}
	if m.quotas { // one queue gets full sooner than three
		names = []string{"bob", "bob", "bob", "bob", "bob", "alice"}
	}
	name := rapid.SampledFrom(names).Draw(t, "recipient")
	if isDevice = rapid.Bool().Draw(t, "device"); isDevice {
		return m.public(m.drawDevice(t, name)), true
	}
	if rapid.IntRange(0, 9).Draw(t, "first identity") == 0 {
		return m.public(name), false
	}
	return m.public(m.identity(name)), false
}

func (m *machine) drawEnqueue(t *rapid.T) *request {
	req := &pb.EnqueueRequest{SessionToken: m.drawSession(t), Payload: m.drawPayload(t), TtlS: lifetimes.Draw(t, "ttl")}
	if key, isDevice := m.drawRecipient(t); isDevice {
		req.Recipient = &pb.EnqueueRequest_RecipientDevice{RecipientDevice: key}
	} else {
		req.Recipient = &pb.EnqueueRequest_RecipientKey{RecipientKey: key}
	}
	if rapid.IntRange(0, 4).Draw(t, "within a channel") == 0 {
		req.ChannelId = m.drawChannel(t, req.GetSessionToken())
	}
	return m.withID(t, spoil(t, &request{Message: req}, enqueueFaults))
}

func (m *machine) drawBatch(t *rapid.T) *request {
	req := &pb.BatchEnqueueRequest{SessionToken: m.drawSession(t), Atomic: rapid.Bool().Draw(t, "atomic")}
	ofHuge := m.quotas && rapid.IntRange(0, 1).Draw(t, "all huge") == 0
	for range rapid.IntRange(1, 4).Draw(t, "items") {
		it := &pb.BatchEnqueueRequest_Item{Payload: fmt.Appendf(nil, "item %d", m.counts["payload"]), TtlS: lifetimes.Draw(t, "ttl")}
		m.counts["payload"]++
		if ofHuge {
			it.Payload = []byte(huge)
		}
		if key, isDevice := m.drawRecipient(t); isDevice {
			it.Recipient = &pb.BatchEnqueueRequest_Item_RecipientDevice{RecipientDevice: key}
		} else {
			it.Recipient = &pb.BatchEnqueueRequest_Item_RecipientKey{RecipientKey: key}
		}
		if rapid.IntRange(0, 19).Draw(t, "empty") == 0 {
			it.Payload = nil
		}
		req.Items = append(req.Items, it)
	}
	r := &request{Message: req}
	for _, it := range req.GetItems() {
		if req.GetAtomic() && len(it.GetPayload()) == 0 {
			r.wrong = pb.Reason_MISSING_FIELD
		}
	}
	return m.withID(t, r)
}

// drawRead is a Fetch or a FetchWait, draining or with after_seq.
func (m *machine) drawRead(t *rapid.T) *request {
	session := m.drawSession(t)
	var after *uint64
	if rapid.Bool().Draw(t, "after_seq") {
		after = proto.Uint64(m.drawPosition(t, session))
	}
	limit := rapid.Uint32Range(0, 6).Draw(t, "max_items")
	if rapid.Bool().Draw(t, "wait") {
		return &request{Message: &pb.FetchWaitRequest{SessionToken: session, AfterSeq: after, MaxItems: limit}}
	}
	return &request{Message: &pb.FetchRequest{SessionToken: session, AfterSeq: after, MaxItems: limit}}
}

func (m *machine) drawPeek(t *rapid.T) *request {
	session := m.drawSession(t)
	return &request{Message: &pb.PeekRequest{
		SessionToken: session, FromSeq: m.drawPosition(t, session), MaxItems: rapid.Uint32Range(0, 6).Draw(t, "max_items"),
		IncludeDrained: rapid.Bool().Draw(t, "include_drained"),
	}}
}

func (m *machine) drawAck(t *rapid.T) *request {
	session := m.drawSession(t)
	req := &pb.AckRequest{SessionToken: session}
	for range rapid.IntRange(0, 3).Draw(t, "seqs") {
		req.Seqs = append(req.Seqs, max(1, m.drawPosition(t, session)))
	}
	if len(req.GetSeqs()) == 0 || rapid.Bool().Draw(t, "prefix") {
		req.UpTo = max(1, m.drawPosition(t, session))
	}
	switch rapid.IntRange(0, 15).Draw(t, "spoil") {
	case 14:
		req.Seqs, req.UpTo = nil, 0
	case 15:
		req.Seqs = append(req.Seqs, 0)
	}
	return m.withID(t, &request{Message: req})
}

// drawPosition is a place in the queue of a session, or the one after its end.
func (m *machine) drawPosition(t *rapid.T, token []byte) uint64 {
	tail := uint64(0)
	for _, s := range m.model.sessions {
		if q := m.model.queues[s.device]; q != nil && string(s.token) == string(token) {
			tail = q.tail()
		}
	}
	return rapid.Uint64Range(0, tail+1).Draw(t, "position")
}

func (m *machine) drawLookup(t *rapid.T) *request {
	session, name := m.drawSession(t), rapid.SampledFrom(append([]string{"nobody"}, people...)).Draw(t, "name")
	if rapid.Bool().Draw(t, "resolve") {
		return &request{Message: &pb.ResolveUserRequest{SessionToken: session, Username: name}}
	}
	return &request{Message: &pb.FetchHybridKeyRequest{SessionToken: session, IdentityKey: m.public(m.identity(name))}}
}

// deliver sends a request the way the server does. What OPAQUE does around it is
// taken as done.
func (m *machine) deliver(r *request) (proto.Message, error) {
	method := methodOf(r.Message)
	ctx := m.t.Context()
	m.setSpent(r)
	switch req := r.Message.(type) {
	case *pb.OpaqueLoginFinishRequest:
		login, err := commands.PrepareLogin(serverName, r.attempt, req)
		if err != nil {
			return nil, err
		}
		command, err := commands.NewStartSession(method.Rule, req, login)
		m.check(err)
		return m.engine.Do(ctx, command)
	case *pb.OpaqueRegisterFinishRequest:
		if len(req.GetSessionToken()) == 0 {
			registration, err := commands.PrepareRegistration(serverName, m.vrf, r.challenge, req)
			if err != nil {
				return nil, err
			}
			command, err := commands.NewRegister(method.Rule, req, registration)
			m.check(err)
			return m.engine.Do(ctx, command)
		}
		view, err := m.engine.Query(commands.TokenHash(req), pb.Auth_FRESH)
		if err != nil {
			return nil, err
		}
		defer view.Release()
		change, err := commands.PreparePasswordChange(serverName, r.challenge, view.Caller.DeviceKey, req)
		if err != nil {
			return nil, err
		}
		command, err := commands.NewChangePassword(method.Rule, req, change)
		m.check(err)
		return m.engine.Do(ctx, command)
	}
	return m.dispatch(method, r.Message)
}
