package commands_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// arguments are the words of a step after its name: field=value in order.
type arguments struct {
	w      *world
	fields []assignment
}

// assignment sets a field of a request. A path with ! in front is set after the
// request was signed: it tampers.
type assignment struct {
	path, value string
	tampers     bool
}

// take removes an argument that is no field of the request.
func (a *arguments) take(name, otherwise string) string {
	i := slices.IndexFunc(a.fields, func(f assignment) bool { return f.path == name })
	if i < 0 {
		return otherwise
	}
	value := a.fields[i].value
	a.fields = slices.Delete(a.fields, i, i+1)
	return value
}

func (a *arguments) number(name string, otherwise int) int {
	n, err := strconv.Atoi(a.take(name, strconv.Itoa(otherwise)))
	a.w.check(err)
	return n
}

func (a *arguments) duration(name string) time.Duration {
	d, err := time.ParseDuration(a.take(name, "0"))
	a.w.check(err)
	return d
}

// words splits a step at spaces outside of quotes.
func words(line string) []string {
	quoted := false
	return strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ' ' && !quoted
	})
}

func (w *world) arguments(words []string) *arguments {
	a := &arguments{w: w}
	for _, word := range words {
		path, value, _ := strings.Cut(word, "=")
		path, tampers := strings.CutPrefix(path, "!")
		a.fields = append(a.fields, assignment{path, value, tampers})
	}
	return a
}

// verbs are the steps that are no plain call of a method.
var verbs = map[string]func(w *world, subject string, a *arguments) []string{
	"people":   (*world).people,
	"register": (*world).register,
	"login":    (*world).login,
	"password": (*world).password,
	"fill":     (*world).fill,
	"again":    func(w *world, _ string, _ *arguments) []string { return w.last() },
	"queue":    func(w *world, device string, _ *arguments) []string { return w.queue(device) },
	"account":  func(w *world, name string, _ *arguments) []string { return w.person(name) },
	"packages": func(w *world, device string, _ *arguments) []string { return w.packages(device) },
	"budget":   (*world).spend,
	"advance":  (*world).advance,
	"passed":   (*world).showPassed,
	"restart":  (*world).restart,
	"quotas":   (*world).setQuotas,
}

// step executes one step with its indented lines and prints what came of it.
func (w *world) step(line string, below []string) []string {
	parts := words(line)
	if len(parts) < 2 {
		w.t.Fatalf("step %q has no subject", line)
	}
	if verb, known := verbs[parts[0]]; known {
		return verb(w, parts[1], w.arguments(parts[2:]))
	}
	method, known := methodByName(parts[1])
	if !known {
		w.t.Fatalf("step %q names no method", line)
	}
	a := w.arguments(parts[2:])
	req := method.NewRequest()
	w.identify(req, parts[0], a)
	switch r := req.(type) {
	case *pb.UploadHybridKeyRequest:
		w.nextKeySet(r, parts[0], a)
	case *pb.RevokeKeyRequest:
		w.revocation(r, parts[0], a)
	case *pb.RegisterDeviceRequest:
		w.newDevice(r, parts[0], a)
	case *pb.RevokeDeviceRequest:
		w.lostDevice(r, parts[0], a)
	case *pb.ReportMessageRequest:
		w.report(r, parts[0], a)
	default:
		a.apply(req, false)
	}
	for _, sub := range below {
		w.nested(req, words(sub))
	}
	w.last = func() []string { return w.answer(w.dispatch(method, req)) }
	return w.last()
}

// methodByName finds a method of either table.
func methodByName(name string) (*rpc.Method, bool) {
	for _, m := range rpc.LocalMethods() {
		if m.Name == name {
			return m, true
		}
	}
	return rpc.MethodByName(name)
}

// identify puts session token and request id into a request.
func (w *world) identify(req proto.Message, session string, a *arguments) {
	m := req.ProtoReflect()
	if field := m.Descriptor().Fields().ByName("session_token"); field != nil && session != "nobody" && session != "socket" {
		token, known := w.tokens[session]
		if !known {
			seed := seedFrom("token of " + session)
			token = seed[:]
		}
		m.Set(field, bytesValue(token))
	}
	field := m.Descriptor().Fields().ByName("request_id")
	if field == nil {
		return
	}
	age := a.duration("age")
	name := a.take("id", "")
	if raw, ok := strings.CutPrefix(name, "raw:"); ok {
		m.Set(field, bytesValue(w.literal(raw)))
		return
	}
	if name == "" {
		w.counts["request"]++
		name = fmt.Sprintf("#%d", w.counts["request"])
	}
	m.Set(field, bytesValue(w.requestID(name, age)))
}

