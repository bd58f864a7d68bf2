package datadir

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/log"
	pb "quicprochat/proto/qpcv1"
)

// open opens a directory or fails the test; it is closed at the end.
func open(t *testing.T, fs vfs.FS, dir string, o Options) *Dir {
	t.Helper()
	d, err := Open(context.Background(), fs, dir, o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return d
}

// created creates a directory and closes it.
func created(t *testing.T, fs vfs.FS, dir, name string) *Dir {
	t.Helper()
	d := open(t, fs, dir, Options{ServerName: name})
	if !d.Created {
		t.Fatal("a new directory was not created")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return d
}

// refused asserts that an error is a refusal of the given kind, one sentence,
// and that it contains the given words.
func refused(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	var r *Refused
	if !errors.As(err, &r) {
		t.Fatalf("error is no refusal: %v", err)
	}
	if !errors.Is(err, kind) {
		t.Fatalf("refused as %v, want %v: %v", r.Kind, kind, err)
	}
	text := err.Error()
	if strings.Contains(text, "\n") || r.Cause == "" || r.Remedy == "" || !strings.Contains(text, ": ") {
		t.Errorf("not one sentence with cause and remedy: %q", text)
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("refusal does not name %q: %q", word, text)
		}
	}
}

// openLog opens the log, closes it again and returns its CONFIG.
func openLog(t *testing.T, d *Dir) kt.Config {
	t.Helper()
	l, config, err := d.OpenLog(nil)
	if err != nil {
		t.Fatalf("OpenLog: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return config
}

func TestCreateThenOpen(t *testing.T) {
	fs := vfs.NewMem()
	first := open(t, fs, "/srv/chat", Options{ServerName: "chat.example.org"})
	if !first.Created {
		t.Error("the first Open does not report that it created the directory")
	}
	config := openLog(t, first)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open(t, fs, "/srv/chat", Options{ServerName: "chat.example.org"})
	defer second.Close()
	if second.Created {
		t.Error("the second Open reports that it created the directory")
	}
	if second.StoreID != first.StoreID || second.StoreID == ([16]byte{}) {
		t.Errorf("store id was %x, is %x", first.StoreID, second.StoreID)
	}
	a, b := first.Secrets, second.Secrets
	if !a.CAKey.Equal(b.CAKey) || !a.LogKey.Equal(b.LogKey) || a.VRFSeed != b.VRFSeed ||
		!bytes.Equal(a.OPAQUE.Marshal(), b.OPAQUE.Marshal()) || !bytes.Equal(a.FakeRecord, b.FakeRecord) {
		t.Error("the secrets read are not the secrets made")
	}
	again := openLog(t, second)
	if again.Origin != "chat.example.org/1" || again.Origin != config.Origin {
		t.Errorf("origin %q, then %q", config.Origin, again.Origin)
	}
	if !config.LogKey.Equal(a.LogKey.Public()) || config.VRFKey != kt.NewVRFPrivateKey(a.VRFSeed).PublicKey() {
		t.Error("CONFIG does not hold the public halves of the secrets")
	}
	want := []string{"FORMAT", "LOCK", "anchor", "log", "log.vkey", "secrets"}
	names, err := fs.List("/srv/chat")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	if !slices.Equal(names, want) {
		t.Errorf("the directory holds %v, want %v", names, want)
	}
}

// TestGenesis reads the first record as an auditor would.
func TestGenesis(t *testing.T) {
	fs := vfs.NewMem()
	d := open(t, fs, "data", Options{ServerName: "chat.example.org"})
	defer d.Close()
	l, config, err := d.OpenLog(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Size() != 1 {
		t.Fatalf("a new log has %d records", l.Size())
	}
	record, err := l.Record(0)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := kt.ParseLeaf(record.Leaf)
	if err != nil || leaf.Class != kt.ClassConfig {
		t.Fatalf("record 0 is of class %v (%v)", leaf.Class, err)
	}
	if record.Opening != (kt.Opening{}) {
		t.Error("a CONFIG has no commitment, but its record has an opening")
	}
	var event pb.Event
	if err := proto.Unmarshal(record.Event, &event); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(event.GetServerConfigured().GetConfig(), record.Leaf[1:]) {
		t.Error("the event's config is not the leaf's body")
	}
	if event.TimeMs == 0 || event.Receipt != nil {
		t.Errorf("event has time %d and receipt %v", event.TimeMs, event.Receipt)
	}
	if l.Root() != kt.LeafHash(record.Leaf) {
		t.Error("the root of one record is not its leaf hash")
	}

	line, err := readFile(fs, d.File("log.vkey"), 1000)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(strings.TrimSuffix(string(line), "\n"))
	if err != nil {
		t.Fatalf("log.vkey is no verifier key: %v", err)
	}
	message := []byte("checkpoint")
	if verifier.Name() != config.Origin || !verifier.Verify(message, ed25519.Sign(d.Secrets.LogKey, message)) {
		t.Errorf("log.vkey (%s) does not verify what the log key signs", verifier.Name())
	}
}

func TestServerName(t *testing.T) {
	fs := vfs.NewMem()
	created(t, fs, "data", "")
	for _, name := range []string{"", "localhost"} {
		d := open(t, fs, "data", Options{ServerName: name})
		if config := openLog(t, d); config.Origin != "localhost/1" {
			t.Errorf("asked for %q, origin is %q", name, config.Origin)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	d := open(t, fs, "data", Options{ServerName: "chat.example.org"})
	_, _, err := d.OpenLog(nil)
	refused(t, err, ErrServerName, `"localhost"`, `"chat.example.org"`, "--server-name", "final")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Chat.example.org", "10.0.0.1", "::1", "a b", "-a", "chat.", "chat:5001", strings.Repeat("a", 64), "ex_ample.org"} {
		_, err := Open(context.Background(), fs, "other", Options{ServerName: name})
		refused(t, err, ErrServerName, "lower case")
	}
	if there, _ := exists(fs, "other"); there {
		t.Error("a refused name left a directory behind")
	}
}

func TestNoCreate(t *testing.T) {
	fs := vfs.NewMem()
	_, err := Open(context.Background(), fs, "data", Options{NoCreate: true})
	refused(t, err, ErrNotFound, "--no-create", "init --data-dir data", "mount")
	if there, _ := exists(fs, "data"); there {
		t.Error("--no-create made the directory")
	}
	if err := fs.MkdirAll("data", 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = Open(context.Background(), fs, "data", Options{NoCreate: true})
	refused(t, err, ErrNotFound)
	if names, _ := fs.List("data"); len(names) != 0 {
		t.Errorf("--no-create left %v in an empty directory", names)
	}
	created(t, fs, "data", "")
	d := open(t, fs, "data", Options{NoCreate: true})
	if d.Created {
		t.Error("Created although NoCreate")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestNoCreateUnfinished: an interrupted creation is not a server yet.
func TestNoCreateUnfinished(t *testing.T) {
	fs := vfs.NewMem()
	if err := makeDir(fs, "data", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := create(t.Context(), fs, "data", "localhost"); err != nil {
		t.Fatal(err)
	}
	_, err := Open(context.Background(), fs, "data", Options{NoCreate: true})
	refused(t, err, ErrNotFound, "interrupted", "init")
	d := open(t, fs, "data", Options{})
	if !d.Created {
		t.Error("ending an interrupted creation is not reported as one")
	}
	openLog(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOtherFormats(t *testing.T) {
	fs := vfs.NewMem()
	d := created(t, fs, "data", "")
	newer := log.Format{Version: log.FormatVersion + 1, StoreID: d.StoreID}
	if err := log.WriteFormat(fs, "data", newer); err != nil {
		t.Fatal(err)
	}
	_, err := Open(context.Background(), fs, "data", Options{})
	refused(t, err, ErrFormat, "format 2", "newer quicprochat-server")
	older := log.Format{Version: log.FormatVersion - 1, StoreID: d.StoreID}
	if err := log.WriteFormat(fs, "data", older); err != nil {
		t.Fatal(err)
	}
	_, err = Open(context.Background(), fs, "data", Options{})
	refused(t, err, ErrFormat, "format 0", "start with a new data directory")
	if err := writeFile(fs, "data/FORMAT", []byte("what?\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(context.Background(), fs, "data", Options{})
	refused(t, err, ErrFormat, "backup")
}

func TestIncompleteDirectory(t *testing.T) {
	for _, missing := range []struct {
		remove []string
		word   string
	}{
		{[]string{"log"}, "log/ is missing"},
		{[]string{"FORMAT"}, "FORMAT is missing"},
		{[]string{"FORMAT", "log"}, "anchor is there"},
		{[]string{"FORMAT", "log", "anchor"}, "log.vkey is there"},
		{[]string{"FORMAT", "log", "anchor", "log.vkey"}, "secrets is there"},
	} {
		fs := vfs.NewMem()
		created(t, fs, "data", "")
		for _, name := range missing.remove {
			if err := fs.RemoveAll("data/" + name); err != nil {
				t.Fatal(err)
			}
		}
		before, _ := fs.List("data")
		for _, noCreate := range []bool{false, true} {
			_, err := Open(context.Background(), fs, "data", Options{NoCreate: noCreate})
			refused(t, err, ErrDamaged, missing.word, "restore")
		}
		if after, _ := fs.List("data"); len(after) != len(before) {
			t.Errorf("a refused start changed the directory from %v to %v", before, after)
		}
	}
}

// TestMissingAnchor: the log's own refusals pass through.
func TestMissingAnchor(t *testing.T) {
	fs := vfs.NewMem()
	created(t, fs, "data", "")
	if err := fs.Remove("data/anchor"); err != nil {
		t.Fatal(err)
	}
	d := open(t, fs, "data", Options{})
	defer d.Close()
	if _, _, err := d.OpenLog(nil); !errors.Is(err, log.ErrNoAnchor) {
		t.Errorf("without the anchor: %v", err)
	}
}

// TestForeignSecrets: each secret that the log depends on is held against it.
func TestForeignSecrets(t *testing.T) {
	for _, name := range []string{logKeyFile, vrfSeedFile} {
		fs := vfs.NewMem()
		created(t, fs, "data", "")
		created(t, fs, "other", "")
		content, err := readFile(fs, "other/secrets/"+name, secretLimit)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeFile(fs, "data/secrets/"+name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		d := open(t, fs, "data", Options{})
		_, _, err = d.OpenLog(nil)
		refused(t, err, ErrDamaged, name, "another server", "backup")
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestVerifierKeyIsRenewed: log.vkey follows the log, not the other way round.
func TestVerifierKeyIsRenewed(t *testing.T) {
	fs := vfs.NewMem()
	created(t, fs, "data", "")
	want, err := readFile(fs, "data/log.vkey", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func() error{
		func() error { return fs.Remove("data/log.vkey") },
		func() error { return writeFile(fs, "data/log.vkey", []byte("mallory\n"), 0o644) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		d := open(t, fs, "data", Options{})
		openLog(t, d)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := readFile(fs, "data/log.vkey", 1000); err != nil || !bytes.Equal(got, want) {
			t.Errorf("log.vkey is %q (%v), want %q", got, err, want)
		}
	}
}

// TestVerifierKeyOfALaterGeneration: opening the log leaves a key alone that only
// the views can judge, and Follow writes the one of the newest CONFIG.
func TestVerifierKeyOfALaterGeneration(t *testing.T) {
	fs := vfs.NewMem()
	created(t, fs, "data", "")
	d := open(t, fs, "data", Options{})
	l, config, err := d.OpenLog(nil)
	if err != nil {
		t.Fatal(err)
	}
	config.Origin = kt.Origin(DefaultServerName, 2)
	if err := errors.Join(d.Follow(config), l.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	d = open(t, fs, "data", Options{})
	openLog(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	line, err := readFile(fs, "data/log.vkey", 1000)
	if err != nil {
		t.Fatal(err)
	}
	if origin, key, err := kt.ParseVerifierKey(string(line)); err != nil || origin != config.Origin || !config.LogKey.Equal(key) {
		t.Errorf("log.vkey is %q (%v), want that of %s", line, err, config.Origin)
	}
}

// TestOperatorsFilesStay: a directory in which only certificates lie is new.
func TestOperatorsFilesStay(t *testing.T) {
	dir := t.TempDir()
	cert := filepath.Join(dir, "server-cert.der")
	if err := os.WriteFile(cert, []byte("theirs"), 0o644); err != nil {
		t.Fatal(err)
	}
	created(t, vfs.Default, dir, "")
	if content, err := os.ReadFile(cert); err != nil || string(content) != "theirs" {
		t.Errorf("the operator's certificate is %q (%v)", content, err)
	}
}

func TestCancelledContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	fs := vfs.NewMem()
	if _, err := Open(ctx, fs, "data", Options{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("Open with an ended context: %v", err)
	}
	created(t, fs, "data", "") // the lock was given up, and the rest is redone
}

// TestFrankKeyComesLater: a directory of a server that made no tags yet gets the key
// for them when it is opened, once, and half a file of an earlier try is no key.
func TestFrankKeyComesLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first := created(t, vfs.Default, dir, "chat.example").Secrets.FrankKey
	path := filepath.Join(dir, secretsDir, frankFile)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte("qpc-sec"), 0o600); err != nil {
		t.Fatal(err)
	}
	var keys [2][32]byte
	for i := range keys {
		d := open(t, vfs.Default, dir, Options{})
		keys[i] = d.Secrets.FrankKey
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if keys[0] == ([32]byte{}) || keys[0] == first || keys[1] != keys[0] {
		t.Errorf("keys %x, then %x and %x", first, keys[0], keys[1])
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the secret: %v, %v", info, err)
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a file stays: %v", err)
	}
}
