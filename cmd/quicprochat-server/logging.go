package main

import (
	"io"
	"log/slog"
	"strings"
)

// Levels beyond slog's four, as RUST_LOG names them.
const (
	levelTrace = slog.LevelDebug - 4
	levelOff   = slog.LevelError + 100
)

var levels = map[string]slog.Level{
	"trace": levelTrace, "debug": slog.LevelDebug, "info": slog.LevelInfo,
	"warn": slog.LevelWarn, "warning": slog.LevelWarn, "error": slog.LevelError, "off": levelOff,
}

// newLogger writes text to w at the level of QPC_LOG, else of RUST_LOG, else at
// info. What can't be understood is said, in the log itself.
func newLogger(w io.Writer, env environment) *slog.Logger {
	name := "QPC_LOG"
	if env[name] == "" {
		name = "RUST_LOG"
	}
	level, understood := parseLevel(env[name])
	logger := slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: plainErrors}))
	if !understood {
		logger.Warn("log level not understood, so it is info: use trace, debug, info, warn, error or off",
			slog.String("variable", name), slog.String("value", env[name]))
	}
	return logger
}

// plainErrors writes an error as its text: some libraries' errors would show
// stack traces of a hundred lines.
func plainErrors(_ []string, a slog.Attr) slog.Attr {
	if err, ok := a.Value.Any().(error); ok && err != nil {
		a.Value = slog.StringValue(oneLine(err))
	}
	return a
}

// parseLevel reads a level, or the directives of RUST_LOG ("quinn=warn,debug"):
// of these the last bare level counts, because targets are names of another
// program's parts. Text without any bare level that has bare words is not
// understood.
func parseLevel(text string) (level slog.Level, understood bool) {
	text, _, _ = strings.Cut(text, "/") // RUST_LOG allows a filter after a slash
	found, foreign := false, false
	for directive := range strings.SplitSeq(text, ",") {
		directive = strings.ToLower(strings.TrimSpace(directive))
		if directive == "" || strings.ContainsAny(directive, "=[") {
			continue
		}
		if one, known := levels[directive]; known {
			level, found = one, true
		} else {
			foreign = true
		}
	}
	if !found {
		return slog.LevelInfo, !foreign
	}
	return level, true
}
