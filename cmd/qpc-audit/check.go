package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// checkCommand asks about one person or key.
type checkCommand struct {
	askFlags `embed:""`
	Subject  string `arg:"" placeholder:"USER|KEY" help:"A username, or 64 hexadecimal digits of a key."`
	Bundle   string `placeholder:"FILE" help:"Save the proof: 'qpc-audit verify FILE' checks it without a network."`
}

// Help is shown by check --help.
func (*checkCommand) Help() string {
	return `About a person the server is asked for every key it ever showed to anybody and for
the proof that there is no newer one; that needs the session of a qpc home (--home).
Whether a key is revoked anybody may ask.`
}

// Run is called by kong.
func (c *checkCommand) Run(ctx context.Context, a *app) (err error) {
	query, err := queryOf(c.Subject)
	if err != nil {
		return err
	}
	asker, err := c.asker()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, asker.close()) }()
	var h *home
	if query.Username != "" {
		if h, err = c.homeFlags.open(); err != nil {
			return err
		}
	}
	if err := asker.connect(ctx); err != nil {
		return err
	}
	if h != nil {
		if err := h.use(asker.client); err != nil {
			return err
		}
	}
	answer, err := asker.ask(ctx, query)
	if err != nil {
		return err
	}
	if c.Bundle != "" {
		if err := writeBundle(answer, c.Bundle); err != nil {
			return err
		}
	}
	return writeAnswer(a.stdout, c.Subject, answer)
}

// queryOf tells keys from usernames: no username has 64 characters.
func queryOf(subject string) (kt.Query, error) {
	if key, err := hex.DecodeString(strings.ReplaceAll(subject, " ", "")); err == nil && len(key) == 32 {
		return kt.Query{RevokedKey: key}, nil
	}
	username, err := statement.CanonicalUsername(subject)
	if err != nil {
		return kt.Query{}, usageError("%q is neither a username nor a key of 64 hexadecimal digits (%w)", subject, err)
	}
	return kt.Query{Username: username}, nil
}

// writeAnswer tells a person what was proved.
func writeAnswer(w io.Writer, subject string, answer *kt.Answer) error {
	var b strings.Builder
	switch {
	case answer.Person != nil:
		writePerson(&b, answer.Person)
	case answer.Identity != nil:
		writeIdentity(&b, answer.Identity)
	case answer.Revocation != nil && answer.Revocation.Revocation != nil:
		fmt.Fprintf(&b, "%s is REVOKED: %s\n", subject, revocationText(answer.Revocation.Revocation))
	case answer.Revocation != nil:
		fmt.Fprintf(&b, "%s is not revoked\n", subject)
	}
	head := answer.Head
	fmt.Fprintf(&b, "proved under the head of %s with %d leaves, made %s\n", head.Origin, head.Size, timeText(head.Head.TimeMS))
	for _, c := range head.Cosignatures {
		fmt.Fprintf(&b, "cosigned by %s at %s\n", c.Name, timeText(c.Seconds*1000))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func timeText(ms uint64) string { return time.UnixMilli(int64(ms)).UTC().Format(time.RFC3339) }

func writePerson(b *strings.Builder, p *kt.Person) {
	switch {
	case p.Gone:
		fmt.Fprintf(b, "%s had an account and it is deleted: whoever shows a key for this name now lies\n", p.Username)
		return
	case !p.Exists():
		fmt.Fprintf(b, "%s has no account: nobody ever registered this name\n", p.Username)
		return
	}
	fmt.Fprintf(b, "%s: these are all keys of this name, and there is no newer one\n", p.Username)
	for _, binding := range p.Bindings {
		fmt.Fprintf(b, "  binding %d: %s\n", binding.Version, bindingText(binding))
	}
	writeIdentity(b, p.Identity)
}

func bindingText(binding kt.Binding) string {
	switch {
	case !binding.Opened:
		return "erased"
	case binding.Tombstone:
		return "deleted"
	}
	on := map[pb.Authority]string{
		pb.Authority_FIRST: "registered", pb.Authority_OLD_KEY: "handed over, signed by the old and the new key",
		pb.Authority_ADMINISTRATOR: "REPLACED ON THE SERVER'S WORD ALONE: ask the person",
	}[binding.Authority]
	return fmt.Sprintf("%s (%s)", fingerprint(binding.IdentityKey), on)
}

func writeIdentity(b *strings.Builder, i *kt.Identity) {
	fmt.Fprintf(b, "identity %s\n", fingerprint(i.Key))
	switch {
	case i.Revocation != nil:
		fmt.Fprintf(b, "  REVOKED: %s\n", revocationText(i.Revocation))
	case i.Gone:
		b.WriteString("  deleted\n")
	}
	if i.KeySet == nil {
		return
	}
	fmt.Fprintf(b, "  KeySet version %d of %s, signed by the identity\n", i.KeySet.GetVersion(), timeText(i.KeySet.GetTimeMs()))
	for _, key := range i.KeySet.GetDeviceKeys() {
		fmt.Fprintf(b, "  device %s", fingerprint(key))
		if r := i.DeviceRevocations[string(key)]; r != nil {
			fmt.Fprintf(b, " REVOKED: %s", revocationText(r))
		}
		b.WriteString("\n")
	}
}

func revocationText(r *kt.Revocation) string {
	by := "on the server's word"
	if r.Signed {
		by = "signed by its owner"
	}
	return fmt.Sprintf("%s, %s, %s", reasonText(r.Reason), timeText(r.TimeMS), by)
}

// reasonText names a reason as RFC 5280, section 5.3.1 does.
func reasonText(r statement.RevocationReason) string {
	switch r {
	case statement.ReasonUnspecified:
		return "no reason given"
	case statement.ReasonKeyCompromise:
		return "key compromise"
	case statement.ReasonSuperseded:
		return "superseded"
	case statement.ReasonCessation:
		return "cessation of operation"
	}
	return fmt.Sprintf("reason %d", r)
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
