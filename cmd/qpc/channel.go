package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

type channelCommand struct {
	Create  channelCreate  `cmd:"" help:"Make a channel and invite people."`
	List    channelList    `cmd:"" help:"List the channels of this home."`
	Members channelMembers `cmd:"" help:"List who is in a channel."`
	Accept  channelAccept  `cmd:"" help:"Accept an invitation."`
	Post    channelPost    `cmd:"" help:"Send a message to all who have joined."`
	Add     channelAdd     `cmd:"" help:"Invite more people."`
	Remove  channelRemove  `cmd:"" help:"Put somebody out."`
	Ban     channelBan     `cmd:"" help:"Put somebody out and keep them out."`
	Unban   channelUnban   `cmd:"" help:"Let a banned person be invited again."`
	Bans    channelBans    `cmd:"" help:"List who is banned from a channel."`
	Leave   channelLeave   `cmd:"" help:"Leave a channel, or decline an invitation."`
	Set     channelSet     `cmd:"" help:"Change a channel's name or settings."`
	Role    channelRole    `cmd:"" help:"Make a member an admin or owner, or take that back."`
	Rotate  channelRotate  `cmd:"" help:"Ask all members to make new keys."`
}

func (channelCommand) Help() string {
	return `A channel is named by its name here, or by the beginning of its id. Messages are sealed for each
member by itself, and only for people whom a member invited: somebody whom only the server lists
gets nothing. The server knows who is in a channel, and neither its name nor what is said.`
}

type channelCreate struct {
	Name string   `arg:"" help:"What the members call it; the server does not learn it."`
	With []string `arg:"" optional:"" name:"username" help:"Whom to invite."`
}

