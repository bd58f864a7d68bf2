package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	pb "quicprochat/proto/qpcv1"
)

type channelSet struct {
	Channel       string  `arg:"" help:"Name or id of the channel."`
	Name          string  `help:"Call it otherwise."`
	Posting       string  `enum:"members,admins," default:"" placeholder:"WHO" help:"Who may post: members or admins."`
	Typing        string  `enum:"on,off," default:"" placeholder:"on|off" help:"Whether typing is passed on."`
	Presence      string  `enum:"on,off," default:"" placeholder:"on|off" help:"Whether members may see each other come and go."`
	SharePresence string  `enum:"on,off," default:"" placeholder:"on|off" help:"Whether the others see you come and go."`
	Epoch         *uint64 `placeholder:"N" help:"Set the epoch of MLS clients, when channel and group fell apart (owners)."`
}

// Run changes what was named, in one step.
func (cmd channelSet) Run(ctx context.Context, a *app) error {
	if cmd.Name != "" {
		if err := checkChannelName(cmd.Name); err != nil {
			return err
		}
	}
	if cmd.Name+cmd.Posting+cmd.Typing+cmd.Presence+cmd.SharePresence == "" && cmd.Epoch == nil {
		return usageError("nothing to set: qpc channel set --help")
	}
	err := a.updateChannel(ctx, cmd.Channel, func(s *channelSession, room *channelRoom, req *pb.UpdateGroupMetadataRequest) (string, error) {
		info, _, err := s.Members(ctx, req.GetChannelId())
		if err != nil {
			return "", err
		}
		req.ExpectedVersion = info.GetVersion()
		return "Changed %s.", cmd.fill(req, info.GetSettings(), room)
	})
	if err != nil || cmd.Name == "" {
		return err
	}
	return cmd.rename(ctx, a)
}

// fill puts what was named into a request.
func (cmd channelSet) fill(req *pb.UpdateGroupMetadataRequest, settings *pb.ChannelSettings, room *channelRoom) (err error) {
	if cmd.Name != "" {
		req.Fields = append(req.Fields, pb.ChannelField_CHANNEL_NAME)
		if req.Name, err = sealChannelName(room.Key, cmd.Name); err != nil {
			return err
		}
	}
	if cmd.Posting+cmd.Typing+cmd.Presence != "" {
		req.Fields = append(req.Fields, pb.ChannelField_CHANNEL_SETTINGS)
		req.Settings = settings
	}
	switch cmd.Posting {
	case "members":
		settings.Posting = pb.PostingRule_POST_MEMBERS
	case "admins":
		settings.Posting = pb.PostingRule_POST_ADMINS
	}
	if cmd.Typing != "" {
		settings.TypingOff = cmd.Typing == "off"
	}
	if cmd.Presence != "" {
		settings.Presence = cmd.Presence == "on"
	}
	if cmd.SharePresence != "" {
		req.Fields = append(req.Fields, pb.ChannelField_SHARE_PRESENCE)
		req.Presence = cmd.SharePresence == "on"
	}
	if cmd.Epoch != nil {
		req.Fields = append(req.Fields, pb.ChannelField_SET_EPOCH)
		req.SetEpoch = *cmd.Epoch
	}
	return nil
}

// rename notes the new name here and tells the members.
func (cmd channelSet) rename(ctx context.Context, a *app) error {
	s, id, room, err := a.openChannel(ctx, cmd.Channel)
	if err != nil {
		return err
	}
	defer s.Close()
	room.Name = cmd.Name
	if err := s.keep(id, room); err != nil {
		return err
	}
	return s.tellAll(ctx, id, room, nil)
}

type channelRole struct {
	Channel string `arg:"" help:"Name or id of the channel."`
	Who     string `arg:"" name:"username" help:"The member."`
	Role    string `arg:"" enum:"member,admin,owner" help:"member, admin or owner."`
}

func (channelRole) Help() string {
	return "Owners may. Admins add people, remove members, and change name and settings; owners also give roles. A channel keeps at least one owner."
}

// Run gives a role.
func (cmd channelRole) Run(ctx context.Context, a *app) error {
	return a.updateChannel(ctx, cmd.Channel, func(s *channelSession, _ *channelRoom, req *pb.UpdateGroupMetadataRequest) (string, error) {
		p, err := s.home.meet(ctx, s.Client, cmd.Who)
		if err != nil {
			return "", err
		}
		info, _, err := s.Members(ctx, req.GetChannelId())
		req.ExpectedVersion = info.GetVersion()
		req.Roles = []*pb.UpdateGroupMetadataRequest_RoleChange{{
			IdentityKey: p.keyset.GetIdentityKey(),
			Role: map[string]pb.ChannelRole{
				"member": pb.ChannelRole_CHANNEL_MEMBER, "admin": pb.ChannelRole_CHANNEL_ADMIN, "owner": pb.ChannelRole_CHANNEL_OWNER,
			}[cmd.Role],
		}}
		return fmt.Sprintf("%s is %s of %%s now.", p.name, cmd.Role), err
	}, pb.ChannelField_CHANNEL_ROLES)
}

