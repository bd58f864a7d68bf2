package main

import (
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// parsed parses a command line and returns the grammar's serve command.
func parsed(t *testing.T, env []string, args ...string) (*serveCommand, error) {
	t.Helper()
	p := &process{env: newEnvironment(env), stdout: io.Discard, stderr: io.Discard}
	selected, _, err := parse(args, p)
	if err != nil {
		return nil, err
	}
	serve, ok := selected.(*serveCommand)
	if !ok {
		t.Fatalf("%v selects %T", args, selected)
	}
	return serve, nil
}

func TestDefaults(t *testing.T) {
	got, err := parsed(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &serveCommand{
		Listen: "0.0.0.0:5001", Limits: "default", MinFree: 8, MLSSuites: []uint16{1, 3}, directoryFlags: directoryFlags{DataDir: "data"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("without flags: %+v, want %+v", got, want)
	}
	if cert, key := got.certificate(); cert != "" || key != "" {
		t.Errorf("certificate %q, %q: the data directory's own pair is asked for by no names", cert, key)
	}
}

// TestFlagBeatsEnvironmentBeatsDefault goes through every flag that has a
// variable.
func TestFlagBeatsEnvironmentBeatsDefault(t *testing.T) {
	for _, c := range []struct {
		flag, variable string
		get            func(*serveCommand) string
		values         [2]string
	}{
		{"--listen", "QPC_LISTEN", func(s *serveCommand) string { return s.Listen }, [2]string{"127.0.0.1:1", "[::1]:2"}},
		{"--data-dir", "QPC_DATA_DIR", func(s *serveCommand) string { return s.DataDir }, [2]string{"a", "/b"}},
		{"--server-name", "QPC_SERVER_NAME", func(s *serveCommand) string { return s.ServerName }, [2]string{"a.example", "b.example"}},
		{"--tls-cert", "QPC_TLS_CERT", func(s *serveCommand) string { return s.TLSCert }, [2]string{"a.der", "b.der"}},
		{"--tls-key", "QPC_TLS_KEY", func(s *serveCommand) string { return s.TLSKey }, [2]string{"a.der", "b.der"}},
		{"--limits", "QPC_LIMITS", func(s *serveCommand) string { return s.Limits }, [2]string{"off", "default"}},
		{"--min-free", "QPC_MIN_FREE", func(s *serveCommand) string { return strconv.Itoa(s.MinFree) }, [2]string{"0", "12"}},
		{"--mls-suites", "QPC_MLS_SUITES", func(s *serveCommand) string { return strings.Trim(fmt.Sprint(s.MLSSuites), "[]") }, [2]string{"1", "3"}},
		{"--metrics-listen", "QPC_METRICS_LISTEN", func(s *serveCommand) string { return s.MetricsListen }, [2]string{"127.0.0.1:1", "127.0.0.1:2"}},
	} {
		fallback, err := parsed(t, []string{c.variable + "="})
		if err != nil {
			t.Fatalf("%s: an empty variable: %v", c.variable, err)
		}
		plain, err := parsed(t, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.get(fallback) != c.get(plain) {
			t.Errorf("%s: an empty variable gives %q instead of the default", c.variable, c.get(fallback))
		}
		env := []string{c.variable + "=" + c.values[0]}
		got, err := parsed(t, env)
		if err != nil || c.get(got) != c.values[0] {
			t.Errorf("%s=%s gives %q (%v)", c.variable, c.values[0], c.get(got), err)
		}
		got, err = parsed(t, env, c.flag, c.values[1])
		if err != nil || c.get(got) != c.values[1] {
			t.Errorf("%s %s beside %v gives %q (%v)", c.flag, c.values[1], env, c.get(got), err)
		}
		got, err = parsed(t, env, "serve", c.flag+"="+c.values[1])
		if err != nil || c.get(got) != c.values[1] {
			t.Errorf("serve %s=%s beside %v gives %q (%v)", c.flag, c.values[1], env, c.get(got), err)
		}
	}
}

// TestProcessEnvironmentIsNotRead: only the list that Run is given counts.
func TestProcessEnvironmentIsNotRead(t *testing.T) {
	t.Setenv("QPC_LISTEN", "127.0.0.1:9")
	if got, err := parsed(t, nil); err != nil || got.Listen != "0.0.0.0:5001" {
		t.Errorf("listen %q (%v)", got.Listen, err)
	}
}

func TestSwitchVariables(t *testing.T) {
	for text, want := range map[string]bool{"1": true, "true": true, "YES": true, "on": true, "0": false, "false": false, "No": false, "off": false, "": false} {
		got, err := parsed(t, []string{"QPC_NO_CREATE=" + text})
		if err != nil || got.NoCreate != want {
			t.Errorf("QPC_NO_CREATE=%q gives %v (%v)", text, got.NoCreate, err)
		}
	}
	if _, err := parsed(t, []string{"QPC_NO_CREATE=perhaps"}); err == nil || !strings.Contains(err.Error(), "QPC_NO_CREATE") {
		t.Errorf("QPC_NO_CREATE=perhaps: %v", err)
	}
	if got, err := parsed(t, []string{"QPC_NO_CREATE=1"}, "--no-create=false"); err != nil || got.NoCreate {
		t.Errorf("--no-create=false does not beat the variable (%v)", err)
	}
	// Accepting a wrong time is for one start: no variable can make it a habit.
	if got, err := parsed(t, []string{"QPC_ACCEPT_TIME=1"}); err != nil || got.AcceptTime {
		t.Errorf("QPC_ACCEPT_TIME=1 gives %v (%v)", got.AcceptTime, err)
	}
}

func TestCertificateFollowsDataDirectory(t *testing.T) {
	for _, c := range []struct {
		args      []string
		cert, key string
	}{
		{[]string{"--data-dir", "x"}, "", ""},
		{[]string{"--data-dir", "x", "--tls-cert", "a.der"}, "a.der", "x/server-key.der"},
		{[]string{"--data-dir", "x", "--tls-key", "b.der"}, "x/server-cert.der", "b.der"},
		{[]string{"--tls-cert", "a.der", "--tls-key", "b.der"}, "a.der", "b.der"},
	} {
		got, err := parsed(t, nil, c.args...)
		if err != nil {
			t.Fatal(err)
		}
		if cert, key := got.certificate(); cert != c.cert || key != c.key {
			t.Errorf("%v: %q, %q, want %q, %q", c.args, cert, key, c.cert, c.key)
		}
	}
}

func TestLastVariableCounts(t *testing.T) {
	env := newEnvironment([]string{"A=1", "B", "A=2", "C=x=y", "=odd"})
	if env["A"] != "2" || env["C"] != "x=y" {
		t.Errorf("environment %v", env)
	}
}
