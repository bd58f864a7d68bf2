package commands_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"quicprochat/commands"
	"quicprochat/kt"
	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

func bytesValue(b []byte) protoreflect.Value { return protoreflect.ValueOfBytes(b) }

// apply sets the fields of a request: those that are signed, or those that
// tamper.
func (a *arguments) apply(req proto.Message, tampers bool) {
	for _, f := range a.fields {
		if f.tampers == tampers {
			a.w.set(req.ProtoReflect(), f.path, f.value)
		}
	}
}

// set assigns one field; "none" clears it.
func (w *world) set(m protoreflect.Message, path, value string) {
	head, rest, deeper := strings.Cut(path, ".")
	field := m.Descriptor().Fields().ByName(protoreflect.Name(head))
	switch {
	case field == nil:
		w.t.Fatalf("%s has no field %q", m.Descriptor().Name(), head)
	case deeper:
		w.set(m.Mutable(field).Message(), rest, value)
	case value == "none":
		m.Clear(field)
	case field.IsList():
		list := m.NewField(field).List()
		for _, item := range w.items(value) {
			list.Append(w.scalar(field, item))
		}
		m.Set(field, protoreflect.ValueOfList(list))
	default:
		m.Set(field, w.scalar(field, value))
	}
}

// items splits a list at commas; 3*x stands for x,x,x and 1..3 for 1,2,3.
func (w *world) items(text string) []string {
	var items []string
	number := func(text string) int {
		n, err := strconv.Atoi(text)
		w.check(err)
		return n
	}
	for _, item := range strings.Split(text, ",") {
		if times, repeated, found := strings.Cut(item, "*"); found {
			items = append(items, slices.Repeat([]string{repeated}, number(times))...)
		} else if from, to, found := strings.Cut(item, ".."); found {
			for n := number(from); n <= number(to); n++ {
				items = append(items, strconv.Itoa(n))
			}
		} else {
			items = append(items, item)
		}
	}
	return items
}

func (w *world) scalar(field protoreflect.FieldDescriptor, text string) protoreflect.Value {
	number := func(bits int) uint64 {
		n, err := strconv.ParseUint(text, 0, bits)
		w.check(err)
		return n
	}
	switch field.Kind() {
	case protoreflect.BytesKind:
		return bytesValue(w.literal(text))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(strings.Trim(text, `"`))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(text == "true")
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(number(32)))
	case protoreflect.Uint64Kind:
		if after, found := strings.CutPrefix(text, "@"); found { // a time from now
			d, err := time.ParseDuration(after)
			w.check(err)
			return protoreflect.ValueOfUint64(w.now() + uint64(d.Milliseconds()))
		}
		return protoreflect.ValueOfUint64(number(64))
	case protoreflect.EnumKind:
		if value := field.Enum().Values().ByName(protoreflect.Name(text)); value != nil {
			return protoreflect.ValueOfEnum(value.Number())
		}
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(number(31)))
	}
	w.t.Fatalf("field %s: no literals of kind %s", field.Name(), field.Kind())
	return protoreflect.Value{}
}

// literal is a value of bytes: "text", size:N, zero:N, hex:…, hybrid:NAME, kp:DEVICE:NAME… (keyPackage), the
// name of something printed before, or else a person's or device's public key.
func (w *world) literal(text string) []byte {
	kind, rest, _ := strings.Cut(text, ":")
	size := func() int {
		n, err := strconv.Atoi(rest)
		w.check(err)
		return n
	}
	switch {
	case strings.HasPrefix(text, `"`):
		return []byte(strings.Trim(text, `"`))
	case kind == "size":
		return bytes.Repeat([]byte{0xa5}, size())
	case kind == "zero":
		return make([]byte, size())
	case kind == "hex":
		b, err := hex.DecodeString(rest)
		w.check(err)
		return b
	case kind == "kp":
		return w.keyPackage(rest)
	case kind == "hybrid":
		return hybridKeyFrom(rest)
	case kind == "loworder":
		key := hybridKeyFrom(rest)
		clear(key[len(key)-32:])
		return key
	case kind == "modulus":
		key := hybridKeyFrom(rest)
		setCoefficient(key, 5, 3329)
		return key
	}
	for value, name := range w.names {
		if name == text {
			return []byte(value)
		}
	}
	return w.public(text)
}