// dispatch sends a request the way the server does: early refusal on the
// published view, then a query, or a command.
func (w *world) dispatch(method *rpc.Method, req proto.Message) (proto.Message, error) {
	return w.dispatchIn(w.t.Context(), method, req)
}

// dispatchIn is dispatch with the caller's patience.
func (w *world) dispatchIn(ctx context.Context, method *rpc.Method, req proto.Message) (proto.Message, error) {
	view, err := w.engine.Query(commands.TokenHash(req), method.Rule.GetAuth())
	if err != nil {
		return nil, err
	}
	defer view.Release()
	var command *commands.Command
	switch r := req.(type) {
	case *pb.EnqueueRequest:
		if r.GetClass() == pb.MessageClass_EPHEMERAL {
			passing, err := commands.Pass(view, r)
			if err == nil {
				w.passed = append(w.passed, passing)
			}
			return orNil(&pb.EnqueueResponse{}, err)
		}
		command, err = commands.NewEnqueue(method.Rule, r)
	case *pb.BatchEnqueueRequest:
		command, err = commands.NewBatchEnqueue(method.Rule, r)
	case *pb.AckRequest:
		command, err = commands.NewAck(method.Rule, r)
	case *pb.UploadKeyPackageRequest:
		command, err = commands.NewUploadKeyPackage(method.Rule, r, commands.DefaultKeyPackageSuites)
	case *pb.FetchKeyPackageRequest:
		return w.fetchKeyPackage(ctx, method.Rule, view, r)
	case *pb.UploadHybridKeyRequest:
		return w.prepared(ctx, func(view *commands.View) (*commands.Command, error) {
			upload, err := commands.PrepareHybridKey(view.Reader, serverName, w.vrf, r)
			if err != nil {
				return nil, err
			}
			return commands.NewUploadHybridKey(method.Rule, r, upload)
		})
	case *pb.RevokeKeyRequest:
		return w.prepared(ctx, func(view *commands.View) (*commands.Command, error) {
			revocation, err := commands.PrepareRevocation(view.Reader, serverName, w.vrf, r)
			if err != nil {
				return nil, err
			}
			return commands.NewRevokeKey(method.Rule, r, revocation)
		})
	case *pb.RevokeAnyKeyRequest:
		return w.prepared(ctx, func(view *commands.View) (*commands.Command, error) {
			revocation, err := commands.PrepareMachineRevocation(view.Reader, w.vrf, r, pb.Actor_SOCKET)
			if err != nil {
				return nil, err
			}
			return commands.NewRevokeAnyKey(method.Rule, r, revocation)
		})
	case *pb.RegisterDeviceRequest:
		return w.prepared(ctx, func(view *commands.View) (*commands.Command, error) {
			device, err := commands.PrepareDevice(view.Reader, serverName, w.vrf, r)
			if err != nil {
				return nil, err
			}
			return commands.NewRegisterDevice(method.Rule, r, device)
		})
	case *pb.RevokeDeviceRequest:
		return w.prepared(ctx, func(view *commands.View) (*commands.Command, error) {
			removal, err := commands.PrepareDeviceRemoval(view.Reader, serverName, w.vrf, r)
			if err != nil {
				return nil, err
			}
			return commands.NewRevokeDevice(method.Rule, r, removal)
		})
	case *pb.ListDevicesRequest:
		return orNil(commands.ListDevices(view, r))
	case *pb.CheckRevocationRequest:
		return orNil(commands.CheckRevocation(view, r))
	case *pb.FetchRequest, *pb.FetchWaitRequest, *pb.PeekRequest:
		return w.read(ctx, method.Rule, view, req)
	case *pb.FetchHybridKeyRequest:
		return orNil(commands.FetchHybridKey(view, r))
	case *pb.FetchHybridKeysRequest:
		return orNil(commands.FetchHybridKeys(view, r))
	case *pb.ResolveUserRequest:
		return orNil(commands.ResolveUser(view, r))
	case *pb.AuditKeyTransparencyRequest:
		return orNil(w.engine.Audit(w.t.Context(), view.Caller, r))
	case *pb.GrantRoleRequest:
		command, err = commands.NewGrantRole(method.Rule, r, pb.Actor_SOCKET)
	case *pb.RevokeRoleRequest:
		command, err = commands.NewRevokeRole(method.Rule, r, pb.Actor_DIRECTORY)
	case *pb.ResetAccountRequest:
		command, err = commands.NewResetAccount(method.Rule, r, pb.Actor_SOCKET)
	case *pb.ListRolesRequest:
		return orNil(commands.ListRoles(view, r))
	case *pb.CreateChannelRequest:
		command, err = commands.NewCreateChannel(method.Rule, r)
	case *pb.RemoveMemberRequest:
		command, err = commands.NewRemoveMember(method.Rule, r)
	case *pb.UpdateGroupMetadataRequest:
		command, err = commands.NewUpdateGroupMetadata(method.Rule, r)
	case *pb.AddMemberRequest:
		command, err = commands.NewAddMember(method.Rule, r)
	case *pb.RotateKeysRequest:
		command, err = commands.NewRotateKeys(method.Rule, r)
	case *pb.ListGroupMembersRequest:
		return orNil(commands.ListGroupMembers(view, r))
	case *pb.ReportMessageRequest:
		var report *commands.PreparedReport
		if report, err = commands.PrepareReport(view, frankKey, serverName, r); err == nil {
			command, err = commands.NewReportMessage(method.Rule, r, report)
		}
	case *pb.BanUserRequest:
		command, err = commands.NewBanUser(method.Rule, r)
	case *pb.UnbanUserRequest:
		command, err = commands.NewUnbanUser(method.Rule, r)
	case *pb.ResolveReportRequest:
		command, err = commands.NewResolveReport(method.Rule, r)
	case *pb.ListReportsRequest:
		return orNil(commands.ListReports(view, r))
	case *pb.ListBannedRequest:
		return orNil(commands.ListBanned(view, r))
	case *pb.BanAnyUserRequest:
		command, err = commands.NewBanAnyUser(method.Rule, r, pb.Actor_SOCKET)
	case *pb.UnbanAnyUserRequest:
		command, err = commands.NewUnbanAnyUser(method.Rule, r, pb.Actor_DIRECTORY)
	case *pb.ResolveAnyReportRequest:
		command, err = commands.NewResolveAnyReport(method.Rule, r, pb.Actor_SOCKET)
	case *pb.ListAllReportsRequest:
		return orNil(commands.ListAllReports(view, r))
	case *pb.ListAllBannedRequest:
		return orNil(commands.ListAllBanned(view, r))
	default:
		w.t.Fatalf("no way to call %s", method)
	}
	if err != nil {
		return nil, err
	}
	return w.engine.Do(ctx, command)
}

