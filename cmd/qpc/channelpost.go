package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client/seal"
)

type channelPost struct {
	Channel string  `arg:"" help:"Name or id of the channel."`
	Text    string  `arg:"" optional:"" help:"The message; '-' reads it from stdin."`
	Opaque  string  `placeholder:"FILE" help:"Post the bytes of this file ('-': stdin) as they are, once for all members: what an MLS program made."`
	Epoch   *uint64 `placeholder:"N" help:"With --opaque: it is a commit of this epoch."`
}

func (channelPost) Help() string {
	return `Seals the text for each member who has joined, and queues it for all their devices. Members who have
not accepted yet, and people whom no member of the channel has named, get nothing; you are told.

With --opaque the file goes to the server as it is: give it only what is encrypted already.`
}

// Run posts a text sealed, or bytes as they are.
func (cmd channelPost) Run(ctx context.Context, a *app) error {
	switch {
	case (cmd.Text == "") == (cmd.Opaque == ""):
		return usageError("give either a text or --opaque")
	case cmd.Epoch != nil && cmd.Opaque == "":
		return usageError("--epoch goes with --opaque")
	}
	s, id, room, err := a.openChannel(ctx, cmd.Channel)
	if err != nil {
		return err
	}
	defer s.Close()
	if cmd.Opaque != "" {
		return cmd.postOpaque(ctx, s, id, room)
	}
	text, err := sendCommand{Text: cmd.Text}.text(a)
	if err != nil {
		return err
	}
	people, err := s.audience(ctx, id, room)
	if err != nil {
		return err
	}
	draft := s.draft(id, text)
	if people, err = s.sendAll(ctx, id, people, draft); err != nil && len(people) == 0 {
		return err
	}
	return errors.Join(err, a.print(map[string]any{"channel": hex.EncodeToString(id), "to": names(people), "id": hex.EncodeToString(draft.ID[:])},
		"Posted to %s%s.", room.Name, suffix(": ", names(people))))
}

// postOpaque posts one payload in the channel's order.
func (cmd channelPost) postOpaque(ctx context.Context, s *channelSession, id []byte, room *channelRoom) error {
	in := s.app.stdin
	if cmd.Opaque != "-" {
		file, err := os.Open(cmd.Opaque)
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	payload, err := io.ReadAll(io.LimitReader(in, maxOpaque+1))
	if err != nil {
		return err
	}
	if len(payload) == 0 || len(payload) > maxOpaque {
		return usageError("--opaque: %d bytes or more; 1 byte to 1 MiB can be posted", len(payload))
	}
	reply, err := s.Post(ctx, &pb.BatchEnqueueRequest{ChannelId: id, Payload: payload, ExpectedEpoch: cmd.Epoch})
	if err != nil {
		return err
	}
	return s.app.print(map[string]any{
		"channel": hex.EncodeToString(id), "message_id": hex.EncodeToString(reply.GetMessageId()),
		"channel_seq": reply.GetChannelSeq(), "epoch": reply.GetEpoch(),
	}, "Posted to %s as number %d; its epoch is %d.", room.Name, reply.GetChannelSeq(), reply.GetEpoch())
}

// maxOpaque is the longest payload of a post.
const maxOpaque = 1 << 20

// audience are the members whom a text is sealed for: those who have joined and
// whom a member has named. The server's list alone makes nobody a reader.
func (s *channelSession) audience(ctx context.Context, id []byte, room *channelRoom) ([]*person, error) {
	info, members, err := s.Members(ctx, id)
	if err != nil {
		return nil, err
	}
	people, err := s.meetMembers(ctx, room.Members)
	if err != nil {
		return nil, err
	}
	contacts, err := s.home.contacts()
	if err != nil {
		return nil, err
	}
	var readers []*person
	for _, m := range members {
		own := bytes.Equal(m.GetIdentityKey(), identityOf(s.keys))
		if own && info.GetSettings().GetPosting() == pb.PostingRule_POST_ADMINS && m.GetRole() == pb.ChannelRole_CHANNEL_MEMBER {
			return nil, fmt.Errorf("only owners and admins post to %s", room.Name)
		}
		if own {
			if m.GetState() != pb.MemberState_JOINED {
				return nil, fmt.Errorf("accept the invitation first: qpc channel accept %s", room.Name)
			}
			continue
		}
		i := slices.IndexFunc(people, func(p *person) bool { return bytes.Equal(p.keyset.GetIdentityKey(), m.GetIdentityKey()) })
		named := func(name string) bool { return bytes.Equal(contacts[name].IdentityKey, m.GetIdentityKey()) }
		switch {
		case i < 0 && slices.ContainsFunc(room.Members, named): // meetMembers has told why
		case i < 0:
			s.warn("somebody with identity key %s is listed in %s, but no member has named them: they get nothing", fingerprint(m.GetIdentityKey()), room.Name)
		case m.GetState() != pb.MemberState_JOINED:
			s.warn("%s has not accepted the invitation yet and gets nothing", people[i].name)
		default:
			readers = append(readers, people[i])
		}
	}
	return readers, nil
}

func (s *channelSession) warn(format string, args ...any) {
	fmt.Fprintf(s.app.stderr, "qpc: "+format+"\n", args...)
}

// draft is a text within a channel: one id for all who get it.
func (s *channelSession) draft(id, text []byte) seal.Draft {
	draft := seal.Draft{TimeMS: uint64(s.ServerTime().UnixMilli()), Text: text, ChannelID: id}
	_, _ = rand.Read(draft.ID[:]) // never fails, by its documentation
	return draft
}

// send seals a draft for one person and queues it. Within the channel on the wire,
// too, when channel is given: both must have joined then.
func (s *channelSession) send(ctx context.Context, channel []byte, to *person, draft seal.Draft) error {
	payload, err := seal.Seal(s.sender(), to.keyset, draft)
	if err != nil {
		return err
	}
	_, err = s.Enqueue(ctx, &pb.EnqueueRequest{
		Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: to.keyset.GetIdentityKey()}, Payload: payload, ChannelId: channel,
	})
	return err
}