// updateChannel makes one UpdateGroupMetadata; fill completes the request and gives
// the sentence that tells of it.
func (a *app) updateChannel(ctx context.Context, name string, fill func(*channelSession, *channelRoom, *pb.UpdateGroupMetadataRequest) (string, error), fields ...pb.ChannelField) error {
	s, id, room, err := a.openChannel(ctx, name)
	if err != nil {
		return err
	}
	defer s.Close()
	req := &pb.UpdateGroupMetadataRequest{ChannelId: id, Fields: fields}
	sentence, err := fill(s, room, req)
	if err != nil {
		return err
	}
	reply, err := s.UpdateGroupMetadata(ctx, req)
	if err != nil {
		return err
	}
	return a.print(map[string]any{"channel": hex.EncodeToString(id), "version": reply.GetVersion(), "epoch": reply.GetEpoch()}, sentence, room.Name)
}

type channelList struct{}

func (channelList) Help() string {
	return "The channels of this home, and invitations that wait in the queue: those stay there until 'qpc recv' reads them, and can be accepted then."
}

// Run lists the channels that this home knows, with what the server says of each, and
// those that it is invited to.
func (channelList) Run(ctx context.Context, a *app) error {
	s, err := a.openChannels(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	all, err := s.home.channels()
	if err != nil {
		return err
	}
	var digits []string
	for id := range all {
		digits = append(digits, id)
	}
	slices.SortFunc(digits, func(x, y string) int { return strings.Compare(all[x].Name+x, all[y].Name+y) })
	for _, id := range digits {
		if err := s.listOne(ctx, id, all[id], ""); err != nil {
			return err
		}
	}
	invited, err := s.invitations(ctx)
	if err != nil {
		return err
	}
	for _, i := range invited {
		if err := s.listOne(ctx, i.digits, i.room, i.from); err != nil {
			return err
		}
	}
	return nil
}

// listOne prints one channel; unread is who invites to it by a message that waits.
func (s *channelSession) listOne(ctx context.Context, digits string, room *channelRoom, unread string) error {
	id, err := hex.DecodeString(digits)
	if err != nil {
		return fmt.Errorf("%s is damaged: %w", channelsFile, err)
	}
	info, members, err := s.Members(ctx, id)
	if isReason(err, pb.Reason_NOT_A_MEMBER) {
		if unread != "" {
			return nil // the invitation was taken back
		}
		return s.app.print(map[string]any{"channel": digits, "name": room.Name, "state": "gone"}, "%s (%s): you are not in it any more; 'qpc channel leave %s' forgets it", room.Name, digits[:8], digits[:8])
	}
	if err != nil {
		return err
	}
	state := "invited"
	for _, m := range members {
		if bytes.Equal(m.GetIdentityKey(), identityOf(s.keys)) && m.GetState() == pb.MemberState_JOINED {
			state = "joined"
		}
	}
	if kept, err := openChannelName(room.Key, info.GetName()); err != nil || kept != room.Name {
		s.warn("the server keeps another name for %s (%v)", room.Name, err)
	}
	object := map[string]any{"channel": digits, "name": room.Name, "state": state, "members": len(members), "epoch": info.GetEpoch()}
	if unread == "" {
		return s.app.print(object, "%s (%s): %s, %d members", room.Name, digits[:8], state, len(members))
	}
	object["unread"], object["from"] = true, unread
	if unread == s.keys.Username {
		return s.app.print(object, "%s (%s): %s, %d members; 'qpc recv' takes it over from your other device", room.Name, digits[:8], state, len(members))
	}
	return s.app.print(object, "%s (%s): %s by %s, %d members; 'qpc recv' reads the invitation", room.Name, digits[:8], state, unread, len(members))
}

type channelMembers struct {
	Channel string `arg:"" help:"Name or id of the channel."`
}

// Run lists the members as the server has them, under the names that this home knows.
func (cmd channelMembers) Run(ctx context.Context, a *app) error {
	s, id, room, err := a.openChannel(ctx, cmd.Channel)
	if err != nil {
		return err
	}
	defer s.Close()
	info, members, err := s.Members(ctx, id)
	if err != nil {
		return err
	}
	contacts, err := s.home.contacts()
	if err != nil {
		return err
	}
	for _, m := range members {
		name := "somebody whom no member has named"
		if bytes.Equal(m.GetIdentityKey(), identityOf(s.keys)) {
			name = s.keys.Username
		}
		for _, known := range room.Members {
			if bytes.Equal(contacts[known].IdentityKey, m.GetIdentityKey()) {
				name = known
			}
		}
		role := strings.ToLower(strings.TrimPrefix(m.GetRole().String(), "CHANNEL_"))
		state := strings.ToLower(m.GetState().String())
		err := a.print(map[string]any{"username": name, "identity_key": hex.EncodeToString(m.GetIdentityKey()), "role": role, "state": state},
			"%s: %s, %s (%s)", name, role, state, fingerprint(m.GetIdentityKey())[:17])
		if err != nil {
			return err
		}
	}
	if r := info.GetRotation(); r != nil {
		return a.print(map[string]any{"rotation_ms": r.GetRequestedMs(), "committed": r.GetCommitted(), "joined": r.GetJoined()}, "Asked for new keys: %d of %d have committed since.", r.GetCommitted(), r.GetJoined())
	}
	return nil
}