// nested appends a message to a repeated field, as often as repeat= says.
func (w *world) nested(req proto.Message, words []string) {
	m := req.ProtoReflect()
	list := m.Mutable(m.Descriptor().Fields().ByName(protoreflect.Name(words[0]))).List()
	a := w.arguments(words[1:])
	for range a.number("repeat", 1) {
		item := list.NewElement()
		a.apply(item.Message().Interface(), false)
		list.Append(item)
	}
}

// upload is an OPAQUE record of the right size for a name; nothing here looks
// into it.
func recordOf(name string) []byte {
	seed := seedFrom("record: " + name)
	return bytes.Repeat(seed[:], commands.OpaqueRecordSize/len(seed))
}

func (w *world) challenge(name string, a *arguments) commands.Challenge {
	return commands.Challenge{
		Username:     a.take("sealed", name),
		CredentialID: seedFrom("credential: " + a.take("credential", name)),
		KeyVersion:   1,
	}
}

// register sends an OpaqueRegisterFinish of a person's identity key and first
// device, signed after the fields were set. revoked=NAME makes a key look revoked
// by what stands in the map for that username; keys=NAME takes the keys and the
// password of that one; a reset_token makes it a reset.
func (w *world) register(name string, a *arguments) []string {
	keys := a.take("keys", name)
	identity, device := w.public(keys), w.public(keys+"/1")
	c := w.challenge(name, a)
	revoked := a.take("revoked", "")
	req := &pb.OpaqueRegisterFinishRequest{
		Username: name, Upload: recordOf(keys), IdentityKey: identity, Challenge: []byte("challenge of " + name),
		Device: &pb.DeviceConsent{DeviceKey: device},
		Keyset: &pb.KeySet{IdentityKey: identity, DeviceKeys: [][]byte{device}, TimeMs: w.now()},
	}
	a.apply(req, false)
	w.signRegister(req, c.Username, w.signer(req.GetIdentityKey(), keys))
	if req.GetDevice() != nil {
		consent := statement.Device{ServerName: serverName, IdentityKey: req.GetIdentityKey(), DeviceKey: req.GetDevice().GetDeviceKey()}
		req.Device.Signature = consent.Sign(w.signer(req.GetDevice().GetDeviceKey(), keys+"/1"))
	}
	if req.GetKeyset() != nil {
		statement.SignKeySet(serverName, req.GetKeyset(), w.signer(req.GetKeyset().GetIdentityKey(), keys))
	}
	a.apply(req, true)
	method, _ := rpc.MethodOf(req)
	if len(req.GetResetToken()) > 0 {
		return w.answer(w.prepared(w.t.Context(), func(view *commands.View) (*commands.Command, error) {
			reset, err := commands.PrepareReset(view.Reader, view.Now, serverName, w.vrf, c, req)
			if err != nil {
				return nil, err
			}
			return commands.NewReset(method.Rule, req, reset)
		}))
	}
	registration, err := commands.PrepareRegistration(serverName, w.vrf, c, req)
	if err != nil {
		return w.answer(nil, err)
	}
	if revoked != "" {
		registration.PretendRevoked(commands.PrepareKT(w.vrf, kt.KindAccount, []byte(revoked), 0))
	}
	command, err := commands.NewRegister(method.Rule, req, registration)
	w.check(err)
	return w.answer(w.engine.Do(w.t.Context(), command))
}

func (w *world) signRegister(req *pb.OpaqueRegisterFinishRequest, username string, key []byte) {
	req.Signature = statement.Register{
		ServerName: serverName, Username: username, UploadHash: sha256.Sum256(req.GetUpload()),
		IdentityKey: req.GetIdentityKey(), Challenge: req.GetChallenge(),
	}.Sign(key)
}

