package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// passwordFlags say where the password comes from: a file, the environment, or
// the prompt.
type passwordFlags struct {
	PasswordFile string `placeholder:"FILE" help:"Read the password from the first line of a file. Otherwise QPC_PASSWORD is used, and without it the prompt."`
}

// minPassword is the shortest password in bytes that register takes: the server
// never sees it, so only the client can ask for more than nothing.
const minPassword = 8

// read returns the password. A new one is asked for twice at the prompt.
func (f passwordFlags) read(a *app, prompt string, isNew bool) ([]byte, error) {
	password, err := f.find(a, prompt, isNew)
	switch {
	case err != nil:
		return nil, err
	case len(password) == 0:
		return nil, usageError("the password is empty")
	case isNew && len(password) < minPassword:
		return nil, usageError("the password has %d bytes; take at least %d", len(password), minPassword)
	}
	return password, nil
}

// readNew is read for a second, new password: QPC_PASSWORD holds the present
// one, so the new one stands in QPC_NEW_PASSWORD.
func (f passwordFlags) readNew(a *app, prompt string) ([]byte, error) {
	if password, set := os.LookupEnv("QPC_NEW_PASSWORD"); set && f.PasswordFile == "" {
		if len(password) < minPassword {
			return nil, usageError("the new password has %d bytes; take at least %d", len(password), minPassword)
		}
		return []byte(password), nil
	}
	if _, set := os.LookupEnv("QPC_PASSWORD"); set && f.PasswordFile == "" {
		return nil, usageError("QPC_PASSWORD holds the present password: give the new one in QPC_NEW_PASSWORD or with --new-password-file")
	}
	return f.read(a, prompt, true)
}

func (f passwordFlags) find(a *app, prompt string, isNew bool) ([]byte, error) {
	if f.PasswordFile != "" {
		content, err := os.ReadFile(f.PasswordFile)
		line, _, _ := bytes.Cut(content, []byte("\n"))
		return bytes.TrimSuffix(line, []byte("\r")), err
	}
	if password, set := os.LookupEnv("QPC_PASSWORD"); set {
		return []byte(password), nil
	}
	terminal, isFile := a.stdin.(*os.File)
	if !isFile || !term.IsTerminal(int(terminal.Fd())) {
		fmt.Fprintf(a.stderr, "%s: ", prompt)
		line, err := bufio.NewReader(a.stdin).ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) > 0 {
			err = nil
		}
		if err != nil {
			return nil, usageError("no password: give one at the prompt, with --password-file or in QPC_PASSWORD")
		}
		return bytes.TrimRight(line, "\r\n"), nil
	}
	password, err := a.ask(terminal, prompt)
	if err != nil || !isNew {
		return password, err
	}
	again, err := a.ask(terminal, "Once more")
	if err == nil && !bytes.Equal(password, again) {
		err = usageError("the two passwords differ")
	}
	return password, err
}

// ask reads one line from the terminal without showing it.
func (a *app) ask(terminal *os.File, prompt string) ([]byte, error) {
	fmt.Fprintf(a.stderr, "%s: ", prompt)
	password, err := term.ReadPassword(int(terminal.Fd()))
	fmt.Fprintln(a.stderr)
	return password, err
}
