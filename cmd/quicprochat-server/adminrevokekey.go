package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"quicprochat/commands"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// revocationReasons are the words of --reason, with their numbers in the log.
var revocationReasons = map[string]statement.RevocationReason{
	"unspecified":    statement.ReasonUnspecified,
	"key-compromise": statement.ReasonKeyCompromise,
	"superseded":     statement.ReasonSuperseded,
	"cessation":      statement.ReasonCessation,
}

// revocationAuthorities say on whose word a revocation stands.
var revocationAuthorities = map[pb.Authority]string{
	pb.Authority_KEY:           "signed by the key itself",
	pb.Authority_IDENTITY:      "signed by its identity key",
	pb.Authority_SESSION_LOGIN: "on the word of a login",
	pb.Authority_ADMINISTRATOR: "on the word of an administrator",
}

// Validate is called by kong after parsing.
func (c *revokeKeyCommand) Validate(k *kong.Context) error {
	if _, err := c.key(); err != nil {
		return err
	}
	return c.adminFlags.Validate(k)
}

func (c *revokeKeyCommand) key() ([]byte, error) {
	key, err := hex.DecodeString(strings.ReplaceAll(c.Key, " ", ""))
	if err != nil || len(key) != commands.KeySize {
		return nil, fmt.Errorf("%q is no key: give %d hexadecimal digits", c.Key, 2*commands.KeySize)
	}
	return key, nil
}

// run revokes a key. The answer is what stands in the log, also when that is an
// earlier revocation.
func (c *revokeKeyCommand) run(ctx context.Context, p *process) error {
	key, err := c.key()
	if err != nil {
		return err
	}
	resp := new(pb.RevokeAnyKeyResponse)
	err = c.adminFlags.session(ctx, p, func(call adminCall) error {
		return call(&pb.RevokeAnyKeyRequest{Key: key, Reason: uint32(revocationReasons[c.Reason])}, resp)
	})
	if err != nil {
		return err
	}
	r := resp.GetRevocation()
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(map[string]any{
			"key": hex.EncodeToString(key), "reason": r.GetReason(), "authority": r.GetAuthority().String(), "time_ms": r.GetTimeMs(),
		})
	}
	_, err = fmt.Fprintf(p.stdout, "%x is revoked since %s, %s, reason %s\n", key,
		time.UnixMilli(int64(r.GetTimeMs())).Local().Format(time.DateTime), revocationAuthorities[r.GetAuthority()], reasonName(r.GetReason()))
	return err
}

func reasonName(number uint32) string {
	for name, reason := range revocationReasons {
		if uint32(reason) == number {
			return name
		}
	}
	return fmt.Sprint(number)
}
