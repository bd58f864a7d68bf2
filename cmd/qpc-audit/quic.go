package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// quicSource reads the log through the server's own port (method 520).
type quicSource struct {
	client  *client.Client
	address string
}

func (s *quicSource) String() string { return "quic://" + s.address }

func (s *quicSource) close() error { return s.client.Close() }

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
	for begin := time.Now(); ; {
		body, err := s.client.LogResource(ctx, path)
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
