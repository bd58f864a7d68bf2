package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"

	"quicprochat/commands/datadir"
	"quicprochat/log"
)

// Exit codes, after sysexits.h. They tell a service manager whether starting
// again can help: after 1 and 75 it can, after 64 and 78 it can't.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 64
	exitBusy    = 75
	exitConfig  = 78
	// exitSignal plus the signal's number: ended at once by a second signal.
	exitSignal = 128
)

// exitMeaning is the table of --help and docs/operations.md.
var exitMeaning = []struct {
	code    string
	meaning string
}{
	{"0", "stopped cleanly (SIGTERM, SIGINT)"},
	{"1", "storage or socket failed while serving, or a stop took too long; a restart recovers from the log"},
	{"64", "wrong usage: unknown flag, malformed value, unknown user"},
	{"75", "port or data directory is in use by another process; try again when it is free"},
	{"78", "configuration or data refused: mode, format, name, damage, clock; standard error tells cause and remedy"},
	{"128+n", "ended at once by a second signal n"},
}

// coded is an error that knows its exit code.
type coded struct {
	code int
	err  error
}

func (c *coded) Error() string { return c.err.Error() }
func (c *coded) Unwrap() error { return c.err }

// interrupted ends the process at once, without a word.
type interrupted struct{ signal syscall.Signal }

func (i *interrupted) Error() string { return "interrupted by " + i.signal.String() }

// exitCode says why the program ends, in one sentence, and gives the code.
func exitCode(err error, stderr io.Writer) int {
	var second *interrupted
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &second):
		return exitSignal + int(second.signal)
	}
	fmt.Fprintf(stderr, "quicprochat-server: %s\n", sentence(err))
	var own *coded
	if errors.As(err, &own) {
		return own.code
	}
	return exitFailure
}

// sentence is what is said of an error: one line. Of damage to the log only the
// finding counts, not what else failed because of it.
func sentence(err error) string {
	var (
		file   *log.FileError
		record *log.CorruptError
	)
	switch {
	case errors.As(err, &file):
		err = file
	case errors.As(err, &record):
		err = record
	}
	return oneLine(err)
}

// oneLine is an error's text without line breaks, and without the marks that
// the store's library leaves in its errors.
func oneLine(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n<corruption detail carrier>", "")
	return strings.ReplaceAll(text, "\n", "; ")
}

// startError gives an error of the start its exit code: something that another
// process holds, something that the system could not do, or something that an
// operator has to settle.
func startError(err error) error {
	var (
		pathError *fs.PathError
		errno     syscall.Errno
		refused   *datadir.Refused
	)
	code := exitConfig
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return nil // told to stop while starting
	case errors.Is(err, datadir.ErrLocked), errors.Is(err, log.ErrLocked):
		code = exitBusy
	case errors.As(err, &refused):
	case errors.Is(err, log.ErrCorrupt) && (errors.Is(err, fs.ErrNotExist) || !errors.As(err, &errno)): // not for want of something
	case errors.Is(err, fs.ErrPermission):
	case errors.As(err, &pathError), errors.As(err, &errno):
		code = exitFailure
	}
	return &coded{code, err}
}