// Run makes the channel and sends each invited person what the server must not know.
func (cmd channelCreate) Run(ctx context.Context, a *app) error {
	if err := checkChannelName(cmd.Name); err != nil {
		return err
	}
	s, err := a.openChannels(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	people, err := s.meetAll(ctx, cmd.With)
	if err != nil {
		return err
	}
	room := &channelRoom{Name: cmd.Name, Key: make([]byte, channelKeySize), Members: []string{s.keys.Username}}
	_, _ = rand.Read(room.Key) // never fails, by its documentation
	name, err := sealChannelName(room.Key, cmd.Name)
	if err != nil {
		return err
	}
	req := &pb.CreateChannelRequest{Name: name}
	for _, p := range people {
		req.Members = append(req.Members, p.keyset.GetIdentityKey())
		room.Members = append(room.Members, p.name)
	}
	made, err := s.CreateChannel(ctx, req)
	if err != nil {
		return err
	}
	id := made.GetChannelId()
	if err := s.keep(id, room); err != nil {
		return err
	}
	if err := s.tell(ctx, id, room, people, nil); err != nil {
		return fmt.Errorf("channel %s is made, but not everybody has the invitation (run 'qpc channel add %s NAME' again): %w", cmd.Name, cmd.Name, err)
	}
	return a.print(map[string]any{"channel": hex.EncodeToString(id), "name": cmd.Name, "invited": names(people)},
		"Made channel %s (%x)%s.", cmd.Name, id, suffix(", invited ", names(people)))
}

type channelAdd struct {
	Channel string   `arg:"" help:"Name or id of the channel."`
	Who     []string `arg:"" name:"username" help:"Whom to invite."`
}

func (channelAdd) Help() string {
	return "Owners and admins may. Who is a member already is sent the invitation again."
}

// Run invites, and tells all members whom to seal for from now on.
func (cmd channelAdd) Run(ctx context.Context, a *app) error {
	s, id, room, err := a.openChannel(ctx, cmd.Channel)
	if err != nil {
		return err
	}
	defer s.Close()
	people, err := s.meetAll(ctx, cmd.Who)
	if err != nil {
		return err
	}
	req := &pb.AddMemberRequest{ChannelId: id}
	for _, p := range people {
		req.Members = append(req.Members, p.keyset.GetIdentityKey())
		if !slices.Contains(room.Members, p.name) {
			room.Members = append(room.Members, p.name)
		}
	}
	added, err := s.AddMember(ctx, req)
	if err != nil {
		return err
	}
	if err := s.keep(id, room); err != nil {
		return err
	}
	if err := s.tellAll(ctx, id, room, nil); err != nil {
		return err
	}
	return a.print(map[string]any{"channel": hex.EncodeToString(id), "invited": names(people), "added": added.GetAdded()},
		"Invited %s into %s.", strings.Join(names(people), ", "), room.Name)
}

type channelRemove struct {
	Channel string `arg:"" help:"Name or id of the channel."`
	Who     string `arg:"" name:"username" help:"Whom to put out."`
}

// Run puts somebody out, and tells the others.
func (cmd channelRemove) Run(ctx context.Context, a *app) error {
	s, id, room, err := a.openChannel(ctx, cmd.Channel)
	if err != nil {
		return err
	}
	defer s.Close()
	name, identity, err := s.memberKey(ctx, cmd.Who)
	if err != nil {
		return err
	}
	if _, err := s.RemoveMember(ctx, &pb.RemoveMemberRequest{ChannelId: id, IdentityKey: identity}); err != nil {
		return err
	}
	if err := s.forgetMember(ctx, id, room, name); err != nil {
		return err
	}
	return a.print(map[string]any{"channel": hex.EncodeToString(id), "removed": name}, "%s is out of %s.", name, room.Name)
}

// memberKey finds a member's identity key: the one this home remembers, so that also
// somebody can be put out whom the server does not find any more, or whose key changed.
func (s *channelSession) memberKey(ctx context.Context, who string) (name string, identity []byte, err error) {
	if name, err = statement.CanonicalUsername(who); err != nil {
		return "", nil, usageError("%w", err)
	}
	contacts, err := s.home.contacts()
	if err != nil {
		return "", nil, err
	}
	if known, met := contacts[name]; met {
		return name, known.IdentityKey, nil
	}
	p, err := s.home.meet(ctx, s.Client, name)
	if err != nil {
		return "", nil, err
	}
	return name, p.keyset.GetIdentityKey(), nil
}

// forgetMember notes that somebody is out, and tells the others.
func (s *channelSession) forgetMember(ctx context.Context, id []byte, room *channelRoom, gone string) error {
	room.Members = slices.DeleteFunc(room.Members, func(name string) bool { return name == gone })
	if err := s.keep(id, room); err != nil {
		return err
	}
	return s.tellAll(ctx, id, room, []string{gone})
}

type channelLeave struct {
	Channel string `arg:"" help:"Name or id of the channel."`
}

// Run leaves, and forgets the channel.
func (cmd channelLeave) Run(ctx context.Context, a *app) error {
	s, id, room, err := a.openChannel(ctx, cmd.Channel)
	if err != nil {
		return err
	}
	defer s.Close()
	left, err := s.RemoveMember(ctx, &pb.RemoveMemberRequest{ChannelId: id, IdentityKey: identityOf(s.keys)})
	if err != nil && !isReason(err, pb.Reason_NOT_A_MEMBER) { // put out before
		return err
	}
	err = s.home.changeChannels(func(all map[string]*channelRoom) error {
		delete(all, hex.EncodeToString(id))
		return nil
	})
	if err != nil {
		return err
	}
	return a.print(map[string]any{"channel": hex.EncodeToString(id), "gone": left.GetChannelGone()}, "You have left %s.", room.Name)
}

type channelAccept struct {
	Channel string `arg:"" help:"Name or id of the channel."`
}

// Run joins.
func (cmd channelAccept) Run(ctx context.Context, a *app) error {
	return a.updateChannel(ctx, cmd.Channel, func(*channelSession, *channelRoom, *pb.UpdateGroupMetadataRequest) (string, error) {
		return "You have joined %s.", nil
	}, pb.ChannelField_ACCEPT)
}

type channelRotate struct {
	Channel string `arg:"" help:"Name or id of the channel."`
}

func (channelRotate) Help() string {
	return "For channels of MLS clients: the server asks every device of every member for a commit, and counts them (qpc channel members). qpc itself has no keys of a channel: it seals for each member's own."
}

// Run asks the members for new keys.
func (cmd channelRotate) Run(ctx context.Context, a *app) error {
	s, id, room, err := a.openChannel(ctx, cmd.Channel)
	if err != nil {
		return err
	}
	defer s.Close()
	reply, err := s.RotateKeys(ctx, &pb.RotateKeysRequest{ChannelId: id})
	if err != nil {
		return err
	}
	return a.print(map[string]any{"channel": hex.EncodeToString(id), "told": reply.GetTold()}, "Asked the %d members of %s to make new keys.", reply.GetTold(), room.Name)
}

// channelSession is an open session with what channel commands need.
type channelSession struct {
	*client.Client
	app  *app
	home *home
	keys *keys
}

func (a *app) openChannels(ctx context.Context) (*channelSession, error) {
	h, k, c, err := a.openSession(ctx)
	if err != nil {
		return nil, err
	}
	return &channelSession{c, a, h, k}, nil
}

// openChannel is openChannels for a command about one channel of this home.
func (a *app) openChannel(ctx context.Context, name string) (*channelSession, []byte, *channelRoom, error) {
	s, err := a.openChannels(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	id, room, err := s.home.findChannel(name)
	if err != nil {
		s.Close()
		return nil, nil, nil, err
	}
	return s, id, room, nil
}

// keep saves what the home knows of a channel.
func (s *channelSession) keep(id []byte, room *channelRoom) error {
	return s.home.changeChannels(func(all map[string]*channelRoom) error {
		all[hex.EncodeToString(id)] = room
		return nil
	})
}

// meetAll meets people, each once and not oneself.
func (s *channelSession) meetAll(ctx context.Context, usernames []string) (people []*person, err error) {
	for _, name := range usernames {
		p, err := s.home.meet(ctx, s.Client, name)
		if err != nil {
			return nil, err
		}
		same := func(other *person) bool { return other.name == p.name }
		if !bytes.Equal(p.keyset.GetIdentityKey(), identityOf(s.keys)) && !slices.ContainsFunc(people, same) {
			people = append(people, p)
		}
	}
	return people, nil
}

// meetMembers meets the members of a channel. Whom the server does not find any more,
// a banned person say, and whose key changed, is left out and named: nobody else's
// messages wait for that.
func (s *channelSession) meetMembers(ctx context.Context, usernames []string) (people []*person, err error) {
	for _, name := range usernames {
		met, err := s.meetAll(ctx, []string{name})
		switch {
		case isReason(err, pb.Reason_NO_SUCH_USER), isReason(err, pb.Reason_NO_SUCH_KEY), isReason(err, pb.Reason_KEY_REVOKED), errors.Is(err, errKeyChanged):
			s.warn("%s gets nothing: %v", name, err)
		case err != nil:
			return nil, err
		}
		people = append(people, met...)
	}
	return people, nil
}

func names(people []*person) []string {
	list := []string{}
	for _, p := range people {
		list = append(list, p.name)
	}
	return list
}

func suffix(words string, list []string) string {
	if len(list) == 0 {
		return ""
	}
	return words + strings.Join(list, ", ")
}
