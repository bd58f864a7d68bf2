package server

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/auth"
)

// bindings ties each method of the table to its handler. A request type and a
// method correspond one to one, so the types say which method is meant; a
// missing, doubled or mistyped line stops the start.
var bindings = []binding{
	ceremony((*auth.Ceremonies).RegisterStart),
	special(true, (*call).registerFinish),
	ceremony((*auth.Ceremonies).LoginStart),
	ceremony((*auth.Ceremonies).LoginFinish),

	special(false, (*call).enqueue),
	special(true, (*call).fetch),
	special(true, (*call).fetchWait),
	special(true, (*call).peek),
	mutation[*pb.AckResponse](commands.NewAck),
	mutation[*pb.BatchEnqueueResponse](commands.NewBatchEnqueue),

	special(false, (*call).uploadKeyPackage),
	special(true, (*call).fetchKeyPackage),
	special(true, (*call).uploadHybridKey),
	lookup(commands.FetchHybridKey),
	lookup(commands.FetchHybridKeys),

	mutation[*pb.CreateChannelResponse](commands.NewCreateChannel),
	mutation[*pb.RemoveMemberResponse](commands.NewRemoveMember),
	mutation[*pb.UpdateGroupMetadataResponse](commands.NewUpdateGroupMetadata),
	query(commands.ListGroupMembers),
	mutation[*pb.RotateKeysResponse](commands.NewRotateKeys),
	mutation[*pb.AddMemberResponse](commands.NewAddMember),

	lookup(commands.ResolveUser),
	special(true, (*call).revokeKey),
	lookup(commands.CheckRevocation),
	special(true, (*call).audit),

	special(true, (*call).registerDevice),
	lookup(commands.ListDevices),
	special(true, (*call).revokeDevice),

	special(true, (*call).reportMessage),
	mutation[*pb.BanUserResponse](commands.NewBanUser),
	mutation[*pb.UnbanUserResponse](commands.NewUnbanUser),
	query(commands.ListReports),
	query(commands.ListBanned),
	mutation[*pb.ResolveReportResponse](commands.NewResolveReport),

	special(false, (*call).health),
}

// binding is one line: the message types, and how a call is served.
type binding struct {
	request, response protoreflect.FullName
	handler           handler
}

// handler serves the calls of one method.
type handler struct {
	// view tells that the call is to have a published view, with the caller
	// found in it.
	view  bool
	serve func(context.Context, *call) (proto.Message, error)
}

// mutation binds a method that a command decides; newCommand checks what needs
// no view.
func mutation[Resp, Req proto.Message](newCommand func(*pb.Rule, Req) (*commands.Command, error)) binding {
	return bind[Req, Resp](false, func(ctx context.Context, c *call) (proto.Message, error) {
		command, err := newCommand(c.method.Rule, c.message.(Req))
		if err != nil {
			return nil, err
		}
		return c.service.engine.Do(ctx, command)
	})
}

// query binds a method that reads the published view.
func query[Req, Resp proto.Message](read func(*commands.View, Req) (Resp, error)) binding {
	return bind[Req, Resp](true, func(_ context.Context, c *call) (proto.Message, error) {
		return result(read(c.view, c.message.(Req)))
	})
}

// provable is a request that may ask for a proof.
type provable interface {
	proto.Message
	GetProof() *pb.ProofRequest
}

// lookup binds a query that proves its answer on request, from the state that the
// proof is made under.
func lookup[Req provable, Resp proto.Message](read func(*commands.View, Req) (Resp, error)) binding {
	return bind[Req, Resp](true, func(ctx context.Context, c *call) (proto.Message, error) {
		req := c.message.(Req)
		if req.GetProof() == nil {
			return result(read(c.view, req))
		}
		c.closeView()
		v, err := c.service.engine.ProofView(ctx, c.caller, req.GetProof())
		if err != nil {
			return nil, err
		}
		defer v.Release()
		return result(read(v, req))
	})
}

// ceremony binds a public method of package auth.
func ceremony[Req, Resp proto.Message](serve func(*auth.Ceremonies, context.Context, auth.Origin, Req) (Resp, error)) binding {
	return bind[Req, Resp](false, func(ctx context.Context, c *call) (proto.Message, error) {
		return result(serve(c.service.ceremonies, ctx, c.origin(), c.message.(Req)))
	})
}

// special binds a method with a handler of its own.
func special[Req, Resp proto.Message](view bool, serve func(*call, context.Context, Req) (Resp, error)) binding {
	return bind[Req, Resp](view, func(ctx context.Context, c *call) (proto.Message, error) {
		return result(serve(c, ctx, c.message.(Req)))
	})
}

func bind[Req, Resp proto.Message](view bool, serve func(context.Context, *call) (proto.Message, error)) binding {
	var req Req
	var resp Resp
	return binding{
		request:  req.ProtoReflect().Descriptor().FullName(),
		response: resp.ProtoReflect().Descriptor().FullName(),
		handler:  handler{view: view, serve: serve},
	}
}

// result keeps a typed nil out of the interface.
func result[Resp proto.Message](resp Resp, err error) (proto.Message, error) {
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// bindAll checks the bindings against the table and gives the handlers by
// method id. The error names every fault.
func bindAll(methods []*rpc.Method, bindings []binding) (map[uint16]handler, error) {
	byRequest := make(map[protoreflect.FullName]*rpc.Method)
	for _, m := range methods {
		byRequest[m.Input.Descriptor().FullName()] = m
	}
	handlers := make(map[uint16]handler)
	var faults []error
	for _, b := range bindings {
		m := byRequest[b.request]
		switch {
		case m == nil:
			faults = append(faults, fmt.Errorf("binding of %s: no method has this request", b.request))
		case m.Output.Descriptor().FullName() != b.response:
			faults = append(faults, fmt.Errorf("binding of %s: answers with %s instead of %s", m, b.response, m.Output.Descriptor().FullName()))
		case handlers[m.ID].serve != nil:
			faults = append(faults, fmt.Errorf("binding of %s: there are two", m))
		default:
			handlers[m.ID] = b.handler
		}
	}
	for _, m := range methods {
		if handlers[m.ID].serve == nil {
			faults = append(faults, fmt.Errorf("binding of %s: there is none", m))
		}
	}
	return handlers, errors.Join(faults...)
}
