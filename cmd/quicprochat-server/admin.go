package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/commands/datadir"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/admin"
	"quicprochat/rpc/client"
	"quicprochat/rpc/server"
)

// run makes a user an administrator or moderator.
func (c *grantCommand) run(ctx context.Context, p *process) error {
	role := pb.Role_ADMIN
	if c.Role == "moderator" {
		role = pb.Role_MODERATOR
	}
	return c.adminFlags.session(ctx, p, func(call adminCall) error {
		resp := new(pb.GrantRoleResponse)
		if err := call(&pb.GrantRoleRequest{Username: c.Name, Role: role}, resp); err != nil {
			return err
		}
		return p.tellRole(resp.GetUsername(), role, resp.GetPrevious())
	})
}

// run makes somebody a plain user again.
func (c *revokeCommand) run(ctx context.Context, p *process) error {
	return c.adminFlags.session(ctx, p, func(call adminCall) error {
		resp := new(pb.RevokeRoleResponse)
		if err := call(&pb.RevokeRoleRequest{Username: c.Name}, resp); err != nil {
			return err
		}
		return p.tellRole(resp.GetUsername(), pb.Role_USER, resp.GetPrevious())
	})
}

func (p *process) tellRole(username string, now, before pb.Role) error {
	text := fmt.Sprintf("%s is %s already\n", username, roleName(now))
	if now != before {
		text = fmt.Sprintf("%s is %s now, was %s\n", username, roleName(now), roleName(before))
	}
	_, err := fmt.Fprint(p.stdout, text)
	return err
}

func roleName(role pb.Role) string { return strings.ToLower(role.String()) }

// run lists administrators and moderators, by name.
func (c *listCommand) run(ctx context.Context, p *process) error {
	var entries []*pb.ListRolesResponse_Entry
	err := c.adminFlags.session(ctx, p, func(call adminCall) error {
		for req := new(pb.ListRolesRequest); ; {
			resp := new(pb.ListRolesResponse)
			if err := call(req, resp); err != nil {
				return err
			}
			entries = append(entries, resp.GetEntries()...)
			if req.After = resp.GetNext(); len(req.After) == 0 {
				return nil
			}
		}
	})
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b *pb.ListRolesResponse_Entry) int { return cmp.Compare(a.GetUsername(), b.GetUsername()) })
	if c.JSON {
		return p.printRoles(entries)
	}
	for _, e := range entries {
		if _, err := fmt.Fprintf(p.stdout, "%-10s %s\n", roleName(e.GetRole()), e.GetUsername()); err != nil {
			return err
		}
	}
	return nil
}

// printRoles writes the list for programs.
func (p *process) printRoles(entries []*pb.ListRolesResponse_Entry) error {
	type person struct {
		Username    string `json:"username"`
		Role        string `json:"role"`
		IdentityKey string `json:"identity_key"`
	}
	people := []person{}
	for _, e := range entries {
		people = append(people, person{e.GetUsername(), roleName(e.GetRole()), hex.EncodeToString(e.GetIdentityKey())})
	}
	encoder := json.NewEncoder(p.stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(people)
}

// adminCall sends one request of the admin socket and reads the answer.
type adminCall func(req, resp proto.Message) error

// session runs fn with calls that go through the socket of the running server,
// or to the directory of the stopped one.
func (f *adminFlags) session(ctx context.Context, p *process, fn func(adminCall) error) error {
	path := filepath.Join(f.DataDir, admin.SocketName)
	err := fn(func(req, resp proto.Message) error { return admin.Call(ctx, path, req, resp) })
	if !errors.Is(err, admin.ErrNoServer) {
		return adminError(err)
	}
	stopped, err := server.OpenStopped(ctx, server.Config{Dir: f.DataDir, AcceptTime: f.AcceptTime, Logger: p.logger})
	if errors.Is(err, datadir.ErrLocked) {
		return &coded{exitBusy, fmt.Errorf("a process uses data directory %s, but nobody listens on %s: a server that starts or stops, or another tool; try again (%w)", f.DataDir, path, err)}
	}
	if err != nil {
		return startError(err)
	}
	err = fn(func(req, resp proto.Message) error {
		answer, err := stopped.Admin.Do(ctx, req)
		if err == nil {
			proto.Merge(resp, answer)
		}
		return err
	})
	return errors.Join(adminError(err), startError(stopped.Close()))
}

// adminError gives a refusal its words and exit code.
func adminError(err error) error {
	if err == nil {
		return nil
	}
	var (
		refusal = commands.AsRefusal(err)
		status  *client.StatusError
		answer  pb.Status
		message = err.Error()
	)
	switch {
	case refusal != nil:
		answer, message = refusal.Status, refusal.Message
	case errors.As(err, &status):
		answer, message = status.Status, status.Detail.GetMessage()
	}
	code := exitFailure
	switch answer {
	case pb.Status_BadRequest, pb.Status_NotFound:
		code = exitUsage
	case pb.Status_Unavailable:
		code = exitBusy
	}
	return &coded{code, errors.New(message)}
}
