package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

const usage = `quicprochat-server stores and forwards end-to-end encrypted messages over QUIC.
It reads none of them: people's keys stay on their devices.

Usage:
  quicprochat-server [serve] [flags]   serve; the first start creates everything it needs
  quicprochat-server init [flags]      create the data directory, do not serve
  quicprochat-server admin grant NAME  make a user an administrator; also revoke, list,
                                       reset, revoke-key, new-generation
  quicprochat-server demo [--keep]     see in half a minute what it promises

Examples:
  quicprochat-server --listen 127.0.0.1:5001
        a server for this machine only, in the folder data
  quicprochat-server init --data-dir /var/lib/quicprochat --server-name chat.example.org
  quicprochat-server --data-dir /var/lib/quicprochat --no-create
        once as an administrator, then as a service that never starts afresh by mistake
  QPC_LOG=debug quicprochat-server --metrics-listen 127.0.0.1:9100
        more to read, and counters for Prometheus
  kill -TERM PID    finish what runs, close the stores, exit 0
  kill -HUP PID     read the certificate files again
`

const logHelp = `Log: text on standard error, level from QPC_LOG, else RUST_LOG (trace, debug, info,
warn, error, off; default info). What people and programs wait for is on standard
output; its first line is: listening HOST:PORT server-name NAME

Memory: the garbage collector runs with GOGC=400 below 60 % of the memory of the
machine or container; GOGC and GOMEMLIMIT override it.
`

// printHelp prints help for the program or for one command.
func printHelp(_ kong.HelpOptions, parsed *kong.Context) error {
	var b bytes.Buffer
	model := parsed.Model
	switch selected := parsed.Selected(); {
	case selected == nil || selected.Name == "serve":
		b.WriteString(usage)
		for _, child := range model.Children {
			if child.Name == "serve" {
				writeFlags(&b, "Flags of serve (init has --data-dir and --server-name, too):", child.Flags)
			}
		}
		b.WriteString("\nA flag beats its variable, the variable beats the default.\n\n" + logHelp + "\nExit codes:\n")
		for _, e := range exitMeaning {
			writeColumns(&b, 8, e.code, e.meaning)
		}
	default:
		name := commandName(selected)
		fmt.Fprintf(&b, "quicprochat-server %s: %s\n", name, selected.Help)
		if detail := commandHelp[name]; detail != "" {
			b.WriteString("\n" + detail)
		}
		if len(selected.Children) > 0 {
			b.WriteString("\nCommands:\n")
			for _, child := range selected.Children {
				writeColumns(&b, 30, commandName(child), child.Help)
			}
		} else {
			writeFlags(&b, "Flags:", selected.Flags)
		}
	}
	_, err := parsed.Stdout.Write(b.Bytes())
	return err
}

