package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/client"
)

type callCommand struct {
	Method  string `arg:"" help:"Name or id of the method; 'qpc methods' lists them."`
	Request string `arg:"" optional:"" help:"The request message as JSON (bytes in base64); '-' reads it from stdin."`
}

func (callCommand) Help() string {
	return `The session token of this home and a fresh request_id are filled in where the method wants them and the JSON does not set them. The reply is printed as JSON. The exit status is the status that the server answered; its ErrorDetail is printed as JSON on stderr.

  qpc call Health
  qpc call 500 '{"username":"bob"}'
  qpc call Peek '{"include_drained":true}'`
}

// Run calls one method and prints its reply.
func (cmd callCommand) Run(ctx context.Context, a *app) error {
	method, err := findMethod(cmd.Method)
	if err != nil {
		return err
	}
	request, err := cmd.request(a, method)
	if err != nil {
		return err
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := a.useSession(c, method); err != nil {
		return err
	}
	reply := method.NewResponse()
	if err := c.Call(ctx, request, reply); err != nil {
		a.JSON = true // ErrorDetail as JSON
		return err
	}
	return a.printMessage(reply)
}

func findMethod(name string) (*rpc.Method, error) {
	if id, err := strconv.ParseUint(name, 10, 16); err == nil {
		if method, known := rpc.MethodByID(uint16(id)); known {
			return method, nil
		}
	}
	if method, known := rpc.MethodByName(name); known {
		return method, nil
	}
	return nil, usageError("no method %q: 'qpc methods' lists them", name)
}

func (cmd callCommand) request(a *app, method *rpc.Method) (proto.Message, error) {
	text := []byte(cmd.Request)
	if cmd.Request == "-" {
		var err error
		if text, err = io.ReadAll(a.stdin); err != nil {
			return nil, err
		}
	}
	request := method.NewRequest()
	if len(text) == 0 {
		return request, nil
	}
	if err := protojson.Unmarshal(text, request); err != nil {
		return nil, usageError("the request is no %s: %w", method.Input.Descriptor().Name(), err)
	}
	return request, nil
}

// useSession gives the client this home's session, if the method can use one and
// there is one. Without one the server says what is missing.
func (a *app) useSession(c *client.Client, method *rpc.Method) error {
	if method.TokenField == 0 {
		return nil
	}
	h, err := openHome(a.Home)
	if err != nil {
		return err
	}
	s := new(session)
	if err := h.load(sessionFile, s); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	c.SetSession(client.Session{Token: s.Token, Scope: pb.SessionScope_DEVICE})
	return nil
}

// printMessage prints a reply: one line with --json, indented otherwise.
func (a *app) printMessage(m proto.Message) error {
	line, err := marshalLine(m)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if a.JSON {
		out.Write(line)
	} else if err := json.Indent(&out, line, "", "  "); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n", out.Bytes())
	return err
}

// marshalLine writes a message as JSON in one line. protojson varies its spacing
// on purpose, so that is taken out.
func marshalLine(m proto.Message) ([]byte, error) {
	raw, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var line bytes.Buffer
	err = json.Compact(&line, raw)
	return line.Bytes(), err
}
