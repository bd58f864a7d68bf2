package datadir

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var allSecrets = []string{caKeyFile, logKeyFile, vrfSeedFile, opaqueFile, fakeFile}

func TestSecretFileEncoding(t *testing.T) {
	const want = "qpc-secret-v1 vrf-seed AAECAwQFBgcICQoLDA0ODw== "
	secret := []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	content := encodeSecret("vrf-seed", secret)
	if !strings.HasPrefix(string(content), want) || len(content) != len(want)+16+1 {
		t.Errorf("encoded as %q", content)
	}
	got, err := decodeSecret("vrf-seed", content)
	if err != nil || !bytes.Equal(got, secret) {
		t.Errorf("decoded as %x (%v)", got, err)
	}
}

// TestSecretFileDamage changes each byte of each secret file in three ways: no
// damage may pass as another secret.
func TestSecretFileDamage(t *testing.T) {
	s, err := newSecrets()
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string][]byte{vrfSeedFile: s.VRFSeed[:], opaqueFile: s.OPAQUE.Marshal(), fakeFile: s.FakeRecord} {
		content := encodeSecret(name, secret)
		for i := range content {
			for _, mask := range []byte{0x01, 0x20, 0x80} {
				bad := bytes.Clone(content)
				bad[i] ^= mask
				if got, err := decodeSecret(name, bad); err == nil {
					t.Fatalf("%s: byte %d changed by %#02x decodes to %d bytes", name, i, mask, len(got))
				} else if bytes.Contains([]byte(err.Error()), content[len(content)-30:len(content)-18]) {
					t.Fatalf("%s: the error tells the secret: %v", name, err)
				}
			}
		}
		for end := range content {
			if _, err := decodeSecret(name, content[:end]); err == nil {
				t.Fatalf("%s: cut to %d bytes it still decodes", name, end)
			}
		}
		if _, err := decodeSecret(name, append(bytes.Clone(content), '\n')); err == nil {
			t.Fatalf("%s: decodes with a line after it", name)
		}
	}
}

// TestSecretRefused opens a directory with each secret spoiled in each way.
func TestSecretRefused(t *testing.T) {
	fs := vfs.NewMem()
	created(t, fs, "data", "")
	for _, name := range allSecrets {
		path := "data/secrets/" + name
		good, err := readFile(fs, path, secretLimit)
		if err != nil {
			t.Fatal(err)
		}
		for what, spoil := range map[string]func() error{
			"missing": func() error { return fs.Remove(path) },
			"empty":   func() error { return writeFile(fs, path, nil, 0o600) },
			"cut":     func() error { return writeFile(fs, path, good[:len(good)/2], 0o600) },
			"short":   func() error { return writeFile(fs, path, encodeSecret(name, []byte("short")), 0o600) },
			"other name": func() error {
				return writeFile(fs, path, encodeSecret("other", []byte("secret")), 0o600)
			},
			"sealed": func() error {
				return writeFile(fs, path, bytes.Replace(good, []byte("qpc-secret-v1"), []byte("qpc-sealed-v1"), 1), 0o600)
			},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				if err := spoil(); err != nil {
					t.Fatal(err)
				}
				_, err := Open(context.Background(), fs, "data", Options{})
				refused(t, err, ErrDamaged, path, "backup")
			})
		}
		if err := writeFile(fs, path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := open(t, fs, "data", Options{})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestInvalidKeys: right checksum and size are not enough.
func TestInvalidKeys(t *testing.T) {
	fs := vfs.NewMem()
	created(t, fs, "data", "")
	for name, size := range map[string]int{caKeyFile: 100, opaqueFile: 129, fakeFile: 192} {
		path := "data/secrets/" + name
		good, err := readFile(fs, path, secretLimit)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeFile(fs, path, encodeSecret(name, bytes.Repeat([]byte{0xff}, size)), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = Open(context.Background(), fs, "data", Options{})
		refused(t, err, ErrDamaged, name)
		if err := writeFile(fs, path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	s, err := newSecrets()
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, s); text != "Secrets(secret)" {
			t.Errorf("%s prints %q", format, text)
		}
	}
}

func FuzzSecretFile(f *testing.F) {
	f.Add("vrf-seed", encodeSecret("vrf-seed", make([]byte, 32)))
	f.Add("log-key", encodeSecret("log-key", nil))
	f.Add("x", []byte("qpc-secret-v1 x AA== 0000000000000000\n"))
	f.Add("", []byte("\n"))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		secret, err := decodeSecret(name, content)
		if err != nil {
			return
		}
		if again := encodeSecret(name, secret); !bytes.Equal(again, content) {
			t.Errorf("%q decodes, but encodes to %q", content, again)
		}
	})
}
