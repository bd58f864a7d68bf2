package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// monitorCommand watches the keys of a home's own account.
type monitorCommand struct {
	askFlags `embed:""`
	User     string        `arg:"" optional:"" placeholder:"USER" help:"The own username, as a check that the home is the right one."`
	Once     bool          `help:"Check once and end."`
	Interval time.Duration `default:"1h" help:"Time between two checks."`
}

// Help is shown by monitor --help.
func (*monitorCommand) Help() string {
	return `Compares what the log says about the account of a qpc home (--home) with what this
home made itself: its identity key, and its newest KeySet with the devices in it.
Whatever else the log says, somebody else did, and monitor ends with status 1. Run it
beside the home: a new device or a new hybrid key that this home makes is known to it.`
}

// Run is called by kong.
func (c *monitorCommand) Run(ctx context.Context, a *app) (err error) {
	if c.Interval < time.Second {
		return usageError("--interval %v: give at least 1s", c.Interval)
	}
	asker, err := c.asker()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, asker.close()) }()
	last := errInterrupted
	for {
		text, err := c.check(ctx, asker)
		if ctx.Err() != nil {
			return last
		}
		last = err
		now := time.Now().UTC().Format(time.RFC3339)
		if err == nil {
			_, err = fmt.Fprintf(a.stdout, "%s satisfied: %s\n", now, text)
			if err != nil {
				return err
			}
		}
		status := statusOf(err)
		if err != nil && !c.Once {
			fmt.Fprintf(a.stdout, "%s %s: %v\n", now, verdicts[status], err)
		}
		if c.Once || status == exitEvidence || status == exitLocal || status == exitUsage {
			return err
		}
		select {
		case <-time.After(c.Interval):
		case <-ctx.Done():
			return last
		}
	}
}

// check asks once. The home is read anew: it may have made changes itself.
func (c *monitorCommand) check(ctx context.Context, asker *asker) (string, error) {
	h, err := c.homeFlags.open()
	if err != nil {
		return "", err
	}
	if c.User != "" && c.User != h.username {
		return "", usageError("the home is that of %s, not of %s", h.username, c.User)
	}
	if err := asker.connect(ctx); err != nil {
		return "", err
	}
	if err := h.use(asker.client); err != nil {
		return "", err
	}
	answer, err := asker.ask(ctx, kt.Query{Username: h.username})
	if sessionOver(err) {
		// That is how a revocation by somebody else looks from here.
		if foreign := h.revoked(ctx, asker); foreign != nil {
			return "", foreign
		}
	}
	if err != nil {
		return "", err
	}
	// A change that the home made while the question was on its way is its own.
	if again, err := c.homeFlags.open(); err == nil {
		h = again
	}
	if err := h.compare(answer.Person); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s has KeySet %d of %d device(s), as this home made it; %d leaves", h.username,
		answer.Person.Identity.KeySet.GetVersion(), len(answer.Person.Identity.DeviceKeys()), answer.Head.Size), nil
}

// sessionOver reports whether the server does not take the home's session any more.
func sessionOver(err error) bool {
	return client.ReasonOf(err) == pb.Reason_TOKEN_INVALID
}

// revoked asks, without a session, whether the home's own keys still count.
func (h *home) revoked(ctx context.Context, asker *asker) error {
	for _, own := range []struct {
		name string
		key  []byte
	}{{"the identity key", h.identity}, {"this device's key", h.device}} {
		answer, err := asker.ask(ctx, kt.Query{RevokedKey: own.key, Owner: h.identity})
		if err != nil {
			return err
		}
		if r := answer.Revocation.Revocation; r != nil {
			return foreign("%s is revoked: %s; all sessions with it have ended", own.name, revocationText(r))
		}
	}
	return nil
}

func foreign(format string, args ...any) error {
	return &exitError{exitEvidence, fmt.Errorf("NOT DONE BY THIS HOME: "+format, args...)}
}

// compare finds what the home did not do.
func (h *home) compare(p *kt.Person) error {
	switch {
	case p.Gone:
		return foreign("the account %s is deleted", h.username)
	case !p.Exists():
		return foreign("the log knows no account %s", h.username)
	case !bytes.Equal(p.Identity.Key, h.identity):
		newest := p.Bindings[len(p.Bindings)-1]
		word := "signed by the old key"
		if newest.Authority == pb.Authority_ADMINISTRATOR {
			word = "on the server's word alone"
		}
		return foreign("%s has another identity key, %s (%s)", h.username, fingerprint(p.Identity.Key), word)
	case p.Identity.Revocation != nil:
		return foreign("the identity key is revoked: %s", revocationText(p.Identity.Revocation))
	case !bytes.Equal(p.Identity.Raw, h.keySet):
		return foreign("KeySet version %d of %s, with devices %x, is not the one that this home made last; if you changed it on another device, bring this home up to date first (qpc login)",
			p.Identity.KeySet.GetVersion(), timeText(p.Identity.KeySet.GetTimeMs()), p.Identity.KeySet.GetDeviceKeys())
	case p.Identity.DeviceRevocations[string(h.device)] != nil:
		return foreign("this device's key is revoked: %s", revocationText(p.Identity.DeviceRevocations[string(h.device)]))
	}
	for _, key := range p.Identity.KeySet.GetDeviceKeys() {
		if r := p.Identity.DeviceRevocations[string(key)]; r != nil && r.Authority == pb.Authority_ADMINISTRATOR {
			return foreign("the device key %s is revoked: %s", fingerprint(key), revocationText(r))
		}
	}
	return nil
}
