package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"quicprochat/commands"
	"quicprochat/commands/datadir"
	"quicprochat/log"
)

// fakeNode stands in for a running server.
type fakeNode struct {
	failed   chan struct{}
	waitErr  error
	reloads  int
	reload   error
	shutdown func(context.Context) error
}

func newFakeNode() *fakeNode {
	return &fakeNode{failed: make(chan struct{}), shutdown: func(context.Context) error { return nil }}
}

func (f *fakeNode) Failed() <-chan struct{}            { return f.failed }
func (f *fakeNode) Wait() error                        { return f.waitErr }
func (f *fakeNode) Reload() error                      { f.reloads++; return f.reload }
func (f *fakeNode) Shutdown(ctx context.Context) error { return f.shutdown(ctx) }

// attend runs the daemon's main loop on a fake node, sends it the signals in
// turn, and returns exit code, standard error and log. It must be called in a
// synctest bubble.
func attend(ctx context.Context, f *fakeNode, signals ...os.Signal) (code int, stderr, logged string) {
	var log, out bytes.Buffer
	p := &process{logger: slog.New(slog.NewTextHandler(&log, nil))}
	channel := make(chan os.Signal)
	go func() {
		for _, s := range signals {
			channel <- s
			synctest.Wait()
		}
	}()
	code = exitCode(p.attend(ctx, f, channel), &out)
	return code, out.String(), log.String()
}

func TestSignals(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeNode()
			if code, stderr, _ := attend(t.Context(), f, s); code != 0 || stderr != "" {
				t.Errorf("%v: code %d, %q", s, code, stderr)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNode()
		code, _, logged := attend(t.Context(), f, syscall.SIGHUP, syscall.SIGHUP, syscall.SIGTERM)
		if code != 0 || f.reloads != 2 || strings.Contains(logged, "ERROR") {
			t.Errorf("code %d after %d reloads: %s", code, f.reloads, logged)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNode()
		f.reload = errors.New("no such certificate")
		code, _, logged := attend(t.Context(), f, syscall.SIGHUP, syscall.SIGTERM)
		if code != 0 || !strings.Contains(logged, "no such certificate") || !strings.Contains(logged, "stays") {
			t.Errorf("code %d: %s", code, logged)
		}
	})
}

func TestEndOfContextStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		stopped := false
		f := newFakeNode()
		f.shutdown = func(context.Context) error { stopped = true; return nil }
		if code, stderr, _ := attend(ctx, f); code != 0 || stderr != "" || !stopped {
			t.Errorf("code %d, %q, stopped %v", code, stderr, stopped)
		}
	})
}

// TestSecondSignal: the first one is polite, the second one is not.
func TestSecondSignal(t *testing.T) {
	for first, second := range map[syscall.Signal]syscall.Signal{syscall.SIGTERM: syscall.SIGINT, syscall.SIGINT: syscall.SIGTERM} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			f := newFakeNode()
			f.shutdown = func(context.Context) error { <-release; return nil }
			begin := time.Now()
			code, stderr, _ := attend(t.Context(), f, first, syscall.SIGHUP, second)
			if code != 128+int(second) || stderr != "" {
				t.Errorf("%v then %v: code %d, %q", first, second, code, stderr)
			}
			if time.Since(begin) != 0 {
				t.Errorf("the second signal took %v", time.Since(begin))
			}
			close(release)
		})
	}
}

// TestStopIsBounded: whatever hangs, the process ends, and says that no message
// is lost.
func TestStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := newFakeNode()
		f.shutdown = func(context.Context) error { <-release; return nil }
		begin := time.Now()
		code, stderr, _ := attend(t.Context(), f, syscall.SIGTERM)
		if code != exitFailure || !strings.Contains(stderr, "every acknowledged message is in the log") {
			t.Errorf("code %d, %q", code, stderr)
		}
		if took := time.Since(begin); took != shutdownTime+closeTime {
			t.Errorf("it took %v", took)
		}
		close(release)
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNode()
		f.shutdown = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		code, stderr, _ := attend(t.Context(), f, syscall.SIGTERM)
		if code != exitFailure || !strings.Contains(stderr, "took longer than 15s") {
			t.Errorf("code %d, %q", code, stderr)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNode()
		f.shutdown = func(ctx context.Context) error { return errors.New("disk on fire") }
		code, stderr, _ := attend(t.Context(), f, syscall.SIGTERM)
		if code != exitFailure || !strings.Contains(stderr, "disk on fire") {
			t.Errorf("code %d, %q", code, stderr)
		}
	})
}

func TestFailedNode(t *testing.T) {
	for _, cause := range []error{errors.New("a write to the log failed: restart"), nil} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeNode()
			f.waitErr = cause
			close(f.failed)
			code, stderr, _ := attend(t.Context(), f)
			if code != exitFailure || (cause != nil && !strings.Contains(stderr, cause.Error())) || !strings.Contains(stderr, "start") {
				t.Errorf("code %d, %q", code, stderr)
			}
		})
	}
}

// TestStartErrors: which errors of a start are whose business.
func TestStartErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{context.Canceled, exitOK},
		{&datadir.Refused{Kind: datadir.ErrLocked}, exitBusy},
		{log.ErrLocked, exitBusy},
		{&datadir.Refused{Kind: datadir.ErrFormat}, exitConfig},
		{&datadir.Refused{Kind: datadir.ErrServerName}, exitConfig},
		{&datadir.Refused{Kind: datadir.ErrMode}, exitConfig},
		{&datadir.Refused{Kind: datadir.ErrDamaged, Err: &fs.PathError{Op: "open", Err: fs.ErrNotExist}}, exitConfig},
		{&log.AnchorError{Kind: log.ErrShorterThanAnchor}, exitConfig},
		{&log.CorruptError{Index: 7, Cause: errors.New("checksum")}, exitConfig},
		{&log.FileError{Path: "data/log/000005.sst", Cause: errors.New("checksum")}, exitConfig},
		{&log.FileError{Path: "data/log/000005.sst", Cause: &fs.PathError{Op: "open", Err: syscall.ENOENT}}, exitConfig},
		{&log.FileError{Path: "data/log/000005.sst", Cause: &fs.PathError{Op: "read", Err: syscall.EIO}}, exitFailure},
		{&commands.ClockError{}, exitConfig},
		{errors.New("certificate does not fit: give another one"), exitConfig},
		{&fs.PathError{Op: "mkdir", Path: "data", Err: syscall.EACCES}, exitConfig},
		{&fs.PathError{Op: "write", Path: "data", Err: syscall.ENOSPC}, exitFailure},
		{syscall.EIO, exitFailure},
	} {
		if code := exitCode(startError(c.err), new(bytes.Buffer)); code != c.code {
			t.Errorf("%T %v: code %d, want %d", c.err, c.err, code, c.code)
		}
	}
}

// Of a damaged log one sentence is told, with the file where it is known.
func TestDamageIsOneSentence(t *testing.T) {
	record := &log.CorruptError{Index: 7, Cause: errors.New("checksum\n<corruption detail carrier>")}
	file := &log.FileError{Path: "data/log/000005.sst", Cause: errors.New("block 1/2: checksum\n<corruption detail carrier>")}
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.Join(record, errors.New("close: failed")), "log is damaged at index 7 (checksum): restore the data directory from a backup"},
		{errors.Join(record, fmt.Errorf("%w: %w", log.ErrFailed, file)), "the log's file data/log/000005.sst is damaged (block 1/2: checksum): restore the data directory from a backup"},
	} {
		if got := sentence(c.err); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
