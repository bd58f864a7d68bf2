package admin

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"quicprochat/commands"
	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// Options are the dependencies of a Service.
type Options struct {
	Engine *commands.Engine
	// Way is how administrators come: Actor_SOCKET or Actor_DIRECTORY. It stands
	// in the events.
	Way pb.Actor_Way
	// VRF is the server's key for labels of key transparency.
	VRF *kt.VRFPrivateKey
}

// Service does what the methods of the admin socket say. It is safe for
// concurrent use.
type Service struct {
	Options
	handlers map[uint16]handler
}

// handler serves the calls of one method.
type handler func(*Service, context.Context, *rpc.Method, proto.Message) (proto.Message, error)

// binding is one line: the message types, and how a call is served.
type binding struct {
	request, response protoreflect.FullName
	handler           handler
}

// bindings ties each method of the schema's AdminService to its handler.
var bindings = []binding{
	mutation[*pb.GrantRoleResponse](commands.NewGrantRole),
	mutation[*pb.RevokeRoleResponse](commands.NewRevokeRole),
	query(commands.ListRoles),
	bind[*pb.RevokeAnyKeyRequest, *pb.RevokeAnyKeyResponse](revokeAnyKey),
	mutation[*pb.ResetAccountResponse](commands.NewResetAccount),
	mutation[*pb.BanAnyUserResponse](commands.NewBanAnyUser),
	mutation[*pb.UnbanAnyUserResponse](commands.NewUnbanAnyUser),
	query(commands.ListAllBanned),
	query(commands.ListAllReports),
	mutation[*pb.ResolveAnyReportResponse](commands.NewResolveAnyReport),
}

// revokeAnyKey makes the VRF proof on the published view.
func revokeAnyKey(s *Service, ctx context.Context, m *rpc.Method, req proto.Message) (proto.Message, error) {
	view, err := s.Engine.View()
	if err != nil {
		return nil, err
	}
	defer view.Release()
	r := req.(*pb.RevokeAnyKeyRequest)
	revocation, err := commands.PrepareMachineRevocation(view.Reader, s.VRF, r, s.Way)
	if err != nil {
		return nil, err
	}
	command, err := commands.NewRevokeAnyKey(m.Rule, r, revocation)
	if err != nil {
		return nil, err
	}
	return s.Engine.Do(ctx, command)
}

// mutation binds a method that a command decides.
func mutation[Resp, Req proto.Message](newCommand func(*pb.Rule, Req, pb.Actor_Way) (*commands.Command, error)) binding {
	return bind[Req, Resp](func(s *Service, ctx context.Context, m *rpc.Method, req proto.Message) (proto.Message, error) {
		command, err := newCommand(m.Rule, req.(Req), s.Way)
		if err != nil {
			return nil, err
		}
		return s.Engine.Do(ctx, command)
	})
}

// query binds a method that reads the published view.
func query[Req, Resp proto.Message](read func(*commands.View, Req) (Resp, error)) binding {
	return bind[Req, Resp](func(s *Service, _ context.Context, _ *rpc.Method, req proto.Message) (proto.Message, error) {
		view, err := s.Engine.View()
		if err != nil {
			return nil, err
		}
		defer view.Release()
		resp, err := read(view, req.(Req))
		if err != nil {
			return nil, err
		}
		return resp, nil
	})
}

func bind[Req, Resp proto.Message](h handler) binding {
	var req Req
	var resp Resp
	return binding{req.ProtoReflect().Descriptor().FullName(), resp.ProtoReflect().Descriptor().FullName(), h}
}

// NewService ties the methods to the engine. It fails when a method has no
// handler, or one of other types.
func NewService(o Options) (*Service, error) {
	handlers, err := bindAll(rpc.LocalMethods(), bindings)
	if err != nil {
		return nil, err
	}
	return &Service{Options: o, handlers: handlers}, nil
}

func bindAll(methods []*rpc.Method, bindings []binding) (map[uint16]handler, error) {
	handlers := make(map[uint16]handler)
	var faults []error
	for _, m := range methods {
		for _, b := range bindings {
			if b.request == m.Input.Descriptor().FullName() && b.response == m.Output.Descriptor().FullName() {
				handlers[m.ID] = b.handler
			}
		}
		if handlers[m.ID] == nil {
			faults = append(faults, fmt.Errorf("binding of %s: there is none", m))
		}
	}
	if len(bindings) != len(methods) {
		faults = append(faults, fmt.Errorf("%d bindings for %d methods of the admin socket", len(bindings), len(methods)))
	}
	return handlers, errors.Join(faults...)
}

// Do serves one request. The error is a *commands.Refusal, or internal.
func (s *Service) Do(ctx context.Context, req proto.Message) (proto.Message, error) {
	m, ok := rpc.LocalMethodOf(req)
	if !ok {
		return nil, fmt.Errorf("admin: %T is no request of the admin socket", req)
	}
	return s.handlers[m.ID](s, ctx, m, req)
}
