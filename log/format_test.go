package log

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var testFormat = Format{Version: FormatVersion, StoreID: [16]byte{0x01, 0x23, 15: 0xff}}

const testFormatText = "quicprochat data directory, format 1\nstore 012300000000000000000000000000ff\n"

func TestFormat(t *testing.T) {
	fs := vfs.NewCrashableMem()
	if _, err := ReadFormat(fs, ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v, want os.ErrNotExist", err)
	}
	if err := WriteFormat(fs, "", testFormat); err != nil {
		t.Fatal(err)
	}
	after := fs.CrashClone(vfs.CrashCloneCfg{})
	if got := string(readFile(t, after, FormatFile)); got != testFormatText {
		t.Errorf("file is %q, want %q", got, testFormatText)
	}
	f, err := ReadFormat(after, "")
	if err != nil || f != testFormat {
		t.Errorf("read %v %v, want %v", f, err, testFormat)
	}
	if names, _ := after.List(""); len(names) != 1 {
		t.Errorf("files after writing: %v", names)
	}
}

func TestFormatRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		text    string
		version int
		says    string
	}{
		"newer":           {strings.Replace(testFormatText, "format 1", "format 2", 1), 2, "use the newer program"},
		"newer, unlike":   {"quicprochat data directory, format 7\nwhatever\n", 7, "use the newer program"},
		"empty":           {"", -1, "backup"},
		"older":           {strings.Replace(testFormatText, "format 1", "format 0", 1), 0, "start with a new data directory"},
		"no store":        {"quicprochat data directory, format 1\n", -1, "backup"},
		"short store":     {"quicprochat data directory, format 1\nstore 0123\n", -1, "backup"},
		"no end of line":  {strings.TrimSuffix(testFormatText, "\n"), -1, "backup"},
		"more":            {testFormatText + "\n", -1, "backup"},
		"upper case":      {strings.Replace(testFormatText, "ff", "FF", 1), -1, "backup"},
		"signed version":  {strings.Replace(testFormatText, "format 1", "format +1", 1), -1, "backup"},
		"leading zero":    {strings.Replace(testFormatText, "format 1", "format 01", 1), -1, "backup"},
		"another program": {"PostgreSQL 18\n", -1, "backup"},
		"too long":        {testFormatText + strings.Repeat("x", formatLimit), -1, "backup"},
	} {
		fs := vfs.NewMem()
		writeFile(t, fs, FormatFile, []byte(c.text))
		_, err := ReadFormat(fs, "")
		var fe *FormatError
		if !errors.As(err, &fe) || fe.Version != c.version || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want a FormatError of version %d that says %q", name, err, c.version, c.says)
		}
	}
}

// fuzzFormat: what is accepted is exactly what WriteFormat writes.
func fuzzFormat(t *testing.T, text string) {
	got, err := parseFormat(text)
	if err != nil || got.Version > FormatVersion {
		return
	}
	fs := vfs.NewMem()
	if err := WriteFormat(fs, "", got); err != nil {
		t.Fatal(err)
	}
	if again := string(readFile(t, fs, FormatFile)); again != text {
		t.Fatalf("accepted %q, which is written as %q", text, again)
	}
}
