package datadir

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A secret file is one line:
//
//	qpc-secret-v1 NAME BASE64 CHECK
//
// NAME is the file's own name, BASE64 (RFC 4648 §4) the secret, CHECK the first
// 8 bytes, in hexadecimal, of SHA-256 over everything before it and its space.
// The check is there because one rotten bit in an OPAQUE seed would not fail:
// it would make every password wrong. Another first word is another encoding
// (sealed under a master key, for one).
const secretHeader = "qpc-secret-v1"

// secretLimit is more than any secret file is long, in bytes.
const secretLimit = 16 << 10

// encodeSecret makes the content of a secret file.
func encodeSecret(name string, secret []byte) []byte {
	text := secretHeader + " " + name + " " + base64.StdEncoding.EncodeToString(secret)
	return []byte(text + " " + secretCheck(text) + "\n")
}

func secretCheck(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// decodeSecret reads what encodeSecret made. Its errors tell what is wrong, not
// what the secret is.
func decodeSecret(name string, content []byte) ([]byte, error) {
	line, ended := bytes.CutSuffix(content, []byte("\n"))
	fields := strings.Split(string(line), " ")
	switch {
	case !ended || len(fields) != 4:
		return nil, errors.New("is not one line of four words")
	case fields[0] != secretHeader:
		return nil, fmt.Errorf("does not begin with %s", secretHeader)
	case secretCheck(strings.Join(fields[:3], " ")) != fields[3]:
		return nil, errors.New("does not have the checksum that it names")
	case fields[1] != name:
		return nil, fmt.Errorf("holds the secret %q", fields[1])
	}
	secret, err := base64.StdEncoding.Strict().DecodeString(fields[2])
	if err != nil {
		return nil, errors.New("is not base64")
	}
	return secret, nil
}

// readSecret reads a secret file of a folder and refuses one that is missing,
// damaged, of another length than want (unless want is 0), or open to others.
func readSecret(fs vfs.FS, folder, name string, want int) ([]byte, error) {
	path := fs.PathJoin(folder, name)
	if onDisk(fs) {
		if err := CheckPrivate(path); err != nil {
			return nil, err
		}
	}
	content, err := readFile(fs, path, secretLimit)
	if errors.Is(err, os.ErrNotExist) {
		return nil, damaged(path, "is missing", err)
	}
	if err != nil {
		return nil, fmt.Errorf("can't read the secret %s: make it readable for this user, or restore it from a backup (%w)", path, err)
	}
	secret, err := decodeSecret(name, content)
	if err != nil {
		return nil, damaged(path, err.Error(), err)
	}
	if want != 0 && len(secret) != want {
		return nil, damaged(path, fmt.Sprintf("holds %d bytes instead of %d", len(secret), want), nil)
	}
	return secret, nil
}

// damaged refuses a secret. There is no remedy but a backup: the log and every
// user's record depend on these very bytes.
func damaged(path, how string, err error) error {
	return &Refused{
		Kind:   ErrDamaged,
		Cause:  fmt.Sprintf("secret %s %s", path, how),
		Remedy: "restore it from the backup of this server (a new secret would not fit the log and the users' records)",
		Err:    err,
	}
}