// orNil turns a typed response into an interface that is nil on errors.
func orNil[Resp proto.Message](response Resp, err error) (proto.Message, error) {
	if err != nil {
		return nil, err
	}
	return response, nil
}

// read answers a Fetch, FetchWait or Peek with its payloads.
func (w *world) read(ctx context.Context, rule *pb.Rule, view *commands.View, req proto.Message) (response proto.Message, err error) {
	var decided bool
	var command *commands.Command
	switch r := req.(type) {
	case *pb.FetchRequest:
		response, decided, err = commands.ReadFetch(view, r)
		if err == nil && !decided {
			command, err = commands.NewFetch(rule, r)
		}
	case *pb.FetchWaitRequest:
		response, decided, err = commands.ReadFetchWait(view, r)
		if err == nil && !decided {
			command, err = commands.NewFetchWait(rule, r)
		}
	case *pb.PeekRequest:
		response, err = commands.Peek(view, r)
	}
	if err == nil && command != nil {
		response, err = w.engine.Do(ctx, command)
	}
	if err != nil {
		return nil, err
	}
	var envelopes *[]*pb.Envelope
	switch r := response.(type) {
	case *pb.FetchResponse:
		envelopes = &r.Envelopes
	case *pb.FetchWaitResponse:
		envelopes = &r.Envelopes
	case *pb.PeekResponse:
		envelopes = &r.Envelopes
	}
	*envelopes, _, err = commands.FillPayloads(w.engine.Payloads, view.Caller.Account, *envelopes, nil)
	return response, err
}

