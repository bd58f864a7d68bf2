package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// quicSource reads the log through the server's own port (method 520).
// It connects when it is first asked, so that an auditor can be there before the
// server is.
type quicSource struct {
	dial    dialer
	address string

	mu     sync.Mutex
	client *client.Client
}

func (s *quicSource) String() string { return "quic://" + s.address }

func (s *quicSource) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		return nil
	}
	return s.client.Close()
}

// connect connects once; the client does so again by itself.
func (s *quicSource) connect(ctx context.Context) (*client.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.client == nil {
		s.client, err = s.dial(ctx)
	}
	return s.client, err
}

func (s *quicSource) checkpoint(ctx context.Context) ([]byte, error) {
	return s.read(ctx, "checkpoint")
}

func (s *quicSource) resource(ctx context.Context, p kt.TilePath) ([]byte, error) {
	return s.read(ctx, p.String())
}

// limitPatience is how long a server's rate limit is waited for: it lets a
// stranger read some resources a second.
const limitPatience = 10 * time.Minute

func (s *quicSource) read(ctx context.Context, path string) ([]byte, error) {
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	for begin := time.Now(); ; {
		body, err := c.LogResource(ctx, path)
		var refused *client.StatusError
		switch {
		case err == nil:
			return body, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case client.ReasonOf(err) == pb.Reason_NO_SUCH_ENTRY:
			return nil, fmt.Errorf("%s: %w", path, errMissing)
		case !errors.As(err, &refused) || refused.Status != pb.Status_RateLimited || time.Since(begin) > limitPatience:
			return nil, &unreachableError{err}
		}
		wait := max(time.Duration(refused.Detail.GetRetryAfterMs())*time.Millisecond, 100*time.Millisecond)
		select {
		case <-time.After(min(wait, time.Minute)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
