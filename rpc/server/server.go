package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// server is the endpoint: it has connections and reads requests from before
// the service behind it is ready until after it stopped.
type server struct {
	name      string // server name
	version   string
	unlimited bool // LimitsOff
	logger    *slog.Logger
	metrics   *metrics
	started   time.Time

	census   *census
	buckets  *buckets
	pool     *pool[request]
	listener *listener
	// service is nil until the engine has caught up.
	service atomic.Pointer[service]
	// deadline is shared by the requests of about a second.
	deadline atomic.Pointer[sharedDeadline]
	numbers  atomic.Uint64 // of connections

	gate     sync.RWMutex // stopping, and that no request begins after it
	stopping bool
	inflight sync.WaitGroup // requests and waits

	mu          sync.Mutex
	connections map[*connection]struct{}
	accepting   sync.WaitGroup // goroutines of the listener and connections
	sweep       context.CancelFunc
}

func newServer(c Config, name string, m *metrics) *server {
	s := &server{
		name: name, version: c.Version, unlimited: c.Limits == LimitsOff, logger: c.Logger, metrics: m,
		started: time.Now(), census: newCensus(c.Limits == LimitsOff), buckets: newBuckets(),
		connections: make(map[*connection]struct{}),
	}
	s.pool = newPool(maxWorkers, s.handle)
	return s
}

// elapsed is monotonic time.
func (s *server) elapsed() time.Duration { return time.Since(s.started) }

// accept takes connections until the listener is closed.
func (s *server) accept() {
	ctx, cancel := context.WithCancel(context.Background())
	s.sweep = cancel
	s.accepting.Go(func() { s.sweepStrangers(ctx) })
	s.accepting.Go(func() {
		for {
			conn, err := s.listener.quic.Accept(context.Background())
			if err != nil {
				if !errors.Is(err, quic.ErrServerClosed) {
					s.logger.Error("no more connections are accepted", slog.Any("error", err))
				}
				return
			}
			s.welcome(conn)
		}
	})
}

// welcome starts serving one connection.
func (s *server) welcome(conn *quic.Conn) {
	c := &connection{server: s, quic: conn, id: s.numbers.Add(1), admission: admissionOf(conn.Context())}
	c.used.Store(int64(s.elapsed()))
	s.mu.Lock()
	s.connections[c] = struct{}{}
	s.mu.Unlock()
	s.metrics.connections.Inc()
	s.accepting.Go(func() { c.serve(context.Background()) })
}

// forget is called when a connection has ended.
func (s *server) forget(c *connection) {
	s.mu.Lock()
	delete(s.connections, c)
	s.mu.Unlock()
	s.metrics.connections.Dec()
}

// sweepStrangers closes connections that have no session and make no requests:
// PINGs alone must not hold memory.
func (s *server) sweepStrangers(ctx context.Context) {
	tick := time.NewTicker(strangerTimeout / 8)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, c := range s.idleStrangers() {
				c.quic.CloseWithError(rpc.CodeLimit, "no request and no session")
			}
		}
	}
}

func (s *server) idleStrangers() []*connection {
	now := s.elapsed()
	s.mu.Lock()
	defer s.mu.Unlock()
	var idle []*connection
	for c := range s.connections {
		if c.bound.Load() == nil && now-time.Duration(c.used.Load()) > strangerTimeout {
			idle = append(idle, c)
		}
	}
	return idle
}

var (
	errStarting = &commands.Refusal{Status: pb.Status_Unavailable, Reason: pb.Reason_STARTING, Message: "the server is starting: try again soon", RetryAfterMS: 1000}
	errStopping = &commands.Refusal{Status: pb.Status_Unavailable, Reason: pb.Reason_STOPPING, Message: "the server is stopping: connect again", RetryAfterMS: 1000}
)

// begin notes a request that is about to be served; it refuses while the
// server starts or stops. end must follow where it does not.
func (s *server) begin() (*service, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.stopping {
		return nil, errStopping
	}
	service := s.service.Load()
	if service == nil {
		return nil, errStarting
	}
	s.inflight.Add(1)
	return service, nil
}

func (s *server) end() { s.inflight.Done() }

// stop refuses new connections and requests, lets what runs finish within ctx,
// and closes everything with code 0. It returns ctx's error when something had
// to be cut off.
func (s *server) stop(ctx context.Context) error {
	s.gate.Lock()
	s.stopping = true
	s.gate.Unlock()
	// Connections that are established live on until what runs is finished.
	s.listener.quic.Close()
	if service := s.service.Load(); service != nil {
		service.hub.StopWaiting()
	}
	finished := make(chan struct{})
	go func() { s.inflight.Wait(); close(finished) }()
	var err error
	select {
	case <-finished:
		s.letAnswersGo(ctx)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.disconnect()
	<-finished
	s.endDeadlines()
	return err
}

// answersLinger is how long connections stay open after the last answer was
// queued: a CONNECTION_CLOSE would overtake data that was not sent yet.
const answersLinger = 50 * time.Millisecond

func (s *server) letAnswersGo(ctx context.Context) {
	linger := time.NewTimer(answersLinger)
	defer linger.Stop()
	select {
	case <-linger.C:
	case <-ctx.Done():
	}
}

// disconnect closes all connections and the socket.
func (s *server) disconnect() {
	s.mu.Lock()
	open := make([]*connection, 0, len(s.connections))
	for c := range s.connections {
		open = append(open, c)
	}
	s.mu.Unlock()
	for _, c := range open {
		c.quic.CloseWithError(rpc.CodeShutdown, "the server stops")
	}
	s.sweep()
	if err := s.listener.close(); err != nil {
		s.logger.Warn("listener closed with an error", slog.Any("error", err))
	}
	s.accepting.Wait()
	s.pool.close()
}
