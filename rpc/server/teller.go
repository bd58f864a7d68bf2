package server

import (
	"errors"
	"log/slog"
	"sync"

	"quicprochat/commands"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/push"
)

// newsBacklog is how much news waits to be told. Beyond it news is dropped: it is
// hints, and who lists members sees the truth.
const newsBacklog = 1024

// presenceChannels is in how many channels of a person presence is told.
const presenceChannels = 64

// teller tells connected members what happens in their channels besides messages:
// who came and left (push 1003), and who is there (push 1002). To whom, it looks up
// in the published view, on a goroutine of its own: neither the writer nor who
// releases replies waits for it.
type teller struct {
	engine *commands.Engine
	hub    *push.Hub
	logger *slog.Logger
	ended  chan struct{}

	mu     sync.Mutex
	news   chan any               // of commands.MembersChanged and presence
	there  map[projections.ID]int // connections by account
	closed bool
}

// presence is the news that somebody came or went.
type presence struct {
	account projections.ID
	online  bool
}

func newTeller(engine *commands.Engine, hub *push.Hub, logger *slog.Logger) *teller {
	t := &teller{
		engine: engine, hub: hub, logger: logger, ended: make(chan struct{}),
		news: make(chan any, newsBacklog), there: make(map[projections.ID]int),
	}
	go t.run()
	return t
}

// close drops what was not told yet, and waits until nothing is told any more.
func (t *teller) close() {
	t.mu.Lock()
	if !t.closed {
		t.closed = true
		close(t.news)
	}
	t.mu.Unlock()
	<-t.ended
}

// note has news told. It never blocks.
func (t *teller) note(news any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(news)
}

// put needs t.mu.
func (t *teller) put(news any) {
	if t.closed {
		return
	}
	select {
	case t.news <- news:
	default:
	}
}

// arrived notes that an account has one connection more, and gives what is to be
// called when that one ends. The first to come and the last to go are news.
func (t *teller) arrived(account projections.ID) (left func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.there[account]++; t.there[account] == 1 {
		t.put(presence{account, true})
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.there[account]--; t.there[account] == 0 {
			delete(t.there, account)
			t.put(presence{account, false})
		}
	}
}

func (t *teller) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

func (t *teller) run() {
	defer close(t.ended)
	for news := range t.news {
		if t.isClosed() {
			continue
		}
		if err := t.tell(news); err != nil && !errors.Is(err, commands.ErrStale) && commands.AsRefusal(err) == nil {
			t.logger.Error("news of channels not told", slog.Any("error", err))
		}
	}
}

func (t *teller) tell(news any) error {
	v, err := t.engine.View()
	if err != nil {
		return err
	}
	defer v.Release()
	switch n := news.(type) {
	case commands.MembersChanged:
		return t.tellMembers(v, n)
	case presence:
		return t.tellPresence(v, n)
	}
	return nil
}

// tellMembers tells the members, and those who are none any more.
func (t *teller) tellMembers(v *commands.View, n commands.MembersChanged) error {
	accounts := append([]projections.ID(nil), n.Removed...)
	err := projections.ScanMembers(v.Reader, n.Channel, projections.ID{}, func(m *projections.ChannelMember) bool {
		accounts = append(accounts, m.Account)
		return true
	})
	if err != nil {
		return err
	}
	devices, err := devicesOf(v, accounts)
	if err != nil {
		return err
	}
	say := func(account projections.ID, added bool) error {
		a, _, err := projections.AccountByID(v.Reader, account)
		if err != nil {
			return err
		}
		item := &pb.ControlItem{Kind: &pb.ControlItem_MemberRemoved{MemberRemoved: &pb.MemberRemoved{
			ChannelId: n.Channel[:], IdentityKey: a.IdentityKey[:],
		}}}
		if added {
			item.Kind = &pb.ControlItem_MemberAdded{MemberAdded: &pb.MemberAdded{ChannelId: n.Channel[:], IdentityKey: a.IdentityKey[:]}}
		}
		t.hub.Tell(devices, pb.PushType_MEMBERSHIP, &pb.PushMembership{Item: item})
		return nil
	}
	for _, account := range n.Added {
		if err := say(account, true); err != nil {
			return err
		}
	}
	for _, account := range n.Removed {
		if err := say(account, false); err != nil {
			return err
		}
	}
	return nil
}

// tellPresence tells those who share presence with a person in some channel, each
// once.
func (t *teller) tellPresence(v *commands.View, n presence) error {
	channels, err := projections.ChannelsOf(v.Reader, n.account, presenceChannels)
	if err != nil {
		return err
	}
	friends := make(map[projections.ID]bool)
	for _, channel := range channels {
		if err := addFriends(v, channel, n.account, friends); err != nil {
			return err
		}
	}
	if len(friends) == 0 {
		return nil
	}
	accounts := make([]projections.ID, 0, len(friends))
	for account := range friends {
		accounts = append(accounts, account)
	}
	devices, err := devicesOf(v, accounts)
	if err != nil {
		return err
	}
	a, _, err := projections.AccountByID(v.Reader, n.account)
	if err != nil {
		return err
	}
	t.hub.Tell(devices, pb.PushType_PRESENCE, &pb.PushPresence{IdentityKey: a.IdentityKey[:], Online: n.online, ServerTimeMs: v.Now})
	return nil
}

// addFriends adds those who have joined a channel and share presence there, if the
// person does.
func addFriends(v *commands.View, channel, person projections.ID, friends map[projections.ID]bool) error {
	c, found, err := projections.ChannelByID(v.Reader, channel)
	if err != nil || !found || !c.Settings.Presence {
		return err
	}
	m, found, err := projections.MemberOf(v.Reader, channel, person)
	if err != nil || !found || !m.Shows() {
		return err
	}
	return projections.ScanMembers(v.Reader, channel, projections.ID{}, func(m *projections.ChannelMember) bool {
		if m.Account != person && m.Shows() {
			friends[m.Account] = true
		}
		return true
	})
}

// devicesOf lists the active devices of accounts.
func devicesOf(v *commands.View, accounts []projections.ID) (devices []projections.Key, err error) {
	for _, account := range accounts {
		if devices, _, err = projections.DevicesOf(v.Reader, devices, account); err != nil {
			return nil, err
		}
	}
	return devices, nil
}