// fill sends count messages of size bytes each, in batches, and prints what
// became of them in one line.
func (w *world) fill(device string, a *arguments) []string {
	method, _ := rpc.MethodByName("BatchEnqueue")
	by, count, size := a.take("by", "nobody"), a.number("count", 1), a.number("size", 1)
	results := map[string]int{}
	chunk := min(commands.MaxBatchItems, commands.MaxBatchBytes/size)
	for left := count; left > 0; left -= chunk {
		req := &pb.BatchEnqueueRequest{}
		w.identify(req, by, a)
		for range min(left, chunk) {
			req.Items = append(req.Items, &pb.BatchEnqueueRequest_Item{
				Recipient: &pb.BatchEnqueueRequest_Item_RecipientDevice{RecipientDevice: w.public(device)},
				Payload:   make([]byte, size),
			})
		}
		response, err := w.dispatch(method, req)
		w.check(err)
		for _, result := range response.(*pb.BatchEnqueueResponse).GetResults() {
			results[fmt.Sprintf("%s %s", result.GetStatus(), result.GetReason())]++
			w.counts["m"]++ // keeps the names of later messages in step
			if len(result.GetMessageId()) > 0 {
				w.names[string(result.GetMessageId())] = fmt.Sprintf("m%d", w.counts["m"])
			}
		}
	}
	w.shown = w.log.Size()
	var lines []string
	for result, n := range results {
		lines = append(lines, fmt.Sprintf("%d × %s", n, strings.TrimSuffix(result, " REASON_UNSPECIFIED")))
	}
	return sorted(lines)
}

// people registers several persons and logs them in, without words.
func (w *world) people(first string, a *arguments) []string {
	names := []string{first}
	for _, more := range a.fields {
		names = append(names, more.path)
	}
	for _, name := range names {
		for _, verb := range []func(string, *arguments) []string{w.register, w.login} {
			if lines := verb(name, w.arguments(nil)); !strings.HasPrefix(lines[0], "Ok") {
				w.t.Fatalf("%s: %v", name, lines)
			}
		}
	}
	return nil
}

// advance lets time pass and prints what housekeeping did.
func (w *world) advance(by string, _ *arguments) []string {
	days := 0
	if head, rest, found := strings.Cut(by, "d"); found {
		var err error
		days, err = strconv.Atoi(head)
		w.check(err)
		if by = rest; by == "" {
			by = "0s"
		}
	}
	d, err := time.ParseDuration(by)
	w.check(err)
	w.sleep(d + time.Duration(days)*24*time.Hour)
	return w.events()
}

func (w *world) restart(string, *arguments) []string {
	size, before := w.log.Size(), w.digest()
	w.stop()
	w.boot()
	if !w.sameViews(size, before) {
		return []string{"other views"}
	}
	return []string{"same views"}
}

func (w *world) setQuotas(to string, _ *arguments) []string {
	w.stop()
	w.quotas = to == "on"
	w.boot()
	return nil
}

// person is whose session it is: bob+2 is another session of bob.
func person(session string) string {
	name, _, _ := strings.Cut(session, "+")
	return name
}

func sorted(lines []string) []string {
	slices.Sort(lines)
	return lines
}

// newestKeySet is the KeySet that the published view has of an identity.
func (w *world) newestKeySet(identity string) *pb.KeySet {
	view := w.view()
	defer view.Release()
	keySet, found, err := projections.KeySet(view.Reader, projections.Key(w.public(identity)))
	w.check(err)
	if !found {
		return &pb.KeySet{IdentityKey: w.public(identity)}
	}
	return keySet
}

// prepared calls a method whose command is made from the published view, as the
// server does: made again while stale.
func (w *world) prepared(ctx context.Context, prepare func(*commands.View) (*commands.Command, error)) (proto.Message, error) {
	for range 4 {
		view := w.view()
		command, err := prepare(view)
		view.Release()
		if err != nil {
			return nil, err
		}
		response, err := w.engine.Do(ctx, command)
		if !errors.Is(err, commands.ErrStale) {
			return response, err
		}
	}
	return nil, commands.ErrStale
}
