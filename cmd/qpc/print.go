package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// print writes one result: an object for programs, a sentence for a person.
func (a *app) print(object map[string]any, format string, args ...any) error {
	if a.JSON {
		return json.NewEncoder(a.stdout).Encode(object)
	}
	_, err := fmt.Fprintf(a.stdout, format+"\n", args...)
	return err
}

// fingerprint is a key in groups of eight digits, for people who compare.
func fingerprint(key []byte) string {
	digits := hex.EncodeToString(key)
	var groups []string
	for len(digits) > 8 {
		groups, digits = append(groups, digits[:8]), digits[8:]
	}
	return strings.Join(append(groups, digits), " ")
}

// decodeHex reads a key of size bytes, with or without spaces in between.
func decodeHex(text string, size int) ([]byte, error) {
	raw, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil || len(raw) != size {
		return nil, fmt.Errorf("want %d hexadecimal digits", 2*size)
	}
	return raw, nil
}

// printable keeps a message's control characters off the terminal.
func printable(text []byte) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || (r >= 0x20 && r != 0x7f && (r < 0x80 || r >= 0xa0)) {
			return r
		}
		return '\uFFFD'
	}, strings.ToValidUTF8(string(text), "\uFFFD"))
}
