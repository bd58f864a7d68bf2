package rpc

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	pb "quicprochat/proto/qpcv1"
)

func TestTableOfTheSchema(t *testing.T) {
	if err := CheckTable(); err != nil {
		t.Fatal(err)
	}
	// Ids and names that the seed fixes, of the methods that exist.
	seed := map[uint16]string{
		100: "OpaqueRegisterStart", 101: "OpaqueRegisterFinish", 102: "OpaqueLoginStart", 103: "OpaqueLoginFinish",
		200: "Enqueue", 201: "Fetch", 202: "FetchWait", 203: "Peek", 204: "Ack", 205: "BatchEnqueue",
		300: "UploadKeyPackage", 301: "FetchKeyPackage", 302: "UploadHybridKey", 303: "FetchHybridKey", 304: "FetchHybridKeys",
		400: "CreateChannel", 410: "RemoveMember", 411: "UpdateGroupMetadata", 412: "ListGroupMembers", 413: "RotateKeys",
		420: "ReportMessage", 421: "BanUser", 422: "UnbanUser", 423: "ListReports", 424: "ListBanned",
		500: "ResolveUser", 501: "ResolveIdentity", 510: "RevokeKey", 511: "CheckRevocation", 520: "AuditKeyTransparency",
		600: "UploadBlob", 601: "DownloadBlob",
		700: "RegisterDevice", 701: "ListDevices", 702: "RevokeDevice", 710: "RegisterPushToken",
		750: "StoreRecoveryBundle", 751: "FetchRecoveryBundle", 752: "DeleteRecoveryBundle",
		800: "PublishEndpoint", 801: "ResolveEndpoint", 802: "Health",
		900: "RelayEnqueue", 901: "RelayBatchEnqueue", 902: "ProxyFetchKeyPackage", 903: "ProxyFetchHybridKey",
		904: "ProxyResolveUser", 905: "FederationHealth", 950: "DeleteAccount",
		414: "AddMember", 425: "ResolveReport", // not in the seed
	}
	for _, m := range Methods() {
		if want, ok := seed[m.ID]; !ok || want != m.Name {
			t.Errorf("%s: the seed has %q under this id", m, want)
		}
	}
}

func TestLookups(t *testing.T) {
	var last uint16
	for _, m := range Methods() {
		if m.ID <= last {
			t.Errorf("%s does not stand in order", m)
		}
		last = m.ID
		if got, ok := MethodByID(m.ID); !ok || got != m {
			t.Errorf("MethodByID(%d) = %v", m.ID, got)
		}
		if got, ok := MethodByName(m.Name); !ok || got != m {
			t.Errorf("MethodByName(%s) = %v", m.Name, got)
		}
		if got, ok := MethodOf(m.NewRequest()); !ok || got != m {
			t.Errorf("MethodOf(%T) = %v", m.NewRequest(), got)
		}
		if m.MaxRequest == 0 || m.NewResponse() == nil || m.Service == "" {
			t.Errorf("%+v is incomplete", m)
		}
	}
	enqueue := method(t, "Enqueue")
	if _, ok := enqueue.NewRequest().(*pb.EnqueueRequest); !ok {
		t.Errorf("Enqueue makes %T", enqueue.NewRequest())
	}
	if enqueue.TokenField != 1 || enqueue.RequestIDField != 2 || enqueue.MaxRequest < 1<<20 {
		t.Errorf("Enqueue: %+v", enqueue)
	}
	if _, ok := MethodByID(999); ok {
		t.Error("there is a method 999")
	}
	if _, ok := MethodOf(new(pb.EnqueueResponse)); ok {
		t.Error("a response is a request")
	}
	if _, ok := MethodOf(nil); ok {
		t.Error("nil is a request")
	}
}

