package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// channelRoom is what a home knows of a channel. Members are the people whom somebody
// in the channel named in a sealed message: posts are sealed for them and for nobody
// else, whoever the server lists.
type channelRoom struct {
	Name string `json:"name"`
	// Key opens the name that the server keeps; 32 bytes.
	Key     []byte   `json:"key"`
	Members []string `json:"members"` // usernames, with the own one
}

// channels loads the channels by their id, 32 hexadecimal digits.
func (h *home) channels() (map[string]*channelRoom, error) {
	all := map[string]*channelRoom{}
	if err := h.load(channelsFile, &all); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return all, nil
}

// changeChannels changes the file; what change returns is not saved with an error.
func (h *home) changeChannels(change func(map[string]*channelRoom) error) error {
	defer h.lockChannels()()
	all, err := h.channels()
	if err != nil {
		return err
	}
	if err := change(all); err != nil {
		return err
	}
	return h.save(channelsFile, all)
}

// findChannel finds a channel by name, or by the beginning of its id.
func (h *home) findChannel(name string) (id []byte, c *channelRoom, err error) {
	all, err := h.channels()
	if err != nil {
		return nil, nil, err
	}
	var found []string
	for digits, room := range all {
		if room.Name == name || (len(name) >= 4 && strings.HasPrefix(digits, strings.ToLower(name))) {
			found = append(found, digits)
		}
	}
	slices.Sort(found)
	switch len(found) {
	case 0:
		return nil, nil, usageError("no channel %q in this home: 'qpc channel list' shows them, and 'qpc recv' reads invitations", name)
	case 1:
		id, err = hex.DecodeString(found[0])
		return id, all[found[0]], err
	}
	return nil, nil, usageError("%q is one of several channels: name it by its id, %s", name, strings.Join(found, " or "))
}

// channelNote is what members tell each other of a channel, inside a sealed message
// within it: an invitation for who does not know the channel, else who came and went.
//
//	plaintext = "qpc-channel-v1" ‖ 0x0a ‖ JSON
type channelNote struct {
	Name    string   `json:"name"`
	Key     []byte   `json:"key"`
	Members []string `json:"members"`
	Removed []string `json:"removed,omitempty"`
}

const channelNoteMark = "qpc-channel-v1\n"

func (n *channelNote) plaintext() ([]byte, error) {
	text, err := json.Marshal(n)
	return append([]byte(channelNoteMark), text...), err
}

// parseChannelNote is false for what is no note.
func parseChannelNote(plaintext []byte) (*channelNote, bool) {
	text, marked := bytes.CutPrefix(plaintext, []byte(channelNoteMark))
	n := new(channelNote)
	if !marked || json.Unmarshal(text, n) != nil || len(n.Key) != channelKeySize || checkChannelName(n.Name) != nil {
		return nil, false
	}
	return n, true
}

const channelKeySize = 32

// checkChannelName refuses names that a terminal or a person would stumble over.
func checkChannelName(name string) error {
	if name == "" || len(name) > 100 || strings.TrimSpace(name) != name || printable([]byte(name)) != name || strings.ContainsAny(name, "\n\t") {
		return usageError("a channel's name has 1 to 100 bytes, on one line, without spaces around it")
	}
	return nil
}

// channelNameLabel is what a sealed name is bound to.
const channelNameLabel = "qpc-channel-name-v1"

// sealChannelName encrypts a name for those who have the channel's key:
// AES-256-GCM, nonce[12] ‖ ciphertext.
func sealChannelName(key []byte, name string) ([]byte, error) {
	aead, err := channelAEAD(key)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(name)+aead.Overhead())
	_, _ = rand.Read(nonce) // never fails, by its documentation
	return aead.Seal(nonce, nonce, []byte(name), []byte(channelNameLabel)), nil
}

// openChannelName gives the name that the server keeps, or an error when somebody
// without the key wrote it.
func openChannelName(key, sealed []byte) (string, error) {
	aead, err := channelAEAD(key)
	if err != nil {
		return "", err
	}
	if len(sealed) < aead.NonceSize() {
		return "", errors.New("the server keeps no name for the channel")
	}
	name, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], []byte(channelNameLabel))
	if err != nil {
		return "", fmt.Errorf("the channel's name was not written by a member: %w", err)
	}
	return string(name), checkChannelName(string(name))
}

func channelAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
