package main

import (
	"context"
	"encoding/hex"
	"time"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

type channelBan struct {
	Channel string         `arg:"" help:"Name or id of the channel."`
	Who     string         `arg:"" name:"username" help:"Whom to keep out."`
	Reason  string         `placeholder:"TEXT" help:"Why, for owners and admins; at most 1 KiB. The server can read it."`
	For     *time.Duration `placeholder:"DURATION" help:"How long, such as 72h; without it until 'qpc channel unban'."`
}

func (channelBan) Help() string {
	return "For owners and admins of the channel: a member is put out, and nobody can invite the person again while the ban stands. Members are told, as with 'remove'."
}

// Run bans somebody from a channel, and tells the others when that put a member out.
func (cmd channelBan) Run(ctx context.Context, a *app) error {
	if err := checkBanTime(cmd.For); err != nil {
		return err
	}
	s, id, room, err := a.openChannel(ctx, cmd.Channel)
	if err != nil {
		return err
	}
	defer s.Close()
	name, err := statement.CanonicalUsername(cmd.Who)
	if err != nil {
		return usageError("%w", err)
	}
	req := &pb.BanUserRequest{
		Scope: pb.BanScope_ONE_CHANNEL, ChannelId: id, Username: name, Reason: cmd.Reason, UntilMs: banEnd(s.ServerTime(), cmd.For),
	}
	if _, err := s.BanUser(ctx, req); err != nil {
		return err
	}
	if err := s.forgetMember(ctx, id, room, name); err != nil {
		return err
	}
	return a.print(map[string]any{"channel": hex.EncodeToString(id), "username": name, "until_ms": req.GetUntilMs()},
		"%s is banned from %s %s.", name, room.Name, untilText(req.GetUntilMs(), "qpc channel unban"))
}

type channelUnban struct {
	Channel string `arg:"" help:"Name or id of the channel."`
	Who     string `arg:"" name:"username" help:"Who may be invited again."`
	Reason  string `placeholder:"TEXT" help:"Why, for owners and admins; at most 1 KiB."`
}

// Run lifts a ban; it invites nobody.
func (cmd channelUnban) Run(ctx context.Context, a *app) error {
	s, id, room, err := a.openChannel(ctx, cmd.Channel)
	if err != nil {
		return err
	}
	defer s.Close()
	req := &pb.UnbanUserRequest{Scope: pb.BanScope_ONE_CHANNEL, ChannelId: id, Username: cmd.Who, Reason: cmd.Reason}
	if _, err := s.UnbanUser(ctx, req); err != nil {
		return err
	}
	return a.print(map[string]any{"channel": hex.EncodeToString(id), "username": cmd.Who},
		"%s may be invited into %s again.", cmd.Who, room.Name)
}

type channelBans struct {
	Channel string `arg:"" help:"Name or id of the channel."`
}

// Run lists who is banned from a channel.
func (cmd channelBans) Run(ctx context.Context, a *app) error {
	s, id, _, err := a.openChannel(ctx, cmd.Channel)
	if err != nil {
		return err
	}
	defer s.Close()
	return a.printBans(ctx, s.Client, &pb.ListBannedRequest{Scope: pb.BanScope_ONE_CHANNEL, ChannelId: id}, "qpc channel unban")
}
