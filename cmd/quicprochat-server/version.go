package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kong"
)

// versionFlag prints the version and ends the program.
type versionFlag bool

// IsBool tells kong that the flag takes no value.
func (versionFlag) IsBool() bool { return true }

// BeforeReset is called by kong when the flag was given, before anything else
// is looked at.
func (versionFlag) BeforeReset(k *kong.Kong) error {
	fmt.Fprintf(k.Stdout, "quicprochat-server %s (%s %s/%s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	k.Exit(exitOK)
	return nil
}

// version is the module's version when it was built as a dependency, and the
// commit, as the go command recorded them.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return describeBuild(info)
}

func describeBuild(info *debug.BuildInfo) string {
	text := info.Main.Version
	if text == "" || text == "(devel)" {
		text = "devel"
	}
	commit, dirty := "", ""
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			commit = setting.Value
		case "vcs.modified":
			if setting.Value == "true" {
				dirty = ", modified"
			}
		}
	}
	if commit == "" {
		return text
	}
	return fmt.Sprintf("%s, commit %.12s%s", text, commit, dirty)
}
