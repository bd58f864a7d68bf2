package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/alecthomas/kong"
)

// process is what a command gets of its surroundings.
type process struct {
	env            environment
	stdout, stderr io.Writer
	logger         *slog.Logger
}

// command is implemented by each command of the grammar.
type command interface {
	run(ctx context.Context, p *process) error
}

// Run is the whole program: it parses args, runs the command and returns the
// exit code. env is a list of KEY=VALUE as os.Environ gives it. The end of ctx
// stops a server as SIGTERM does.
func Run(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	p := &process{env: newEnvironment(env), stdout: stdout, stderr: stderr}
	p.logger = newLogger(stderr, p.env)
	selected, code, err := parse(args, p)
	if err != nil {
		fmt.Fprintf(stderr, "quicprochat-server: %v\n", err)
		fmt.Fprintln(stderr, "quicprochat-server --help shows commands, flags and examples")
		return exitUsage
	}
	if selected == nil {
		return code
	}
	return exitCode(selected.run(ctx, p), stderr)
}

// parse reads flags and environment. A nil command means that everything was
// said and done while parsing (--help, --version).
func parse(args []string, p *process) (selected command, code int, err error) {
	// Kong ends the process after help and version; here that is a panic which
	// this function catches.
	type exit int
	defer func() {
		switch thrown := recover().(type) {
		case nil:
		case exit:
			selected, code, err = nil, int(thrown), nil
		default:
			panic(thrown)
		}
	}()
	var g grammar
	parser, err := newParser(&g,
		kong.Writers(p.stdout, p.stderr),
		kong.Exit(func(code int) { panic(exit(code)) }),
		kong.Resolvers(p.env),
	)
	if err != nil {
		return nil, 0, err
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return nil, 0, err
	}
	switch name := commandName(parsed.Selected()); name {
	case "serve":
		return &g.Serve, 0, nil
	case "init":
		return &g.Init, 0, nil
	case "admin grant":
		return &g.Admin.Grant, 0, nil
	case "admin revoke":
		return &g.Admin.Revoke, 0, nil
	case "admin list":
		return &g.Admin.List, 0, nil
	case "admin reset":
		return &g.Admin.Reset, 0, nil
	case "admin revoke-key":
		return &g.Admin.RevokeKey, 0, nil
	case "admin new-generation":
		return &g.Admin.NewGeneration, 0, nil
	case "admin ban":
		return &g.Admin.Ban, 0, nil
	case "admin unban":
		return &g.Admin.Unban, 0, nil
	case "admin bans":
		return &g.Admin.Bans, 0, nil
	case "admin reports":
		return &g.Admin.Reports, 0, nil
	case "admin resolve":
		return &g.Admin.Resolve, 0, nil
	case "demo":
		return &g.Demo, 0, nil
	default:
		return nil, 0, errors.New("no command " + name)
	}
}

// commandName is the words by which a command is called.
func commandName(n *kong.Node) string {
	if n.Parent == nil || n.Parent.Type == kong.ApplicationNode {
		return n.Name
	}
	return commandName(n.Parent) + " " + n.Name
}

func newParser(g *grammar, options ...kong.Option) (*kong.Kong, error) {
	return kong.New(g, append(options,
		kong.Name("quicprochat-server"),
		kong.Description("Store-and-forward server for end-to-end encrypted messaging over QUIC."),
		kong.Help(printHelp),
	)...)
}