// tellAll tells all members of the room what it is now.
func (s *channelSession) tellAll(ctx context.Context, id []byte, room *channelRoom, removed []string) error {
	people, err := s.meetMembers(ctx, room.Members)
	if err != nil {
		return err
	}
	return s.tell(ctx, id, room, people, removed)
}

// sendAll sends a draft to people. What keeps it from one of them, a full queue say,
// keeps it from nobody else: who got it is returned, with what went wrong for others.
func (s *channelSession) sendAll(ctx context.Context, channel []byte, people []*person, draft seal.Draft) (got []*person, err error) {
	for _, p := range people {
		if failed := s.send(ctx, channel, p, draft); failed != nil {
			err = errors.Join(err, fmt.Errorf("for %s: %w", p.name, failed))
			continue
		}
		got = append(got, p)
	}
	return got, err
}

// tell sends people and the other devices of this account the channel's name, key and
// members, sealed. On the wire it is a message like any other: who is only invited gets
// none within a channel.
func (s *channelSession) tell(ctx context.Context, id []byte, room *channelRoom, people []*person, removed []string) error {
	note := channelNote{Name: room.Name, Key: room.Key, Members: room.Members, Removed: removed}
	text, err := note.plaintext()
	if err != nil {
		return err
	}
	draft := s.draft(id, text)
	_, err = s.sendAll(ctx, nil, people, draft)
	return errors.Join(err, s.tellOwn(ctx, draft))
}

// tellOwn sends a draft to the other devices of this account.
func (s *channelSession) tellOwn(ctx context.Context, draft seal.Draft) error {
	own, err := s.ListDevices(ctx)
	if err != nil {
		return err
	}
	var payload []byte
	for _, device := range own.Active() {
		if bytes.Equal(device, s.keys.device().Public().(ed25519.PublicKey)) {
			continue
		}
		if payload == nil { // one for all: they share the key
			if payload, err = seal.Seal(s.sender(), own.KeySet, draft); err != nil {
				return err
			}
		}
		_, err := s.Enqueue(ctx, &pb.EnqueueRequest{Recipient: &pb.EnqueueRequest_RecipientDevice{RecipientDevice: device}, Payload: payload})
		if err != nil {
			return fmt.Errorf("for device %s: %w", fingerprint(device), err)
		}
	}
	return nil
}

