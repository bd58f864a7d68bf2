package rpc

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	pb "quicprochat/proto/qpcv1"
)

// Names of the fields by which the guard, receipts and clients work on any
// request message.
const (
	sessionTokenField = "session_token"
	requestIDField    = "request_id"
	afterSeqField     = "after_seq"
)

// maxRequestCeiling bounds what a rule may allow, so that a slip in the schema
// does not become a memory hole.
const maxRequestCeiling = 8 << 20

// CheckTable tells whether the schema keeps the rules that guard and clients
// rely on; every fault is named. A server refuses to start on an error. The
// rules: each RPC carries a rule with an id of 1 … 65535, unique; auth and rate
// are set; auth is LOCAL exactly from FirstLocalID on, and without a rate then;
// request type and method correspond one to one; session_token is field 1, bytes,
// exactly where auth is neither NONE nor LOCAL, and field 1 is nothing else;
// request_id is a bytes field exactly where retry is REQUEST_ID; after_seq is an
// optional uint64 exactly where retry is AFTER_SEQ; a call that mutates has a
// retry kind other than NONE; nothing is streaming.
func CheckTable() error {
	t, err := theTable()
	if err == nil && len(t.methods) == 0 {
		return errors.New("method table: no services are linked in")
	}
	return err
}

// faultList collects what is wrong with a schema.
type faultList []error

func (l *faultList) add(method, format string, args ...any) {
	*l = append(*l, fmt.Errorf("method table: %s: %s", method, fmt.Sprintf(format, args...)))
}

func (l faultList) err() error { return errors.Join(l...) }

// readMethod reads one row; nil when it can't be a row at all.
func readMethod(md protoreflect.MethodDescriptor, faults *faultList) *Method {
	name := string(md.Name())
	if md.IsStreamingClient() || md.IsStreamingServer() {
		faults.add(name, "is streaming; a call is one frame each way")
	}
	rule, ok := proto.GetExtension(md.Options(), pb.E_Rule).(*pb.Rule)
	if !ok || rule == nil {
		faults.add(name, "carries no rule")
		return nil
	}
	if rule.Id == 0 || rule.Id > math.MaxUint16 {
		faults.add(name, "id %d is not in 1 … 65535", rule.Id)
		return nil
	}
	m := &Method{
		ID:         uint16(rule.Id),
		Name:       name,
		Service:    string(md.Parent().Name()),
		Rule:       rule,
		MaxRequest: rule.MaxRequest,
		Input:      messageType(md.Input()),
		Output:     messageType(md.Output()),
		shape:      shapeOf(md.Input()),
	}
	if m.MaxRequest == 0 {
		m.MaxRequest = DefaultMaxRequest
	}
	checkRule(m, faults)
	checkFields(m, faults)
	return m
}

// messageType prefers the generated Go type; schemas built at run time have
// none.
func messageType(md protoreflect.MessageDescriptor) protoreflect.MessageType {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName())
	if err != nil || mt.Descriptor() != md {
		return dynamicpb.NewMessageType(md)
	}
	return mt
}

func checkRule(m *Method, faults *faultList) {
	rule := m.Rule
	if _, known := pb.Auth_Level_name[int32(rule.Auth)]; !known || rule.Auth == pb.Auth_UNSPECIFIED {
		faults.add(m.Name, "auth is not set")
	}
	_, known := pb.Rate_Class_name[int32(rule.Rate)]
	switch limited := known && rule.Rate != pb.Rate_UNSPECIFIED; {
	case m.IsLocal() != (m.ID >= FirstLocalID):
		faults.add(m.Name, "ids from %d on are those of the admin socket (auth LOCAL), and no others", FirstLocalID)
	case m.IsLocal() && rule.Rate != pb.Rate_UNSPECIFIED:
		faults.add(m.Name, "auth is LOCAL, so no rate applies")
	case !m.IsLocal() && !limited:
		faults.add(m.Name, "rate is not set")
	}
	if _, known := pb.Retry_Kind_name[int32(rule.Retry)]; !known {
		faults.add(m.Name, "retry kind %d is unknown", rule.Retry)
	}
	if rule.Mutates && rule.Retry == pb.Retry_NONE {
		faults.add(m.Name, "mutates, so its retry kind can't be NONE")
	}
	if m.MaxRequest > maxRequestCeiling {
		faults.add(m.Name, "max_request %d is over %d bytes", m.MaxRequest, maxRequestCeiling)
	}
}

// checkFields holds rule and request message together and notes the numbers of
// the fields.
func checkFields(m *Method, faults *faultList) {
	fields := m.Input.Descriptor().Fields()

	wantToken := m.Rule.Auth != pb.Auth_NONE && !m.IsLocal()
	token := fields.ByName(sessionTokenField)
	switch {
	case wantToken && token == nil:
		faults.add(m.Name, "auth is %s, but the request has no session_token", m.Rule.Auth)
	case !wantToken && token != nil:
		faults.add(m.Name, "auth is %s, but the request has a session_token", m.Rule.Auth)
	case token != nil && (token.Number() != 1 || !isSingular(token, protoreflect.BytesKind)):
		faults.add(m.Name, "session_token must be field 1, bytes")
	case token != nil:
		m.TokenField = token.Number()
	}
	if !wantToken && fields.ByNumber(1) != nil {
		faults.add(m.Name, "field 1 is reserved for session_token")
	}

	wantID := m.Rule.Retry == pb.Retry_REQUEST_ID
	id := fields.ByName(requestIDField)
	switch {
	case wantID && id == nil:
		faults.add(m.Name, "retry is REQUEST_ID, but the request has no request_id")
	case !wantID && id != nil:
		faults.add(m.Name, "retry is %s, but the request has a request_id", m.Rule.Retry)
	case id != nil && !isSingular(id, protoreflect.BytesKind):
		faults.add(m.Name, "request_id must be bytes")
	case id != nil:
		m.RequestIDField = id.Number()
	}

	wantSeq := m.Rule.Retry == pb.Retry_AFTER_SEQ
	seq := fields.ByName(afterSeqField)
	switch {
	case wantSeq && seq == nil:
		faults.add(m.Name, "retry is AFTER_SEQ, but the request has no after_seq")
	case !wantSeq && seq != nil:
		faults.add(m.Name, "retry is %s, but the request has an after_seq", m.Rule.Retry)
	case seq != nil && (!isSingular(seq, protoreflect.Uint64Kind) || !seq.HasPresence()):
		faults.add(m.Name, "after_seq must be an optional uint64")
	}
}

func isSingular(fd protoreflect.FieldDescriptor, kind protoreflect.Kind) bool {
	return fd.Kind() == kind && fd.Cardinality() != protoreflect.Repeated
}
