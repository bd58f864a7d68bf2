package sim

import (
	"testing"

	pb "quicprochat/proto/qpcv1"
)

// The model refuses to believe that somebody's presence may be told to those who do not
// share it with them.
func TestPresenceIsForThoseWhoShareIt(t *testing.T) {
	id := func(n byte) []byte { return append(make([]byte, 15), n) }
	key := func(n byte) []byte { return append(make([]byte, 31), n) }
	yes, no := true, false
	flags := func(account byte, presence *bool) *pb.Event {
		return &pb.Event{Body: &pb.Event_ChannelMemberUpdated{ChannelMemberUpdated: &pb.ChannelMemberUpdated{
			ChannelId: id(9), AccountId: id(account), Joined: presence == nil, Presence: presence,
		}}}
	}
	m := NewModel()
	m.Size = 1 // begun
	for i := byte(1); i <= 3; i++ {
		a := &Account{ID: ID(id(i)), Name: string('a' + rune(i)), Identity: Key(key(i)), Devices: []Key{Key(key(100 + i))}}
		m.Accounts[a.Name], m.ids[a.ID], m.bearers[a.Identity] = a, a, a.ID
		m.Queues[a.Devices[0]] = newQueue(a.ID)
	}
	const minute = 60_000
	for i, ev := range []*pb.Event{
		{Body: &pb.Event_ChannelCreated{ChannelCreated: &pb.ChannelCreated{
			ChannelId: id(9), CreatorId: id(1), Settings: &pb.ChannelSettings{Presence: true},
		}}},
		{Body: &pb.Event_ChannelMembersChanged{ChannelMembersChanged: &pb.ChannelMembersChanged{
			ChannelId: id(9), ActorId: id(1), Added: [][]byte{id(2), id(3)},
		}}},
		flags(2, nil), flags(3, nil), // joined
		flags(1, &yes), flags(2, &yes),
		flags(1, &no),
	} {
		ev.TimeMs = uint64(i+1) * 10 * minute
		if err := m.Apply(ev); err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
	}
	for _, test := range []struct {
		what         string
		at           uint64
		reader, who  byte
		mayBeNoticed bool
	}{
		{"both share it", 65 * minute, 2, 1, true},
		{"and the other way round", 65 * minute, 1, 2, true},
		{"a push that was under way", 70*minute + 1, 2, 1, true},
		{"one did not yet", 55 * minute, 2, 1, false},
		{"one does not any more", 72 * minute, 2, 1, false},
		{"one never did", 65 * minute, 3, 1, false},
		{"one's own", 65 * minute, 1, 1, false},
		{"nobody's", 65 * minute, 1, 7, false},
	} {
		h := &History{noticed: []Noticed{{at: test.at, Device: Key(key(100 + test.reader)), Who: Key(key(test.who))}}}
		wrong := 0
		h.checkNoticed(m, func(string, ...any) { wrong++ })
		if (wrong == 0) != test.mayBeNoticed {
			t.Errorf("%s: %d complaints", test.what, wrong)
		}
	}
}