func (s *channelSession) sender() seal.Sender {
	return seal.Sender{ServerName: s.ServerName(), Username: s.keys.Username, IdentityKey: identityOf(s.keys), Device: s.keys.device()}
}

// showNote takes in what a member tells of a channel. An unknown channel is an
// invitation; of a known one only its members are believed.
func (r *reader) showNote(from *person, id []byte, note *channelNote, sent time.Time) error {
	digits := hex.EncodeToString(id)
	invited, believed, renamed := false, false, ""
	var came, went []string
	err := r.home.changeChannels(func(all map[string]*channelRoom) error {
		room := all[digits]
		if room == nil {
			invited = true
			all[digits] = &channelRoom{Name: note.Name, Key: note.Key, Members: note.Members}
			return nil
		}
		if believed = slices.Contains(room.Members, from.name); !believed {
			return nil
		}
		for _, name := range note.Members {
			if !slices.Contains(room.Members, name) {
				came, room.Members = append(came, name), append(room.Members, name)
			}
		}
		room.Members = slices.DeleteFunc(room.Members, func(name string) bool {
			gone := slices.Contains(note.Removed, name)
			if gone {
				went = append(went, name)
			}
			return gone
		})
		if room.Name != note.Name {
			renamed, room.Name = room.Name, note.Name
		}
		return nil
	})
	if err != nil {
		return err
	}
	object := map[string]any{"channel": digits, "name": note.Name, "from": from.name, "time_ms": sent.UnixMilli()}
	at := "[" + sent.Local().Format(time.DateTime) + "] "
	switch {
	case invited && from.name == r.keys.Username:
		object["own"], object["members"] = true, note.Members
		return r.app.print(object, "%syour channel %s with %s, from another device of yours", at, note.Name, printable([]byte(strings.Join(note.Members, ", "))))
	case invited:
		object["invitation"], object["members"] = true, note.Members
		return r.app.print(object, "%s%s invites you to the channel %s with %s. Accept: qpc channel accept %s", at, from.name, note.Name, printable([]byte(strings.Join(note.Members, ", "))), digits[:8])
	case !believed:
		return &rejection{fmt.Errorf("%s tells about the channel %s and is not in it", from.name, note.Name)}
	}
	object["added"], object["removed"] = came, went
	if renamed != "" {
		object["renamed_from"] = renamed
		at += fmt.Sprintf("the channel %s is called %s now; ", renamed, note.Name)
	}
	if len(came)+len(went) == 0 && renamed == "" {
		return nil // the invitation again
	}
	return r.app.print(object, "%s%s changed %s%s%s", at, from.name, note.Name, printable([]byte(suffix(", added ", came))), printable([]byte(suffix(", removed ", went))))
}

// showPost tells of a post in the channel's order: what other programs made, which
// qpc has no keys for. --json gives the bytes.
func (r *reader) showPost(envelope *pb.Envelope) error {
	digits := hex.EncodeToString(envelope.GetChannelId())
	return r.app.print(map[string]any{
		"channel": digits, "channel_seq": envelope.GetChannelSeq(), "welcome": envelope.GetWelcome(),
		"payload": envelope.GetPayload(), "time_ms": envelope.GetEnqueuedMs(),
	}, "[%s] #%s: post %d of %d bytes, for another program (--json shows it)",
		time.UnixMilli(int64(envelope.GetEnqueuedMs())).Local().Format(time.DateTime), r.channelName(envelope.GetChannelId()),
		envelope.GetChannelSeq(), len(envelope.GetPayload()))
}

// channelName is what a person calls a channel; of an unknown one the beginning of
// its id.
func (r *reader) channelName(id []byte) string {
	digits := hex.EncodeToString(id)
	if all, err := r.home.channels(); err == nil && all[digits] != nil {
		return all[digits].Name
	}
	return digits[:min(8, len(digits))]
}
