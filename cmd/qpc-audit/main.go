// Command qpc-audit checks that a quicprochat server says the same to everybody
// and takes nothing back. It reads what every server publishes (checkpoints,
// tiles, leaves, deltas) over QUIC or HTTP and believes none of it: everything
// is replayed and compared with what was signed before.
//
//	check USER|KEY   is this person's key what the log says? is this key revoked?
//	verify BUNDLE    the same for a saved proof, without a network
//	follow           audit the log for as long as it runs, keep what was signed
//	monitor USER     tell the owner of keys when somebody else changes them
//	mirror DIR       copy the whole public log
//	witness          cosign, for others, what was audited
//
// Its state is a folder with the newest notes as they were signed: whoever has
// it can prove that a server went back on its word.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit statuses, after sysexits.h.
const (
	exitSatisfied   = 0
	exitEvidence    = 1
	exitUsage       = 64
	exitUnreachable = 69
	exitLocal       = 70
	exitUnsettled   = 75
)

// exitMeaning is the table of --help and docs/auditing.md.
var exitMeaning = []struct {
	code    int
	meaning string
}{
	{exitSatisfied, "satisfied: everything that was checked holds"},
	{exitEvidence, "evidence against the server, saved in a file that is named; with monitor: a change that the owner did not make"},
	{exitUsage, "wrong usage: unknown flag, malformed value"},
	{exitUnreachable, "the server can't be reached, or refuses to answer"},
	{exitLocal, "an error on this side: files, keys, memory"},
	{exitUnsettled, "neither: the newest checkpoint is stale, older than a known one, not signed by the log's key, or lacks cosignatures; a file proves nothing by itself"},
}

const about = `Check a quicprochat server: that it says the same to everybody and takes nothing back.

  qpc-audit follow --url https://kt.chat.example.org --vkey log.vkey
                              audit the log, again and again, until interrupted
  qpc-audit follow --once --server chat.example.org:5001 --ca-cert ca-cert.der
                              audit it once over QUIC and print a report
  qpc-audit check alice       what does the log say about alice? (with a qpc home)
  qpc-audit verify FILE       check a saved proof without a network

docs/auditing.md tells in two pages what is checked, and what to do when it fails.`

// cli is the command line.
type cli struct {
	Version kong.VersionFlag `help:"Print the version and exit."`

	Check   checkCommand   `cmd:"" help:"Ask about a person or a key and check the answer's proof."`
	Verify  verifyCommand  `cmd:"" help:"Check a saved proof or saved evidence, without a network."`
	Follow  followCommand  `cmd:"" help:"Audit the whole log, again and again."`
	Monitor monitorCommand `cmd:"" help:"Watch your own keys for changes that you did not make."`
	Mirror  mirrorCommand  `cmd:"" help:"Copy the whole public log into a folder and check the copy."`
	Witness witnessCommand `cmd:"" help:"Audit the log and cosign its checkpoints for others."`
}

// app is the terminal that commands share.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

// exitError carries an exit status through the commands.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usageError is a mistake in how the command was called.
func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main without the process around it.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var grammar cli
	ended := -1
	parser, err := kong.New(&grammar,
		kong.Name("qpc-audit"), kong.Description(about),
		kong.Writers(stdout, stderr), kong.Exit(func(status int) { ended = status }),
		kong.Vars{"version": version()},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
	)
	if err != nil {
		return fail(stderr, exitLocal, err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if ended >= 0 { // --help and --version have printed
		return ended
	}
	if err != nil {
		return fail(stderr, exitUsage, fmt.Errorf("%w (qpc-audit --help teaches)", err))
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	if err := parsed.Run(ctx, &app{stdin, stdout, stderr}); err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = errInterrupted
		}
		return fail(stderr, statusOf(err), err)
	}
	return exitSatisfied
}

// statusOf finds the exit status of an error.
func statusOf(err error) int {
	var coded *exitError
	var unreachable *unreachableError
	var wrong *findingError
	switch {
	case err == nil:
		return exitSatisfied
	case errors.As(err, &coded):
		return coded.status
	case errors.As(err, &wrong):
		return exitEvidence
	case errors.As(err, &unreachable), errors.Is(err, context.DeadlineExceeded):
		return exitUnreachable
	case isUnsettled(err):
		return exitUnsettled
	}
	return exitLocal
}

func fail(stderr io.Writer, status int, err error) int {
	_, _ = fmt.Fprintf(stderr, "qpc-audit: %v\n", err)
	return status
}

// version is the module's version, or the commit that the binary was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return info.Main.Version + " " + setting.Value
		}
	}
	return info.Main.Version
}
