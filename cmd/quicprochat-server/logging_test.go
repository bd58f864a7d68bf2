package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestParseLevel(t *testing.T) {
	for _, c := range []struct {
		text       string
		level      slog.Level
		understood bool
	}{
		{"", slog.LevelInfo, true},
		{"info", slog.LevelInfo, true},
		{"DEBUG", slog.LevelDebug, true},
		{"warn", slog.LevelWarn, true},
		{"warning", slog.LevelWarn, true},
		{"error", slog.LevelError, true},
		{"trace", levelTrace, true},
		{"off", levelOff, true},
		{" debug ", slog.LevelDebug, true},
		// Directives: targets are another program's, the last bare level counts.
		{"quicprochat=trace,warn", slog.LevelWarn, true},
		{"warn,quicprochat=trace", slog.LevelWarn, true},
		{"debug,quinn=warn,error", slog.LevelError, true},
		{"quicprochat_server=debug", slog.LevelInfo, true},
		{"[span{field=1}]=debug,warn", slog.LevelWarn, true},
		{"debug/regex", slog.LevelDebug, true},
		{"quicprochat,debug", slog.LevelDebug, true},
		{"loud", slog.LevelInfo, false},
		{"quicprochat,hyper=info", slog.LevelInfo, false},
		{"7", slog.LevelInfo, false},
	} {
		level, understood := parseLevel(c.text)
		if level != c.level || understood != c.understood {
			t.Errorf("%q: level %v, understood %v; want %v, %v", c.text, level, understood, c.level, c.understood)
		}
	}
}

func TestLoggerLevels(t *testing.T) {
	for _, c := range []struct {
		env     []string
		debug   bool
		info    bool
		warning bool // that the level was not understood
	}{
		{nil, false, true, false},
		{[]string{"QPC_LOG=debug"}, true, true, false},
		{[]string{"RUST_LOG=debug"}, true, true, false},
		{[]string{"QPC_LOG=warn", "RUST_LOG=debug"}, false, false, false},
		{[]string{"QPC_LOG=", "RUST_LOG=debug"}, true, true, false},
		{[]string{"QPC_LOG=loud", "RUST_LOG=debug"}, false, true, true},
		{[]string{"RUST_LOG=everything"}, false, true, true},
		{[]string{"QPC_LOG=off"}, false, false, false},
	} {
		var out bytes.Buffer
		logger := newLogger(&out, newEnvironment(c.env))
		if got := strings.Contains(out.String(), "level=WARN") && strings.Contains(out.String(), "not understood"); got != c.warning {
			t.Errorf("%v: warned %v: %s", c.env, got, out.String())
		}
		logger.Debug("a debug line")
		logger.Info("an info line")
		if got := strings.Contains(out.String(), "a debug line"); got != c.debug {
			t.Errorf("%v: debug written: %v", c.env, got)
		}
		if got := strings.Contains(out.String(), "an info line"); got != c.info {
			t.Errorf("%v: info written: %v", c.env, got)
		}
	}
}

// TestErrorsAreOneLine: an error with a long form is logged in its short one.
func TestErrorsAreOneLine(t *testing.T) {
	var out bytes.Buffer
	logger := newLogger(&out, nil)
	logger.Error("failed", slog.Any("error", talkative{}), slog.Any("none", nil), slog.Any("joined", errors.Join(talkative{}, talkative{})))
	if n := strings.Count(out.String(), "\n"); n != 1 || strings.Contains(out.String(), "stack") {
		t.Errorf("logged as %q", out.String())
	}
	if !strings.Contains(out.String(), "error=short ") || !strings.Contains(out.String(), `joined="short; short"`) {
		t.Errorf("logged as %q", out.String())
	}
}

// talkative is an error with a long form, as those of the store's library.
type talkative struct{}

func (talkative) Error() string { return "short" }

func (talkative) Format(f fmt.State, verb rune) {
	if f.Flag('+') {
		fmt.Fprint(f, "short, and the whole\nstack")
		return
	}
	fmt.Fprint(f, "short")
}

func FuzzParseLevel(f *testing.F) {
	for _, seed := range []string{"info", "a=b,c", ",,,", "/x", "[=,debug", "OFF"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		level, understood := parseLevel(text)
		if !understood && level != slog.LevelInfo {
			t.Errorf("%q was not understood, but gives %v", text, level)
		}
	})
}