// TestLocalTable: the methods of the admin socket are found there and nowhere
// else: a frame on QUIC that carries such an id is one of no method.
func TestLocalTable(t *testing.T) {
	if len(LocalMethods()) == 0 {
		t.Fatal("no methods")
	}
	for _, m := range LocalMethods() {
		if got, ok := LocalMethodByID(m.ID); !ok || got != m || !m.IsLocal() || m.ID < FirstLocalID {
			t.Errorf("LocalMethodByID(%d) = %v", m.ID, got)
		}
		if got, ok := LocalMethodOf(m.NewRequest()); !ok || got != m {
			t.Errorf("LocalMethodOf(%T) = %v", m.NewRequest(), got)
		}
		if _, ok := MethodByID(m.ID); ok {
			t.Errorf("%s is a method of the QUIC endpoint", m)
		}
		if _, ok := MethodByName(m.Name); ok {
			t.Errorf("%s is a method of the QUIC endpoint", m)
		}
		if _, ok := MethodOf(m.NewRequest()); ok {
			t.Errorf("%s is a method of the QUIC endpoint", m)
		}
	}
	for _, m := range Methods() {
		if _, ok := LocalMethodByID(m.ID); ok || m.IsLocal() {
			t.Errorf("%s is a method of the admin socket", m)
		}
	}
	if _, ok := LocalMethodOf(nil); ok {
		t.Error("nil is a request")
	}
}

// broken is a file with one service whose methods break one rule each.
const broken = `
name: "broken.proto" package: "broken" syntax: "proto3"
message_type { name: "Out" }
message_type { name: "Empty" }
message_type { name: "Token" field { name: "session_token" number: 1 type: TYPE_BYTES label: LABEL_OPTIONAL } }
message_type { name: "TokenString" field { name: "session_token" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } }
message_type { name: "TokenMoved" field { name: "session_token" number: 3 type: TYPE_BYTES label: LABEL_OPTIONAL } }
message_type { name: "Other1" field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } }
message_type { name: "Id"
  field { name: "session_token" number: 1 type: TYPE_BYTES label: LABEL_OPTIONAL }
  field { name: "request_id" number: 2 type: TYPE_BYTES label: LABEL_OPTIONAL } }
message_type { name: "IdString"
  field { name: "session_token" number: 1 type: TYPE_BYTES label: LABEL_OPTIONAL }
  field { name: "request_id" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL } }
message_type { name: "Seq"
  field { name: "session_token" number: 1 type: TYPE_BYTES label: LABEL_OPTIONAL }
  field { name: "after_seq" number: 2 type: TYPE_UINT64 label: LABEL_OPTIONAL } }
`

