package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// errForeignChange: the log holds something about this home's own name or keys
// that this home did not do. Everybody else sees it, too.
var errForeignChange = errors.New("NOT DONE BY THIS HOME")

// monitor asks the log, at each login, whose this home's own name is. A server can
// bind it to another key, or revoke a key, on its own word: only the owner can tell
// that nobody asked for it.
func (h *home) monitor(ctx context.Context, c *client.Client, k *keys) error {
	p, err := c.LookupUser(ctx, k.Username)
	if err != nil {
		return err
	}
	return foreignChange(p, identityOf(k))
}

func foreignChange(p *kt.Person, identity []byte) error {
	foreign := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format+": do not trust this server, and ask its operator", append([]any{errForeignChange}, args...)...)
	}
	switch {
	case !p.Exists():
		return foreign("%s", absence(p))
	case !bytes.Equal(p.Identity.Key, identity):
		word := "signed by this home's key"
		if p.Bindings[len(p.Bindings)-1].Authority == pb.Authority_ADMINISTRATOR {
			word = "on the word of the server's administrator alone"
		}
		return foreign("others are told that %s has the identity key %s, %s", p.Username, fingerprint(p.Identity.Key), word)
	case p.Identity.Revocation != nil:
		return foreign("others are told that the identity key of %s is%s", p.Username, revokedText(p.Identity.Revocation))
	}
	return nil
}
