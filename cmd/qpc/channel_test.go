package main

import (
	"bytes"
	"testing"
)

func TestChannelNames(t *testing.T) {
	key, other := bytes.Repeat([]byte{1}, channelKeySize), bytes.Repeat([]byte{2}, channelKeySize)
	sealed, err := sealChannelName(key, "friends")
	if err != nil || bytes.Contains(sealed, []byte("friends")) {
		t.Fatalf("%x, %v", sealed, err)
	}
	if name, err := openChannelName(key, sealed); err != nil || name != "friends" {
		t.Errorf("%q, %v", name, err)
	}
	if _, err := openChannelName(other, sealed); err == nil {
		t.Error("opened with another key")
	}
	if _, err := openChannelName(key, nil); err == nil {
		t.Error("opened nothing")
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		if _, err := openChannelName(key, changed); err == nil {
			t.Errorf("opened with byte %d changed", i)
		}
	}
	for _, name := range []string{"", " x", "x\n", "a\tb", "\x1b[31m", string(make([]byte, 101))} {
		if checkChannelName(name) == nil {
			t.Errorf("%q is taken for a name", name)
		}
	}
}

func TestChannelNotes(t *testing.T) {
	note := channelNote{Name: "friends", Key: bytes.Repeat([]byte{1}, channelKeySize), Members: []string{"alice", "bob"}}
	text, err := note.plaintext()
	if err != nil {
		t.Fatal(err)
	}
	got, is := parseChannelNote(text)
	if !is || got.Name != note.Name || !bytes.Equal(got.Key, note.Key) || len(got.Members) != 2 {
		t.Errorf("%+v, %v", got, is)
	}
	short := note
	short.Key = short.Key[1:]
	shortText, _ := short.plaintext()
	for name, text := range map[string][]byte{
		"a text": []byte("hello"), "no JSON": []byte(channelNoteMark + "hello"), "a short key": shortText,
		"an odd name": []byte(channelNoteMark + `{"name":"\u001b"}`),
	} {
		if _, is := parseChannelNote(text); is {
			t.Errorf("%s is taken for a note", name)
		}
	}
}
