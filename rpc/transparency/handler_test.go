package transparency

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// get asks a handler without a network.
func get(h http.Handler, method, path string) *httptest.ResponseRecorder {
	recorded := httptest.NewRecorder()
	h.ServeHTTP(recorded, httptest.NewRequest(method, path, nil))
	return recorded
}

func TestHandlerServesTheLog(t *testing.T) {
	l := newTestLog(t)
	l.grow(70_000)
	source := l.source()
	source.Log = l.log
	h := NewHandler(source)
	l.grow(71_000) // beyond what is published

	tile := func(level int, n uint64, width int) []byte {
		b, err := l.log.Tile(level, n, width)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	bundle := func(n uint64, width int) []byte {
		b, err := l.log.EntryBundle(n, width)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for path, want := range map[string][]byte{
		"/tile/0/000":             tile(0, 0, 256),
		"/tile/0/000.p/7":         tile(0, 0, 7),
		"/tile/0/273.p/112":       tile(0, 273, 112),
		"/tile/1/000":             tile(1, 0, 256),
		"/tile/1/001.p/17":        tile(1, 1, 17),
		"/tile/2/000.p/1":         tile(2, 0, 1),
		"/tile/entries/000":       bundle(0, 256),
		"/tile/entries/272":       bundle(272, 256),
		"/tile/entries/273.p/112": bundle(273, 112),
		"/kt/delta/000":           {0, 0}, // 256 as a byte
		"/kt/delta/001.p/44":      {1, 44},
	} {
		got := get(h, http.MethodGet, path)
		if got.Code != http.StatusOK || !bytes.Equal(got.Body.Bytes(), want) {
			t.Errorf("%s: %d with %d bytes, want %d", path, got.Code, got.Body.Len(), len(want))
		}
		if c := got.Header().Get("Cache-Control"); !strings.Contains(c, "immutable") {
			t.Errorf("%s: Cache-Control %q", path, c)
		}
	}
	// Above the published checkpoint, malformed, or no resource at all.
	for _, path := range []string{
		"/tile/0/273.p/113", "/tile/0/273", "/tile/0/274.p/1", "/tile/entries/273.p/113", "/tile/1/001.p/18", "/tile/2/000.p/2", "/tile/3/000.p/1",
		"/kt/delta/001.p/45", "/kt/delta/001", "/kt/delta/002.p/1", "/tile/0/x018/x446/x744/x073/x709/x551/615",
		"/tile/0/0", "/tile/8/000", "/", "/checkpoint/", "/log", "/tile/0/" + strings.Repeat("x000/", 100) + "000",
	} {
		got := get(h, http.MethodGet, path)
		if got.Code != http.StatusNotFound || got.Header().Get("Cache-Control") != cacheNever {
			t.Errorf("%s: %d, %s", path, got.Code, got.Header())
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		if got := get(h, method, "/checkpoint"); got.Code != http.StatusMethodNotAllowed || got.Header().Get("Allow") == "" {
			t.Errorf("%s: %d", method, got.Code)
		}
	}
}

func TestCheckpointIsNotCached(t *testing.T) {
	l := newTestLog(t)
	source := l.source()
	got := get(NewHandler(source), http.MethodGet, "/checkpoint")
	if got.Code != http.StatusOK || !bytes.Equal(got.Body.Bytes(), l.note()) {
		t.Errorf("%d %q", got.Code, got.Body)
	}
	if h := got.Header(); h.Get("Cache-Control") != "no-cache" || h.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("header: %v", h)
	}
	source.Published = func() Published { return Published{} }
	h := NewHandler(source)
	if got := get(h, http.MethodGet, "/checkpoint"); got.Code != http.StatusServiceUnavailable {
		t.Errorf("before the first checkpoint: %d", got.Code)
	}
	source.Published = func() Published { return Published{Stopped: true} }
	if got := get(NewHandler(source), http.MethodGet, "/checkpoint"); got.Code != http.StatusServiceUnavailable ||
		got.Header().Get("Retry-After") != "" || !strings.Contains(got.Body.String(), "signs no checkpoints") {
		t.Errorf("when nothing is signed any more: %d %v %s", got.Code, got.Header(), got.Body)
	}
	if got := get(h, http.MethodGet, "/tile/0/000.p/1"); got.Code != http.StatusNotFound {
		t.Errorf("a tile before the first checkpoint: %d", got.Code)
	}
}

// TestOverHTTP: HEAD, keep-alive and an unreadable log, over a real connection.
func TestOverHTTP(t *testing.T) {
	l := newTestLog(t)
	l.grow(600)
	source := l.source()
	source.Delta = func(uint64, int) ([]byte, error) { return nil, errors.New("secret cause") }
	url := serve(t, NewHandler(source))
	head, err := http.Head(url + "tile/0/000")
	if err != nil {
		t.Fatal(err)
	}
	head.Body.Close()
	if head.StatusCode != http.StatusOK || head.ContentLength != 256*32 {
		t.Errorf("HEAD: %d, %d bytes", head.StatusCode, head.ContentLength)
	}
	damaged, err := http.Get(url + "kt/delta/000")
	if err != nil {
		t.Fatal(err)
	}
	defer damaged.Body.Close()
	said, err := io.ReadAll(damaged.Body)
	if err != nil || damaged.StatusCode != http.StatusInternalServerError || strings.Contains(string(said), "secret") {
		t.Errorf("unreadable: %d %q %v", damaged.StatusCode, said, err)
	}
	if c := damaged.Header.Get("Cache-Control"); c != cacheNever {
		t.Errorf("an error with Cache-Control %q", c)
	}
}

// TestBusyHandler: few deltas are made at a time, which holds up nobody else; who
// waits in vain is told to come again.
func TestBusyHandler(t *testing.T) {
	l := newTestLog(t)
	l.grow(300)
	source := l.source()
	reading, release := make(chan struct{}), make(chan struct{})
	source.Delta = func(uint64, int) ([]byte, error) { reading <- struct{}{}; <-release; return nil, nil }
	h := NewHandler(source)
	done := make(chan int)
	for range maxDeltas {
		go func() { done <- get(h, http.MethodGet, "/kt/delta/000.p/1").Code }()
		<-reading
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	got := httptest.NewRecorder()
	h.ServeHTTP(got, httptest.NewRequest(http.MethodGet, "/kt/delta/000.p/1", nil).WithContext(gone))
	if got.Code != http.StatusServiceUnavailable || got.Header().Get("Retry-After") == "" || got.Header().Get("Cache-Control") != cacheNever {
		t.Errorf("one delta too many: %d %v", got.Code, got.Header())
	}
	for _, path := range []string{"/checkpoint", "/tile/0/000", "/tile/entries/000"} {
		if got := get(h, http.MethodGet, path); got.Code != http.StatusOK {
			t.Errorf("%s while deltas are made: %d", path, got.Code)
		}
	}
	close(release)
	for range maxDeltas {
		if code := <-done; code != http.StatusOK {
			t.Errorf("a request that had a slot: %d", code)
		}
	}
	go func() { <-reading }()
	if got := get(h, http.MethodGet, "/kt/delta/000.p/1"); got.Code != http.StatusOK {
		t.Errorf("slots free again: %d", got.Code)
	}
}

// stuck is a reader who does not read.
type stuck struct {
	http.ResponseWriter
	writing, release chan struct{}
}

func (s stuck) Write(b []byte) (int, error) {
	s.writing <- struct{}{}
	<-s.release
	return len(b), nil
}

// TestSlowReaders: who does not take the answer keeps nobody from the log.
func TestSlowReaders(t *testing.T) {
	l := newTestLog(t)
	l.grow(300)
	h := NewHandler(l.source())
	writing, release, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	for range maxInFlight + 1 {
		go func() {
			h.ServeHTTP(stuck{httptest.NewRecorder(), writing, release}, httptest.NewRequest(http.MethodGet, "/tile/0/000", nil))
			done <- struct{}{}
		}()
		<-writing
	}
	if got := get(h, http.MethodGet, "/tile/0/000"); got.Code != http.StatusOK {
		t.Errorf("with %d slow readers: %d", maxInFlight+1, got.Code)
	}
	close(release)
	for range maxInFlight + 1 {
		<-done
	}
}

// TestBoundedConnections: a connection beyond the limit waits until another one
// is closed, and the end of the listener ends the waiting.
func TestBoundedConnections(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := bounded(inner, 2)
	accepted := make(chan net.Conn)
	ended := make(chan error)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	var clients []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	first, second := <-accepted, <-accepted
	select {
	case <-accepted:
		t.Fatal("a third connection was accepted")
	case <-time.After(20 * time.Millisecond):
	}
	first.Close()
	first.Close() // a second time frees nothing more
	third := <-accepted
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("end of the listener: %v", err)
	}
	for _, c := range append(clients, second, third) {
		c.Close()
	}
}

// TestShutdown lets an answer that is on its way finish, and cuts one that does
// not come to an end.
func TestShutdown(t *testing.T) {
	for name, finishes := range map[string]bool{"finishes": true, "hangs": false} {
		t.Run(name, func(t *testing.T) {
			reading, release := make(chan struct{}), make(chan struct{})
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(reading)
				select {
				case <-release:
				case <-r.Context().Done():
				}
			})
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := Serve(listener, h, slog.New(slog.DiscardHandler))
			got := make(chan error)
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			go func() {
				answer, err := client.Get("http://" + listener.Addr().String())
				if err == nil {
					answer.Body.Close()
				}
				got <- err
			}()
			<-reading
			wait := 20 * time.Millisecond
			if finishes {
				wait = time.Minute
				time.AfterFunc(10*time.Millisecond, func() { close(release) })
			}
			ctx, cancel := contextWithTimeout(wait)
			defer cancel()
			if err := s.Shutdown(ctx); (err == nil) != finishes {
				t.Errorf("shutdown: %v", err)
			}
			if err := <-got; (err == nil) != finishes {
				t.Errorf("the request: %v", err)
			}
		})
	}
}
