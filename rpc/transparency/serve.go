package transparency

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Bounds of a connection. Everything served is small (at most 256 entries), so
// who takes longer is not reading.
const (
	headerTimeout = 5 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = time.Minute
	maxHeader     = 8 << 10
	// maxConnections bounds memory: about 20 KiB each.
	maxConnections = 1024
)

// Server serves a Handler over plain HTTP. What it serves is signed or hashed,
// so TLS adds privacy only: a proxy in front may give it.
type Server struct {
	http *http.Server
	done chan struct{}
}

// Serve serves handler on listener until Shutdown.
func Serve(listener net.Listener, handler http.Handler, logger *slog.Logger) *Server {
	s := &Server{done: make(chan struct{}), http: &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(bounded(listener, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("the log is no longer served over HTTP", slog.Any("error", err))
		}
	}()
	return s
}

// Shutdown stops accepting, lets answers that are on their way finish within
// ctx, and cuts the rest. It returns when nothing of the handler runs any more.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.done
	return err
}

// boundedListener holds back connections beyond a number of open ones.
type boundedListener struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func bounded(l net.Listener, limit int) net.Listener {
	return &boundedListener{Listener: l, slots: make(chan struct{}, limit), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &boundedConn{Conn: conn, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

// Close implements net.Listener.
func (l *boundedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type boundedConn struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
