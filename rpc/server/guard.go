package server

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
)

// trustBound is how long a bound connection's session is believed without
// looking it up again. A session that ends closes its connections at once, and
// the engine checks each mutation itself, so only expiry is seen so much later.
const trustBound = time.Second

// serve guards a call and runs its handler. A panic is this call's fault only.
func (c *call) serve() (resp proto.Message, err error) {
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, fmt.Errorf("panic: %v", p)
			c.server.logger.Error("handler panicked", slog.String("method", c.method.Name),
				slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		}
	}()
	defer c.closeView()
	h := c.service.handlers[c.method.ID]
	if err := c.identify(h.view); err != nil {
		return nil, err
	}
	if err := c.spend(); err != nil {
		return nil, err
	}
	return h.serve(c.server.requestContext(), c)
}

// identify finds out who calls, as an early refusal on the published view, and
// binds the connection to the device of a device session.
func (c *call) identify(withView bool) error {
	level := c.method.Rule.Auth
	if level == pb.Auth_NONE && !withView {
		return nil
	}
	conn := c.request.connection
	c.token = commands.TokenHash(c.message)
	if b := conn.bound.Load(); !withView && b != nil && level == pb.Auth_SESSION &&
		b.caller.Session == c.token && c.server.elapsed()-b.checked < trustBound {
		c.caller = b.caller
		return nil
	}
	if err := c.refreshView(); err != nil {
		return err
	}
	c.caller = c.view.Caller
	if !c.caller.Known() || level == pb.Auth_OPTIONAL {
		return nil // 101: also for another account than the connection's
	}
	if !c.caller.IsDevice() {
		return conn.checkBound(c.caller)
	}
	fresh, err := conn.bind(c.caller, c.service)
	if err != nil || !fresh {
		return err
	}
	// The session may have ended before the hub knew of this connection.
	if err := c.refreshView(); err != nil {
		conn.SessionEnded()
		return err
	}
	return nil
}

// refreshView takes the newest published view, with the caller found in it.
func (c *call) refreshView() error {
	c.closeView()
	v, err := c.service.engine.Query(c.token, c.method.Rule.Auth)
	if err != nil {
		return err
	}
	c.view = v
	return nil
}

func (c *call) closeView() {
	if c.view != nil {
		c.view.Release()
		c.view = nil
	}
}
