package server_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/server"
)

// TestShutdown stops a node with a waiting call, connections in both states and
// a message on its way.
func TestShutdown(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	stranger := w.dial()
	must[*pb.EnqueueResponse](a, alice.enqueue(bob, []byte("before")))
	waiting := a.begin(waitFor(alice, 60_000))
	waiting.waiting(w, 1)
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		done <- w.node.Shutdown(ctx)
	}()
	if r := waiting.get(); r.status != pb.Status_Unavailable || r.detail.GetReason() != pb.Reason_STOPPING {
		t.Errorf("waiting call: %v %v", r.status, r.detail)
	}
	if err := <-done; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if err := w.node.Wait(); err != nil {
		t.Errorf("wait: %v", err)
	}
	for _, c := range []*conn{a, b, stranger} {
		wantClosed(t, c, rpc.CodeShutdown)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := quic.DialAddr(ctx, w.node.Addr().String(), w.tlsConfig(), nil); err == nil {
		t.Error("a connection was accepted after the end")
	}
	w.start(nil)
	c := w.dial()
	page := must[*pb.FetchResponse](c, &pb.FetchRequest{SessionToken: bob.token})
	if len(page.GetEnvelopes()) != 1 || string(page.GetEnvelopes()[0].GetPayload()) != "before" {
		t.Errorf("after the restart: %v", page)
	}
}

// TestRequestsUnderWayAreAnswered: each Enqueue of a stopping server is either
// refused or in the queue after the restart.
func TestRequestsUnderWayAreAnswered(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	bob, _ := w.join("bob")
	must[*pb.PeekResponse](a, &pb.PeekRequest{SessionToken: alice.token})
	var calls []*pendingCall
	for range 60 {
		calls = append(calls, a.begin(alice.enqueue(bob, []byte("x"))))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.node.Shutdown(ctx); err != nil {
		t.Fatalf("shutdown: %v", err)
	}
	acknowledged := 0
	for _, call := range calls {
		select {
		case r := <-call.reply:
			switch {
			case r.status == pb.Status_Ok:
				acknowledged++
			case r.status != pb.Status_Unavailable:
				t.Errorf("got %v %v", r.status, r.detail)
			}
		case err := <-call.err:
			var closed *quic.ApplicationError
			if !errors.As(err, &closed) || closed.ErrorCode != rpc.CodeShutdown {
				t.Errorf("ended with %v", err)
			}
		}
	}
	w.start(nil)
	page := must[*pb.FetchResponse](w.dial(), &pb.FetchRequest{SessionToken: bob.token})
	if stored := len(page.GetEnvelopes()); stored < acknowledged {
		t.Errorf("%d acknowledged, %d stored", acknowledged, stored)
	}
}

// TestFailedStarts: what is refused leaves nothing running (goleak) and says
// why.
func TestFailedStarts(t *testing.T) {
	tests := []struct {
		name   string
		change func(*server.Config)
	}{
		{"limits of another name", func(c *server.Config) { c.Limits = "some" }},
		{"no data directory", func(c *server.Config) { c.Dir = "" }},
		{"only a certificate", func(c *server.Config) { c.TLSCert = "/data/x.der" }},
		{"must not create", func(c *server.Config) { c.NoCreate = true }},
		{"server name that is none", func(c *server.Config) { c.ServerName = "UPPER case" }},
		{"a context that has ended", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := &world{t: t}
			c := server.Config{FS: newFS(), Dir: "/data", PacketConn: loopback(t), ServerName: serverName}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if test.change == nil {
				cancel()
			} else {
				test.change(&c)
			}
			node, err := server.Boot(ctx, c)
			if err == nil {
				w.node = node
				w.stop()
				if test.change != nil {
					t.Error("it started")
				}
			} else if err.Error() == "" {
				t.Error("no word of why")
			}
		})
	}
}
