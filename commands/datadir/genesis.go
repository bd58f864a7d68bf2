package datadir

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/log"
	pb "quicprochat/proto/qpcv1"
)

// vkeyFile holds the log's verifier key: "origin+hash+key" (C2SP signed-note).
const vkeyFile = "log.vkey"

// writeGenesis makes the log with its first record, the CONFIG of this server,
// and the verifier key that follows from it.
func writeGenesis(fs vfs.FS, dir, serverName string, storeID [16]byte, s *Secrets) error {
	config, err := kt.NewConfig(serverName, s.LogKey.Public().(ed25519.PublicKey), kt.NewVRFPrivateKey(s.VRFSeed).PublicKey())
	if err != nil {
		return err
	}
	leaf := kt.AppendConfigLeaf(nil, config)
	// The leaf shows all of CONFIG, so there is nothing to hide and no opening.
	event, err := proto.MarshalOptions{Deterministic: true}.Marshal(&pb.Event{
		TimeMs: uint64(time.Now().UnixMilli()),
		Body:   &pb.Event_ServerConfigured{ServerConfigured: &pb.ServerConfigured{Config: leaf[1:]}},
	})
	if err != nil {
		return err
	}
	if err := log.Create(fs, dir, storeID, log.Record{Leaf: leaf, Event: event}); err != nil {
		return err
	}
	// Events tell who writes to whom: not even their sizes are for others.
	if err := restrict(fs, fs.PathJoin(dir, "log")); err != nil {
		return err
	}
	return writeVerifierKey(fs, dir, config)
}

// verifierKey is the C2SP note verifier key of the log, one line.
func verifierKey(c kt.Config) ([]byte, error) {
	line, err := note.NewEd25519VerifierKey(c.Origin, c.LogKey)
	return []byte(line + "\n"), err
}

func writeVerifierKey(fs vfs.FS, dir string, c kt.Config) error {
	line, err := verifierKey(c)
	if err != nil {
		return err
	}
	// Everybody may know it: it is what witnesses and auditors are given.
	return writeFile(fs, fs.PathJoin(dir, vkeyFile), line, 0o644)
}

// OpenLog opens the log of the directory and checks that its first record is
// the CONFIG of this server: the server name asked for, the log key and VRF key
// of secrets/. Besides *Refused, errors are those of log.Open.
func (d *Dir) OpenLog(logger *slog.Logger) (*log.Log, kt.Config, error) {
	l, err := log.Open(d.FS, d.Path, log.Options{StoreID: d.StoreID, Logger: logger})
	if err != nil {
		return nil, kt.Config{}, err
	}
	config, err := d.checkGenesis(l)
	if err != nil {
		return nil, kt.Config{}, errors.Join(err, l.Close())
	}
	return l, config, nil
}

// checkGenesis compares the first record with what the directory and the
// operator say. A verifier key file that is missing, or of another log, is written
// anew: the log is the truth about it.
func (d *Dir) checkGenesis(l *log.Log) (kt.Config, error) {
	record, err := l.Record(0)
	if err != nil {
		return kt.Config{}, err
	}
	leaf, err := kt.ParseLeaf(record.Leaf)
	if err == nil && leaf.Class != kt.ClassConfig {
		err = fmt.Errorf("its class is %v", leaf.Class)
	}
	if err != nil {
		return kt.Config{}, &Refused{
			Kind:   ErrDamaged,
			Cause:  fmt.Sprintf("the first record of the log in %s is not a server's configuration", d.Path),
			Remedy: "restore the data directory from a backup",
			Err:    err,
		}
	}
	c := leaf.Config
	if err := d.checkConfig(c); err != nil {
		return kt.Config{}, err
	}
	return c, d.keepVerifierKey(c)
}

// keepVerifierKey leaves the verifier key alone when it is this log's key under the
// origin of any generation: which one is the newest the views know (Follow).
func (d *Dir) keepVerifierKey(c kt.Config) error {
	found, err := readFile(d.FS, d.File(vkeyFile), secretLimit)
	if err != nil {
		return d.Follow(c)
	}
	origin, key, err := kt.ParseVerifierKey(string(found))
	if err != nil || !c.LogKey.Equal(key) {
		return d.Follow(c)
	}
	name, _, err := kt.ParseOrigin(origin)
	if own, _, ownErr := kt.ParseOrigin(c.Origin); err != nil || ownErr != nil || name != own {
		return d.Follow(c)
	}
	return nil
}

func (d *Dir) checkConfig(c kt.Config) error {
	name, _, err := kt.ParseOrigin(c.Origin)
	if err != nil {
		return err // kt.ParseLeaf has checked it
	}
	switch {
	case c.FormatVersion != log.FormatVersion:
		return &Refused{
			Kind:   ErrFormat,
			Cause:  fmt.Sprintf("the log in %s is of format %d, but this program works with format %d", d.Path, c.FormatVersion, log.FormatVersion),
			Remedy: "use the quicprochat-server that wrote it, or start with a new data directory",
		}
	case d.serverName != "" && d.serverName != name:
		return &Refused{
			Kind:   ErrServerName,
			Cause:  fmt.Sprintf("the server in %s is named %q, not %q, and its name is final", d.Path, name, d.serverName),
			Remedy: fmt.Sprintf("start it with --server-name %s or without that flag, or use another --data-dir for %s", name, d.serverName),
		}
	case !c.LogKey.Equal(d.Secrets.LogKey.Public()):
		return foreign(d.File(secretsDir), logKeyFile)
	case c.VRFKey != kt.NewVRFPrivateKey(d.Secrets.VRFSeed).PublicKey():
		return foreign(d.File(secretsDir), vrfSeedFile)
	}
	return nil
}

// foreign refuses a secret that is not the one this log was made with.
func foreign(folder, name string) error {
	return &Refused{
		Kind:   ErrDamaged,
		Cause:  fmt.Sprintf("secret %s in %s belongs to another server's log", name, folder),
		Remedy: "restore log and secrets from the same backup",
	}
}

// Follow brings the verifier key file to the log's newest CONFIG: another one
// follows that of index 0 when the log's key or generation changes.
func (d *Dir) Follow(c kt.Config) error {
	want, err := verifierKey(c)
	if err != nil {
		return err
	}
	found, err := readFile(d.FS, d.File(vkeyFile), secretLimit)
	if err == nil && bytes.Equal(found, want) {
		return nil
	}
	if err := writeVerifierKey(d.FS, d.Path, c); err != nil {
		return fmt.Errorf("can't write %s: make it writable for this user (%w)", d.File(vkeyFile), err)
	}
	return syncDir(d.FS, d.Path)
}

// VerifierKeyFile is the path of the log's verifier key.
func (d *Dir) VerifierKeyFile() string { return d.File(vkeyFile) }
