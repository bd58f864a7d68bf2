package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

type verifyCommand struct {
	Name             string `arg:"" help:"Username."`
	Bundle           string `placeholder:"FILE" help:"Keep the proof in a file, which 'qpc-audit verify FILE' checks without a network."`
	AcceptGeneration uint32 `placeholder:"N" help:"Go on with a log that its operator began anew as generation N. Ask why first."`
}

func (verifyCommand) Help() string {
	return `Asks the server for all keys of a person, with the proof that they are in its log, that there are no others and no newer ones, and whether one of them is revoked. The proof is checked here; the server is not believed. What was checked before must be part of it: a server that once showed this home another history is caught, and the proof of that is kept.`
}

// Run proves a person's keys and prints what the log says.
func (cmd verifyCommand) Run(ctx context.Context, a *app) error {
	_, _, c, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if cmd.AcceptGeneration > 0 {
		if err := c.ConsentToGeneration(cmd.AcceptGeneration); err != nil {
			return err
		}
	}
	answer, err := c.ProveUser(ctx, cmd.Name, true)
	if err != nil {
		return err
	}
	if cmd.Bundle != "" {
		content, err := answer.Bundle().Marshal()
		if err != nil {
			return err
		}
		if err := replaceFile(cmd.Bundle, append(content, '\n')); err != nil {
			return err
		}
	}
	if !answer.Person.Exists() {
		return &exitError{int(pb.Status_NotFound), errors.New(absence(answer.Person))}
	}
	if a.JSON {
		return a.print(verified(answer), "")
	}
	return describe(a.stdout, answer, time.Now())
}

// absence says in a sentence that nobody has the name.
func absence(p *kt.Person) string {
	if p.Gone {
		return fmt.Sprintf("proved: the account %s was deleted; nobody can have that name again", p.Username)
	}
	return fmt.Sprintf("proved: nobody ever had the name %s", p.Username)
}

// describe prints an answer for a person.
func describe(out io.Writer, answer *kt.Answer, now time.Time) error {
	p, i, head := answer.Person, answer.Person.Identity, answer.Head
	text := fmt.Sprintf("%s: proved by the log of %s\n", p.Username, head.Origin)
	text += fmt.Sprintf("identity key  %s\n", fingerprint(i.Key))
	for _, b := range p.Bindings {
		text += fmt.Sprintf("  binding %d    %s\n", b.Version, bindingText(b))
	}
	text += fmt.Sprintf("KeySet        version %d of %s\n", i.KeySet.GetVersion(), time.UnixMilli(int64(i.KeySet.GetTimeMs())).Local().Format(time.DateTime))
	for _, key := range i.KeySet.GetDeviceKeys() {
		text += fmt.Sprintf("  device      %s%s\n", fingerprint(key), revokedText(i.DeviceRevocations[string(key)]))
	}
	if i.KeySet.GetKemId() != 0 {
		text += "  hybrid key  published\n"
	}
	if i.Revocation != nil {
		text += fmt.Sprintf("REVOKED      %s\n", revokedText(i.Revocation))
	} else {
		text += "revoked       no\n"
	}
	age := now.Sub(time.UnixMilli(int64(head.Head.TimeMS))).Round(time.Second)
	text += fmt.Sprintf("There is no newer binding, KeySet or revocation in the %d entries of the log as of %s ago.\n", head.Size, max(age, 0))
	_, err := io.WriteString(out, text)
	return err
}

func bindingText(b kt.Binding) string {
	switch {
	case !b.Opened:
		return "erased"
	case b.Authority == pb.Authority_OLD_KEY:
		return fingerprint(b.IdentityKey) + ", signed by the key before it"
	case b.Authority == pb.Authority_ADMINISTRATOR:
		return fingerprint(b.IdentityKey) + ", on the word of the server's administrator alone: compare with that person"
	}
	return fingerprint(b.IdentityKey) + ", first registration"
}

func revokedText(r *kt.Revocation) string {
	if r == nil {
		return ""
	}
	by := "signed by " + map[pb.Authority]string{pb.Authority_KEY: "the key itself", pb.Authority_IDENTITY: "the identity key"}[r.Authority]
	if !r.Signed {
		by = "on the server's word"
	}
	return fmt.Sprintf(" revoked %s, %s", time.UnixMilli(int64(r.TimeMS)).Local().Format(time.DateTime), by)
}

// verified is an answer for programs.
func verified(answer *kt.Answer) map[string]any {
	i := answer.Person.Identity
	devices := []map[string]any{}
	for _, key := range i.KeySet.GetDeviceKeys() {
		devices = append(devices, map[string]any{"device_key": hex.EncodeToString(key), "revoked": i.DeviceRevocations[string(key)] != nil})
	}
	newest := answer.Person.Bindings[len(answer.Person.Bindings)-1]
	return map[string]any{
		"username": answer.Person.Username, "identity_key": hex.EncodeToString(i.Key), "binding_version": newest.Version,
		"authority": newest.Authority.String(), "keyset_version": i.KeySet.GetVersion(), "devices": devices, "revoked": i.Revocation != nil,
		"origin": answer.Head.Origin, "log_size": answer.Head.Size, "head_time_ms": answer.Head.Head.TimeMS, "cosignatures": len(answer.Head.Cosignatures),
	}
}