func TestCheckTableFindsEveryFault(t *testing.T) {
	rule := func(id uint32, auth pb.Auth_Level, retry pb.Retry_Kind) *pb.Rule {
		return &pb.Rule{Id: id, Auth: auth, Rate: pb.Rate_SEND, Retry: retry}
	}
	none, session := pb.Auth_NONE, pb.Auth_SESSION
	for _, tt := range []struct {
		name  string
		input string
		rule  *pb.Rule
		want  string
	}{
		{"sound", "Token", rule(1, session, pb.Retry_NONE), ""},
		{"sound with id", "Id", rule(1, session, pb.Retry_REQUEST_ID), ""},
		{"sound without token", "Empty", rule(1, none, pb.Retry_NONE), ""},
		{"no rule", "Token", nil, "carries no rule"},
		{"id 0", "Token", rule(0, session, pb.Retry_NONE), "id 0 is not in"},
		{"id too large", "Token", rule(70000, session, pb.Retry_NONE), "id 70000 is not in"},
		{"no auth", "Token", rule(1, pb.Auth_UNSPECIFIED, pb.Retry_NONE), "auth is not set"},
		{"strange auth", "Token", rule(1, 99, pb.Retry_NONE), "auth is not set"},
		{"strange retry", "Token", rule(1, session, 99), "retry kind 99"},
		{"no rate", "Token", &pb.Rule{Id: 1, Auth: session}, "rate is not set"},
		{"sound and local", "Empty", &pb.Rule{Id: 60000, Auth: pb.Auth_LOCAL}, ""},
		{"local with a public id", "Empty", &pb.Rule{Id: 59999, Auth: pb.Auth_LOCAL}, "those of the admin socket"},
		{"public with a local id", "Token", rule(60000, session, pb.Retry_NONE), "those of the admin socket"},
		{"local with a rate", "Empty", &pb.Rule{Id: 60000, Auth: pb.Auth_LOCAL, Rate: pb.Rate_SEND}, "no rate applies"},
		{"local with a token", "Token", &pb.Rule{Id: 60000, Auth: pb.Auth_LOCAL}, "has a session_token"},
		{"unsafe mutation", "Token", &pb.Rule{Id: 1, Auth: session, Rate: 1, Mutates: true}, "mutates"},
		{"limit", "Token", &pb.Rule{Id: 1, Auth: session, Rate: 1, MaxRequest: 1 << 30}, "max_request"},
		{"token missing", "Empty", rule(1, session, pb.Retry_NONE), "has no session_token"},
		{"token too many", "Token", rule(1, none, pb.Retry_NONE), "has a session_token"},
		{"token moved", "TokenMoved", rule(1, session, pb.Retry_NONE), "must be field 1"},
		{"token a string", "TokenString", rule(1, session, pb.Retry_NONE), "must be field 1"},
		{"field 1 taken", "Other1", rule(1, none, pb.Retry_NONE), "field 1 is reserved"},
		{"id missing", "Token", rule(1, session, pb.Retry_REQUEST_ID), "has no request_id"},
		{"id too many", "Id", rule(1, session, pb.Retry_NONE), "has a request_id"},
		{"id a string", "IdString", rule(1, session, pb.Retry_REQUEST_ID), "request_id must be bytes"},
		{"after_seq missing", "Token", rule(1, session, pb.Retry_AFTER_SEQ), "has no after_seq"},
		{"after_seq too many", "Seq", rule(1, session, pb.Retry_NONE), "has an after_seq"},
		{"after_seq without presence", "Seq", rule(1, session, pb.Retry_AFTER_SEQ), "optional uint64"},
	} {
		table, err := readTable(services(t, methodProto("A", tt.input, tt.rule)))
		switch {
		case tt.want == "" && (err != nil || len(table.methods) != 1):
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), ": A:")):
			t.Errorf("%s: %v, want %q about A", tt.name, err, tt.want)
		}
	}

	a := methodProto("A", "Token", rule(1, session, pb.Retry_NONE))
	for _, tt := range []struct {
		name string
		b    *descriptorpb.MethodDescriptorProto
		want string
	}{
		{"same id", methodProto("B", "Id", rule(1, session, pb.Retry_REQUEST_ID)), "already taken by A"},
		{"same request", methodProto("B", "Token", rule(2, session, pb.Retry_NONE)), "already the request of A"},
	} {
		if _, err := readTable(services(t, a, tt.b)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	streaming := methodProto("A", "Token", rule(1, session, pb.Retry_NONE))
	streaming.ServerStreaming = proto.Bool(true)
	if _, err := readTable(services(t, streaming)); err == nil || !strings.Contains(err.Error(), "streaming") {
		t.Errorf("streaming: %v", err)
	}
}

func methodProto(name, input string, rule *pb.Rule) *descriptorpb.MethodDescriptorProto {
	m := &descriptorpb.MethodDescriptorProto{
		Name:       proto.String(name),
		InputType:  proto.String(".broken." + input),
		OutputType: proto.String(".broken.Out"),
		Options:    new(descriptorpb.MethodOptions),
	}
	if rule != nil {
		proto.SetExtension(m.Options, pb.E_Rule, rule)
	}
	return m
}

func services(t *testing.T, methods ...*descriptorpb.MethodDescriptorProto) []protoreflect.ServiceDescriptor {
	t.Helper()
	file := new(descriptorpb.FileDescriptorProto)
	if err := prototext.Unmarshal([]byte(broken), file); err != nil {
		t.Fatal(err)
	}
	file.Service = []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("Broken"), Method: methods}}
	fd, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return []protoreflect.ServiceDescriptor{fd.Services().Get(0)}
}

func TestStatusNames(t *testing.T) {
	for status, want := range map[pb.Status]string{
		0: "Ok", 1: "BadRequest", 2: "Unauthorized", 3: "Forbidden", 4: "NotFound", 5: "RateLimited",
		6: "Status(6)", 7: "Status(7)", 8: "DeadlineExceeded", 9: "Unavailable", 10: "Internal",
		11: "UnknownMethod", 12: "Status(12)",
	} {
		if got := StatusName(status); got != want {
			t.Errorf("StatusName(%d) = %s, want %s", status, got, want)
		}
		if got, want := KnownStatus(status), !strings.HasPrefix(want, "Status("); got != want {
			t.Errorf("KnownStatus(%d) = %v", status, got)
		}
	}
	if ReasonName(pb.Reason_NO_DEVICE) != "NO_DEVICE" || ReasonName(9999) != "Reason(9999)" {
		t.Error("reason names")
	}
}