// password sends an OpaqueRegisterFinish with a session: a password change.
func (w *world) password(session string, a *arguments) []string {
	name := person(session)
	c := w.challenge(name, a)
	if c.CredentialID == seedFrom("credential: "+name) {
		c.CredentialID = seedFrom("new credential: " + name)
	}
	req := &pb.OpaqueRegisterFinishRequest{
		SessionToken: w.tokens[session], Username: name, Upload: recordOf("new " + name),
		IdentityKey: w.public(name), Challenge: []byte("challenge of " + name),
	}
	method, _ := rpc.MethodOf(req)
	a.apply(req, false)
	w.signRegister(req, c.Username, w.key(name+"/1"))
	a.apply(req, true)
	view, err := w.engine.Query(commands.TokenHash(req), pb.Auth_FRESH)
	if err != nil {
		return w.answer(nil, err)
	}
	defer view.Release()
	change, err := commands.PreparePasswordChange(serverName, c, view.Caller.DeviceKey, req)
	if err != nil {
		return w.answer(nil, err)
	}
	command, err := commands.NewChangePassword(method.Rule, req, change)
	w.check(err)
	return w.answer(w.engine.Do(w.t.Context(), command))
}

// login sends an OpaqueLoginFinish whose password was right, with the key of the
// person's first device unless told otherwise, and keeps the token as session.
func (w *world) login(name string, a *arguments) []string {
	session := a.take("session", name)
	key := w.key(a.take("key", name+"/1"))
	view := w.view()
	account, _, err := projections.AccountByName(view.Reader, name)
	w.check(err)
	record, _, err := projections.OpaqueRecord(view.Reader, account.ID)
	w.check(err)
	view.Release()
	attempt := commands.LoginAttempt{
		Username: name, Account: account.ID, RecordVersion: uint32(a.number("record", int(record.GetVersion()))),
		LoginID: [16]byte{7}, TranscriptHash: seedFrom("transcript"),
	}
	req := &pb.OpaqueLoginFinishRequest{
		Username: name, LoginId: attempt.LoginID[:], IdentityKey: w.public(a.take("claim", w.names[string(key.Public().(ed25519.PublicKey))])),
	}
	a.apply(req, false)
	req.Signature = statement.Login{
		ServerName: serverName, Username: name, LoginID: req.GetLoginId(),
		TranscriptHash: attempt.TranscriptHash, Key: req.GetIdentityKey(),
	}.Sign(key)
	a.apply(req, true)
	login, err := commands.PrepareLogin(serverName, attempt, req)
	if err != nil {
		return w.answer(nil, err)
	}
	method, _ := rpc.MethodOf(req)
	command, err := commands.NewStartSession(method.Rule, req, login)
	w.check(err)
	response, err := w.engine.Do(w.t.Context(), command)
	if err == nil {
		token := response.(*pb.OpaqueLoginFinishResponse).GetSessionToken()
		hash := sha256.Sum256(token)
		w.tokens[session] = token
		w.names[string(token)] = "token(" + session + ")"
		w.names[string(hash[:])] = "session(" + session + ")"
	}
	return w.answer(response, err)
}

// nextKeySet completes an UploadHybridKeyRequest: the successor of the person's
// newest KeySet with a hybrid key, signed after the fields were set.
func (w *world) nextKeySet(req *pb.UploadHybridKeyRequest, session string, a *arguments) {
	name := person(session)
	current := w.newestKeySet(name)
	hash := statement.KeySetHash(serverName, current)
	req.Keyset = &pb.KeySet{
		IdentityKey: current.GetIdentityKey(), Version: current.GetVersion() + 1, PreviousHash: hash[:],
		DeviceKeys: current.GetDeviceKeys(), KemId: statement.KEMXWing, HybridKey: hybridKeyFrom(name), TimeMs: w.now(),
	}
	a.apply(req, false)
	if req.GetKeyset() != nil {
		statement.SignKeySet(serverName, req.GetKeyset(), w.signer(req.GetKeyset().GetIdentityKey(), name))
	}
	a.apply(req, true)
}
