// Command qpc is the client that a person uses: it registers, logs in, sends
// sealed messages and receives them. It can also call any method of the server
// (qpc call), list them (qpc methods) and drive load (qpc bench).
//
// Its state is a home folder (0700, files 0600): secret keys, the session of the
// last login, remembered contacts, and how far the queue was read. Nothing that
// it sends to the server can be read there.
//
// Exit status: 0 done; 1–11 the status that the server answered; 64 wrong usage;
// 69 no connection; 70 an error on this side; 75 not yet, try again later.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit statuses besides the status codes of the wire (sysexits.h).
const (
	exitUsage        = 64
	exitNoConnection = 69
	exitLocal        = 70
	exitPending      = 75
)

const about = `Talk through a quicprochat server. What you send is sealed for its recipient on this machine.

  qpc register alice          make an account, with a password asked for here
  qpc login alice             open a session and publish this home's hybrid key
  qpc send bob 'Hello'        seal and queue a message; '-' reads the text from stdin
  qpc recv --follow           show what comes, until interrupted
  qpc device link alice       make this home another device of alice ('qpc device --help' teaches)
  qpc channel create friends bob carol
                              a conversation of several; 'qpc channel --help' teaches
  qpc verify bob              prove which keys are bob's, and that there are no newer ones
  qpc revoke                  put this account's identity key out of use, for ever
  qpc receipt MESSAGE         prove that a message that you sent is in the server's log
  qpc keys fetch bob          take an MLS KeyPackage of bob's, to add him to a group
  qpc call ResolveUser '{"username":"bob"}'
                              call any method; 'qpc methods' lists them

The server's certificate authority is pinned: copy ca-cert.der from the server's data
directory and name it with --ca-cert.`

type cli struct {
	Server     string `env:"QPC_SERVER" default:"127.0.0.1:5001" placeholder:"HOST:PORT" help:"Address of the server (${env})."`
	ServerName string `env:"QPC_SERVER_NAME" placeholder:"NAME" help:"Name of the server, which certificates and signatures carry (${env}). Default: the host of --server if it is a DNS name, else localhost."`
	CACert     string `name:"ca-cert" env:"QPC_CA_CERT" default:"data/ca-cert.der" placeholder:"FILE" help:"Certificate to trust and nothing else, DER or PEM (${env})."`
	Home       string `env:"QPC_HOME" default:"~/.qpc" placeholder:"DIR" help:"Folder of keys and session (${env})."`
	trustFlags
	JSON    bool             `name:"json" help:"Print JSON, one object a line."`
	Version kong.VersionFlag `help:"Print the version and exit."`

	Register registerCommand `cmd:"" help:"Make an account."`
	Login    loginCommand    `cmd:"" help:"Open a session of this home's device."`
	Passwd   passwdCommand   `cmd:"" help:"Change the password."`
	Whoami   whoamiCommand   `cmd:"" help:"Show the account, keys and session of this home."`
	Send     sendCommand     `cmd:"" help:"Seal a message for a person and queue it."`
	Recv     recvCommand     `cmd:"" help:"Show new messages."`
	Device   deviceCommand   `cmd:"" help:"Devices of this account: list, link, add, revoke."`
	Channel  channelCommand  `cmd:"" help:"Talk with several people: create, add, post, …"`
	Trust    trustCommand    `cmd:"" help:"Accept the changed key of a contact, after comparing it with that person."`
	Verify   verifyCommand   `cmd:"" help:"Prove what the log says about a person."`
	Receipt  receiptCommand  `cmd:"" help:"Prove that a sent message is in the log."`
	Revoke   revokeCommand   `cmd:"" help:"Put a key of this account out of use, for ever."`
	Keys     keysCommand     `cmd:"" help:"Upload, count and fetch MLS KeyPackages."`
	Report   reportCommand   `cmd:"" help:"Tell the moderators of a person or a message."`
	Ban      banCommand      `cmd:"" help:"Moderators: shut a user out of the server."`
	Unban    unbanCommand    `cmd:"" help:"Moderators: lift a ban."`
	Bans     bansCommand     `cmd:"" help:"Moderators: list who is banned."`
	Reports  reportsCommand  `cmd:"" help:"Moderators: list reports."`
	Resolve  resolveCommand  `cmd:"" help:"Moderators: say what became of a report."`
	Call     callCommand     `cmd:"" help:"Call any method of the server."`
	Methods  methodsCommand  `cmd:"" help:"List the methods of the server."`
	Bench    benchCommand    `cmd:"" help:"Measure a server under load."`
}

// app is what commands share: the globals and the terminal.
type app struct {
	*cli
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
		kong.Name("qpc"), kong.Description(about),
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
		return fail(stderr, exitUsage, fmt.Errorf("%w (qpc --help teaches)", err))
	}
	a := &app{cli: &grammar, stdin: stdin, stdout: stdout, stderr: stderr}
	if err := a.expandHome(); err != nil {
		return fail(stderr, exitLocal, err)
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return a.report(parsed.Run(ctx, a))
}

// expandHome replaces a leading ~ by the person's home folder.
func (a *app) expandHome() error {
	rest, tilde := strings.CutPrefix(a.Home, "~")
	if !tilde || (rest != "" && rest[0] != os.PathSeparator) {
		return nil
	}
	folder, err := os.UserHomeDir()
	if err != nil {
		return fmt.Errorf("no home folder: name one with --home: %w", err)
	}
	a.Home = folder + rest
	return nil
}

// report prints an error and turns it into the exit status.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	var coded *exitError
	if errors.As(err, &coded) {
		return fail(a.stderr, coded.status, coded.err)
	}
	return a.reportRemote(err)
}

func fail(stderr io.Writer, status int, err error) int {
	_, _ = fmt.Fprintf(stderr, "qpc: %v\n", err)
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