// commandHelp tells about commands what their flags don't.
var commandHelp = map[string]string{
	"init": `Makes keys, log and first record, then stops. In a directory that is a server's
already it changes nothing and checks that name, keys and log belong together.

Example:
  quicprochat-server init --data-dir /var/lib/quicprochat --server-name chat.example.org
`,
	"admin": `Administrators are made on the server's machine, by the user that the server runs
as: through the socket admin.sock in the data directory (mode 0600) while the server
runs, else on the directory of the stopped server. Each change is an event in the
log. The first administrator of a new server is a user who registered as all do.
In the same way people are helped who lost everything (reset), and keys are put out
of use that somebody else may hold (revoke-key), users are shut out (ban), and what
users reported is read (reports).

Examples:
  quicprochat-server admin grant alice --data-dir /var/lib/quicprochat
  quicprochat-server admin grant bob --role moderator
  quicprochat-server admin list --json
  quicprochat-server admin reset carol
`,
	"admin ban": `The user's sessions end and a login is refused once the password was right. Nothing
goes from the user or to them, and nobody finds them. Their keys, their queue and what
they sent before stay. With --for the ban ends by itself. It may be an administrator.

Example:
  quicprochat-server admin ban mallory --for 72h --reason 'spam, see reports'
`,
	"admin reports": `Newest first. "sender proved" says that the server's own tag shows: this user sent that
ciphertext, at that time, to the reporter. What the text was the reporter tells; nobody
can prove it.

Examples:
  quicprochat-server admin reports
  quicprochat-server admin reports --state any --user mallory --json
  quicprochat-server admin resolve 0f1e2d3c4b5a69788796a5b4c3d2e1f0 acted --note banned
`,
	"admin reset": `For a user who lost the password, or all devices. Prints a one-time token, good for
24 hours and for this name only: the server keeps nothing of it but a hash. Whoever
registers the name with it gets it, with a new identity key; the keys of before are
revoked, sessions end, and what waited unread is gone. Contacts are told that the key
changed on an administrator's word: make sure that you give the token to the right
person. A later token takes the place of one that was not used.

Example:
  quicprochat-server admin reset carol --data-dir /var/lib/quicprochat > token
  qpc --home new register carol --reset-token-file token
`,
	"admin new-generation": `A server whose data directory was put back to an older copy signs no checkpoints:
others hold signed notes of what came after, and would see two histories. Put the
newest copy back. Only when it is lost for good, go on without it:

  quicprochat-server admin new-generation --accept-loss --data-dir /var/lib/quicprochat

The log then has another origin, server_name/N+1, signed by its key, and everybody is
told: clients refuse until their person agrees (qpc verify --accept-generation N),
auditors stop, witnesses need the new log.vkey. All sessions end, reset tokens are void,
and queues leave numbers out, so that what was read in the lost part confirms no new
mail. Password changes and revocations of the lost part are lost: tell your users.
`,
	"admin revoke-key": `It can't be taken back, and the log shows for ever that an administrator said so. A
device key's sessions and queue end with it; with an identity key all sessions of the
account end, and nothing can be sent to it any more. Its person, who logs in with a
device key, can hand the account over to a new identity key. The same again changes
nothing; the answer is what stands in the log. (A role is taken away with revoke.)

Example:
  quicprochat-server admin revoke-key KEY --reason key-compromise
`,
	"admin grant": `The user must have registered. A moderator becomes an admin by it, and the other way
round; the same role again changes nothing. It counts at once.

Example:
  quicprochat-server admin grant alice --role moderator --data-dir /var/lib/quicprochat
`,
	"admin revoke": `Sessions of the user stay, as those of a plain user. Also the last administrator can
be revoked: another can be made on this machine at any time.

Example:
  quicprochat-server admin revoke alice --data-dir /var/lib/quicprochat
`,
	"admin list": `One line each: role and username. Nobody has a role on a new server.

Example:
  quicprochat-server admin list --json --data-dir /var/lib/quicprochat
`,
	"demo": `Starts a server in a temporary folder on a free loopback port, registers two
people over real QUIC, sends a message, kills the server with SIGKILL, starts it
again, receives the message, looks the recipient's keys up with proof, asks for the
message's receipt, stops the server and proves from the stopped log that the
message's event is in its Merkle tree. Exit code 0 means that each step held.
`,
}

// writeFlags writes each flag with its meaning, default and variable.
func writeFlags(w io.Writer, title string, flags []*kong.Flag) {
	fmt.Fprintf(w, "\n%s\n", title)
	for _, flag := range flags {
		if flag.Name == "help" {
			continue
		}
		writeColumns(w, 30, flagName(flag), flag.Help+flagOrigin(flag))
	}
}

func flagName(flag *kong.Flag) string {
	if flag.IsBool() {
		return "--" + flag.Name
	}
	return "--" + flag.Name + " " + flag.PlaceHolder
}

// flagDefault is the default as people read it.
func flagDefault(flag *kong.Flag) string {
	if shown := flag.Tag.Get("shown"); shown != "" {
		return shown
	}
	return flag.Default
}

func flagOrigin(flag *kong.Flag) string {
	var parts []string
	if d := flagDefault(flag); d != "" {
		parts = append(parts, "default: "+d)
	}
	if v := flag.Tag.Get("var"); v != "" {
		parts = append(parts, "variable: "+v)
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, "; ") + ")"
}

// writeColumns writes a name and its text, wrapped at 100 columns beside it.
func writeColumns(w io.Writer, indent int, name, text string) {
	const width = 100
	margin := strings.Repeat(" ", indent)
	line := "  " + name
	if len(line) >= indent {
		fmt.Fprintln(w, line)
		line = margin
	} else {
		line += margin[len(line):]
	}
	for i, word := range strings.Fields(text) {
		if i > 0 && len(line)+1+len(word) > width {
			fmt.Fprintln(w, line)
			line = margin + word
			continue
		}
		if i > 0 {
			line += " "
		}
		line += word
	}
	fmt.Fprintln(w, line)
}
