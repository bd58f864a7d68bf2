package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"quicprochat/kt"
)

// source is where an auditor reads a log: a server over QUIC, or anybody who
// serves its public files over HTTP.
type source interface {
	// checkpoint gives the newest note as it was received; nothing is checked.
	checkpoint(ctx context.Context) ([]byte, error)
	// resource gives a tile, entry bundle or delta, unchecked. A resource that the
	// server does not have is errMissing.
	resource(ctx context.Context, p kt.TilePath) ([]byte, error)
	// String names the source in reports.
	String() string
	close() error
}

var (
	// errMissing: the server says that it does not have this. When its own
	// checkpoint covers it, that is no accident.
	errMissing = errors.New("the server does not have it")
	// errTooLong: what is served is longer than such a thing can be.
	errTooLong = errors.New("it is too long")
)

// unreachableError is an error of the way to the server, which says nothing
// about the log.
type unreachableError struct{ err error }

func (e *unreachableError) Error() string { return "not reachable: " + e.err.Error() }
func (e *unreachableError) Unwrap() error { return e.err }

const (
	// fetchTime bounds one try of one resource.
	fetchTime = 20 * time.Second
	// fetchTries is how often a resource is asked for.
	fetchTries = 4
)

// httpSource reads C2SP tlog-tiles.
type httpSource struct {
	base   string
	client *http.Client
}

func newHTTPSource(base string) (*httpSource, error) {
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, usageError("--url %q is no URL of a log: give http://host:port or https://host/prefix", base)
	}
	return &httpSource{
		base:   strings.TrimRight(base, "/") + "/",
		client: &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: fetchers, IdleConnTimeout: time.Minute}},
	}, nil
}

func (s *httpSource) String() string { return s.base }

func (s *httpSource) close() error {
	s.client.CloseIdleConnections()
	return nil
}

func (s *httpSource) checkpoint(ctx context.Context) ([]byte, error) {
	return s.get(ctx, "checkpoint", kt.MaxNoteSize)
}

func (s *httpSource) resource(ctx context.Context, p kt.TilePath) ([]byte, error) {
	return s.get(ctx, p.String(), int64(p.MaxSize()))
}

// get asks for a path until there is an answer that stays.
func (s *httpSource) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	wait := 200 * time.Millisecond
	for try := 1; ; try++ {
		body, again, err := s.try(ctx, path, limit)
		if err == nil || !again || try == fetchTries || ctx.Err() != nil {
			return body, err
		}
		select {
		case <-time.After(wait):
			wait *= 3
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *httpSource) try(ctx context.Context, path string, limit int64) (body []byte, again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path, nil)
	if err != nil {
		return nil, false, err
	}
	request.Header.Set("User-Agent", "qpc-audit")
	if ctx.Value(pastCaches{}) != nil {
		request.Header.Set("Cache-Control", "no-cache")
	}
	answer, err := s.client.Do(request)
	if err != nil {
		return nil, true, &unreachableError{err}
	}
	defer answer.Body.Close()
	switch {
	case answer.StatusCode == http.StatusNotFound:
		return nil, false, fmt.Errorf("%s: %w", path, errMissing)
	case answer.StatusCode != http.StatusOK:
		return nil, answer.StatusCode >= 500 || answer.StatusCode == http.StatusTooManyRequests,
			&unreachableError{fmt.Errorf("%s: the server answers %s", path, answer.Status)}
	}
	body, err = io.ReadAll(io.LimitReader(answer.Body, limit+1))
	if err != nil {
		return nil, true, &unreachableError{err}
	}
	if int64(len(body)) > limit {
		return nil, false, fmt.Errorf("%s has more than %d bytes: %w", path, limit, errTooLong)
	}
	return body, false, nil
}
