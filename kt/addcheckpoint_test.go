package kt

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestAddCheckpoint(t *testing.T) {
	note := []byte("example.com/1\n7\nroot\n\n— example.com/1 signature\n")
	for _, a := range []AddCheckpoint{
		{Old: 0, Note: note},
		{Old: 20852014, Proof: []Hash{{1, 2, 3}, {}, {0xff}}, Note: note},
		{Old: 1<<64 - 1, Proof: make([]Hash, 63), Note: []byte("x\n\ny")},
	} {
		got, err := ParseAddCheckpoint(a.Append(nil))
		if err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%+v came back as %+v, %v", a, got, err)
		}
	}
	// The example of the specification, shortened.
	body := "old 20852014\nPlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\njrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\nsum.golang.org\n"
	got, err := ParseAddCheckpoint([]byte(body))
	if err != nil || got.Old != 20852014 || len(got.Proof) != 2 || got.Proof[0][0] != 0x3e || string(got.Note) != "sum.golang.org\n" {
		t.Errorf("%+v %v", got, err)
	}
}

func TestAddCheckpointRefuses(t *testing.T) {
	hash := "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n"
	for name, body := range map[string]string{
		"empty":              "",
		"no note":            "old 1\n\n",
		"no empty line":      "old 1\nnote",
		"no old":             hash + "\nnote",
		"other word":         "size 1\n\nnote",
		"leading zero":       "old 01\n\nnote",
		"sign":               "old +1\n\nnote",
		"too large a number": "old 18446744073709551616\n\nnote",
		"carriage return":    "old 1\r\n\nnote",
		"short hash":         "old 1\nAAAA\n\nnote",
		"other base64":       "old 1\n" + strings.Replace(hash, "kaw=", "kax=", 1) + "\nnote",
		"64 hashes":          "old 1\n" + strings.Repeat(hash, 64) + "\nnote",
		"too long":           "old 1\n\n" + strings.Repeat("x", MaxAddCheckpoint),
	} {
		if a, err := ParseAddCheckpoint([]byte(body)); !errors.Is(err, ErrAddCheckpoint) || !reflect.DeepEqual(a, AddCheckpoint{}) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}
