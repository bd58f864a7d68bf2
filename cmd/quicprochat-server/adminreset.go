package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	pb "quicprochat/proto/qpcv1"
)

// run issues a reset token. Standard output gets the token alone, so that a
// script can pass it on; what to do with it stands on standard error.
func (c *resetCommand) run(ctx context.Context, p *process) error {
	resp := new(pb.ResetAccountResponse)
	err := c.adminFlags.session(ctx, p, func(call adminCall) error {
		return call(&pb.ResetAccountRequest{Username: c.Name}, resp)
	})
	if err != nil {
		return err
	}
	token, until := hex.EncodeToString(resp.GetResetToken()), time.UnixMilli(int64(resp.GetExpiresMs()))
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(map[string]any{
			"username": resp.GetUsername(), "reset_token": token, "expires_ms": resp.GetExpiresMs(),
			"identity_key": hex.EncodeToString(resp.GetIdentityKey()),
		})
	}
	if _, err := fmt.Fprintln(p.stdout, token); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stderr, `The line on standard output registers %[1]s anew, once, until %[2]s.
Hand it to that person and to nobody else: qpc register %[1]s, in a new home, with the
token in QPC_RESET_TOKEN or --reset-token-file.
Nothing changes before. Then the identity key %[3]x and all devices are
revoked, unread messages are lost, and everybody is shown that it was your word.
`, resp.GetUsername(), until.Local().Format(time.DateTime), resp.GetIdentityKey())
	return err
}
