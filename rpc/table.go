package rpc

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "quicprochat/proto/qpcv1"
)

// Method is one row of the method table: an RPC of proto/qpc/v1 with its rule.
// Rows are shared and never change.
type Method struct {
	// ID is the method id of the request frame (seed, "RPC Method Reference").
	ID uint16
	// Name is the RPC's name, "Enqueue".
	Name string
	// Service is the name of the service it stands in, "DeliveryService".
	Service string
	// Rule is the option that the RPC carries in the schema.
	Rule *pb.Rule
	// MaxRequest is the longest request body in bytes.
	MaxRequest uint32
	// Input and Output are the types of the request and the response message.
	Input, Output protoreflect.MessageType
	// TokenField and RequestIDField are the field numbers of session_token and
	// request_id in Input, 0 where the message has none.
	TokenField, RequestIDField protoreflect.FieldNumber

	shape *shape
}

// NewRequest returns an empty request message.
func (m *Method) NewRequest() proto.Message { return m.Input.New().Interface() }

// NewResponse returns an empty response message.
func (m *Method) NewResponse() proto.Message { return m.Output.New().Interface() }

func (m *Method) String() string { return fmt.Sprintf("%s (%d)", m.Name, m.ID) }

type table struct {
	methods []*Method
	byID    map[uint16]*Method
	byName  map[string]*Method
	byInput map[protoreflect.FullName]*Method
}

// FirstLocalID is the lowest method id of the admin socket: ids below are those
// of the QUIC endpoint, and the two tables share none.
const FirstLocalID = 60000

// tables are what the schema declares: the methods of the QUIC endpoint, and
// those of the admin socket (auth LOCAL), which no client on the net can name.
type tables struct{ public, local *table }

// theTables are read once from the linked descriptors; CheckTable tells what is
// wrong with them.
var theTables = sync.OnceValues(func() (tables, error) {
	all, err := readTable(servicesOf(protoregistry.GlobalFiles, pb.File_qpc_v1_options_proto.Package()))
	return split(all), err
})

func theTable() (*table, error) {
	t, err := theTables()
	return t.public, err
}

// split parts the rows by where they are served.
func split(all *table) tables {
	t := tables{public: newTable(), local: newTable()}
	for _, m := range all.methods {
		into := t.public
		if m.IsLocal() {
			into = t.local
		}
		into.add(m, new(faultList)) // found by readTable already
	}
	return t
}

// IsLocal tells whether the method is one of the admin socket.
func (m *Method) IsLocal() bool { return m.Rule.Auth == pb.Auth_LOCAL }

// LocalMethods returns the rows of the admin socket, sorted by id. Callers must
// not change the slice.
func LocalMethods() []*Method {
	t, _ := theTables()
	return t.local.methods
}

// LocalMethodByID finds a row of the admin socket by its id.
func LocalMethodByID(id uint16) (*Method, bool) {
	t, _ := theTables()
	m, ok := t.local.byID[id]
	return m, ok
}

// LocalMethodOf finds the row of the admin socket whose request message req is.
func LocalMethodOf(req proto.Message) (*Method, bool) {
	if req == nil {
		return nil, false
	}
	t, _ := theTables()
	m, ok := t.local.byInput[req.ProtoReflect().Descriptor().FullName()]
	return m, ok
}

// Methods returns the rows of the QUIC endpoint, sorted by id. Callers must not
// change the slice.
func Methods() []*Method {
	t, _ := theTable()
	return t.methods
}

// MethodByID finds a row by the id of a request frame.
func MethodByID(id uint16) (*Method, bool) {
	t, _ := theTable()
	m, ok := t.byID[id]
	return m, ok
}

// MethodByName finds a row by the RPC's name, "Enqueue".
func MethodByName(name string) (*Method, bool) {
	t, _ := theTable()
	m, ok := t.byName[name]
	return m, ok
}

// MethodOf finds the row whose request message req is: request types and methods
// correspond one to one.
func MethodOf(req proto.Message) (*Method, bool) {
	if req == nil {
		return nil, false
	}
	t, _ := theTable()
	m, ok := t.byInput[req.ProtoReflect().Descriptor().FullName()]
	return m, ok
}

// servicesOf lists the services of a proto package.
func servicesOf(files *protoregistry.Files, pkg protoreflect.FullName) []protoreflect.ServiceDescriptor {
	var services []protoreflect.ServiceDescriptor
	files.RangeFilesByPackage(pkg, func(fd protoreflect.FileDescriptor) bool {
		for i := range fd.Services().Len() {
			services = append(services, fd.Services().Get(i))
		}
		return true
	})
	return services
}

// readTable builds the table from the services. It returns what it could read
// together with every fault it found, joined.
func readTable(services []protoreflect.ServiceDescriptor) (*table, error) {
	t := newTable()
	var faults faultList
	for _, service := range services {
		for i := range service.Methods().Len() {
			if m := readMethod(service.Methods().Get(i), &faults); m != nil {
				t.add(m, &faults)
			}
		}
	}
	slices.SortFunc(t.methods, func(a, b *Method) int { return cmp.Compare(a.ID, b.ID) })
	return t, faults.err()
}

func newTable() *table {
	return &table{
		byID:    make(map[uint16]*Method),
		byName:  make(map[string]*Method),
		byInput: make(map[protoreflect.FullName]*Method),
	}
}

func (t *table) add(m *Method, faults *faultList) {
	if other, ok := t.byID[m.ID]; ok {
		faults.add(m.Name, "id %d is already taken by %s", m.ID, other.Name)
		return
	}
	if _, ok := t.byName[m.Name]; ok {
		faults.add(m.Name, "two methods have this name")
		return
	}
	input := m.Input.Descriptor().FullName()
	if other, ok := t.byInput[input]; ok {
		faults.add(m.Name, "%s is already the request of %s", input, other.Name)
		return
	}
	t.byID[m.ID], t.byName[m.Name], t.byInput[input] = m, m, m
	t.methods = append(t.methods, m)
}
