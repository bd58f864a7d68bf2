package main

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// environment holds the variables that the program was given. It is a kong
// resolver: a flag that is not on the command line gets the value of the
// variable in its tag var. An empty variable counts as not set, because service
// managers and shells can't always unset one.
type environment map[string]string

// newEnvironment reads a list of KEY=VALUE; as in a shell, the last one counts.
func newEnvironment(list []string) environment {
	env := environment{}
	for _, entry := range list {
		if name, value, ok := strings.Cut(entry, "="); ok {
			env[name] = value
		}
	}
	return env
}

// Validate implements kong.Resolver.
func (environment) Validate(*kong.Application) error { return nil }

// Resolve implements kong.Resolver.
func (e environment) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	name := flag.Tag.Get("var")
	value := e[name]
	if name == "" || value == "" {
		return nil, nil
	}
	if flag.IsBool() {
		on, err := parseSwitch(value)
		if err != nil {
			return nil, fmt.Errorf("variable %s=%q: %w", name, value, err)
		}
		return on, nil
	}
	return value, nil
}

func parseSwitch(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "1", "true", "yes", "on":
		return true, nil
	case "0", "false", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("use 1 or 0")
}
