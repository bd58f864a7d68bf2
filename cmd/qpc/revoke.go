package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

type revokeCommand struct {
	Key    string `arg:"" optional:"" help:"Key of this account, 64 hexadecimal digits. Default: its identity key."`
	Reason string `enum:"unspecified,key-compromise,superseded,cessation" default:"key-compromise" help:"Reason, which everybody can see (${enum})."`
	Save   string `placeholder:"FILE" help:"Revoke nothing: write the signed statement into a file, for the day on which this home is lost or stolen."`
	From   string `placeholder:"FILE" help:"Send the statement that --save wrote. It needs no home and no password."`
	Yes    bool   `help:"Do it: it can't be taken back."`
}

func (revokeCommand) Help() string {
	return `Puts a key out of use for ever, by a signature alone: whoever has it needs no password. When the identity key is revoked, all sessions of the account end, nobody seals messages for it any more, and only an administrator's reset makes the name usable again ('quicprochat-server admin reset NAME'). To take out one device, 'qpc device revoke' is better: the account goes on with another key for messages.

A statement that was saved in time and is kept apart revokes the key of a home that is gone.`
}

// savedRevocation is the file of --save. Whoever has it can revoke the key.
type savedRevocation struct {
	Format     string `json:"format"`
	ServerName string `json:"server_name"`
	Key        string `json:"key"`
	Reason     uint32 `json:"reason"`
	Signature  []byte `json:"signature"`
}

const revocationFormat = "qpc-revocation-v1"

// Run signs a revocation, or takes one that was signed, and saves or sends it.
func (cmd revokeCommand) Run(ctx context.Context, a *app) error {
	if cmd.From != "" && (cmd.Key != "" || cmd.Save != "") {
		return usageError("--from sends what the file says: give neither a key nor --save")
	}
	saved, err := cmd.statement(a)
	if err != nil {
		return err
	}
	key, err := decodeHex(saved.Key, ed25519.PublicKeySize)
	if err != nil {
		return err
	}
	if cmd.Save != "" {
		content, err := json.MarshalIndent(saved, "", "  ")
		if err != nil {
			return err
		}
		if err := writeNew(cmd.Save, append(content, '\n')); err != nil {
			return err
		}
		return a.print(map[string]any{"key": saved.Key, "file": cmd.Save},
			"Nothing is revoked. Whoever has %s can revoke %s: qpc revoke --from %s --yes", cmd.Save, fingerprint(key), cmd.Save)
	}
	if !cmd.Yes {
		return usageError("this puts %s out of use for ever: repeat it with --yes", fingerprint(key))
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if c.ServerName() != saved.ServerName {
		return usageError("the statement is for the server named %q, this is %q", saved.ServerName, c.ServerName())
	}
	resp, err := c.RevokeKey(ctx, &pb.RevokeKeyRequest{Key: key, Reason: saved.Reason, Signature: saved.Signature})
	if err != nil {
		return err
	}
	object := map[string]any{"key": saved.Key, "time_ms": resp.GetRevocation().GetTimeMs()}
	return a.print(object, "Revoked %s.%s", fingerprint(key), tellProof(c, object, "this revocation"))
}

// statement is the one of the file, or one signed by a key of the home.
func (cmd revokeCommand) statement(a *app) (*savedRevocation, error) {
	if cmd.From != "" {
		return readRevocation(cmd.From)
	}
	h, err := openHome(a.Home)
	if err != nil {
		return nil, err
	}
	k, err := h.keys()
	if err != nil {
		return nil, err
	}
	key := identityOf(k)
	if cmd.Key != "" {
		if key, err = decodeHex(cmd.Key, ed25519.PublicKeySize); err != nil {
			return nil, usageError("%q is no key: %w", cmd.Key, err)
		}
	}
	signer := k.device()
	if !bytes.Equal(key, public(signer)) {
		if !k.holdsIdentity() {
			return nil, errNoIdentity
		}
		signer = k.identity()
	}
	reason := revocationReasons[cmd.Reason]
	s := statement.Revoke{ServerName: k.ServerName, Key: key, Reason: reason}
	return &savedRevocation{revocationFormat, k.ServerName, hex.EncodeToString(key), uint32(reason), s.Sign(signer)}, nil
}

func readRevocation(file string) (*savedRevocation, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	saved := new(savedRevocation)
	if json.Unmarshal(content, saved) != nil || saved.Format != revocationFormat {
		return nil, usageError("%s is no statement that 'qpc revoke --save' wrote", file)
	}
	if _, err := decodeHex(saved.Key, ed25519.PublicKeySize); err != nil {
		return nil, usageError("%s is damaged: its key: %w", file, err)
	}
	return saved, nil
}

// revocationReasons are the words of --reason, with their numbers in the log.
var revocationReasons = map[string]statement.RevocationReason{
	"unspecified":    statement.ReasonUnspecified,
	"key-compromise": statement.ReasonKeyCompromise,
	"superseded":     statement.ReasonSuperseded,
	"cessation":      statement.ReasonCessation,
}

func public(key ed25519.PrivateKey) []byte { return key.Public().(ed25519.PublicKey) }

// tellProof says that the reply to a change of keys proved what, and notes it in the
// object for programs.
func tellProof(c *client.Client, object map[string]any, what string) string {
	head := c.ProvedChange()
	object["proved"] = head != nil
	if head == nil {
		return fmt.Sprintf("\nNo proof came with the answer: 'qpc verify NAME' tells whether the log holds %s.", what)
	}
	object["log_size"] = head.Size
	return fmt.Sprintf("\nProved: the log of %s holds %s, in %d entries.", head.Origin, what, head.Size)
}
