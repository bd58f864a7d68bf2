package sim

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"

	pb "quicprochat/proto/qpcv1"
)

// Model is the server as maps and slices: no store, no encoding, no cleverness.
// It is the second opinion on what a sequence of events means.
type Model struct {
	Size     uint64 // events applied
	TimeMS   uint64 // of the newest
	Accounts map[string]*Account
	Queues   map[Key]*Queue
	Sessions map[[32]byte]*Session
	// EverSessions are all sessions that ever were.
	EverSessions map[[32]byte]bool
	Receipts     map[ReceiptKey]*pb.Receipt
	KeySets      map[Key]*pb.KeySet // newest, by identity
	Payloads     map[PayloadKey][32]byte
	// Gone are payloads that were released.
	Gone map[PayloadKey]bool
	// Messages are all messages ever, by id.
	Messages map[ID]*Message
	// Revoked are the keys that are out of use, with what was said about each.
	Revoked map[Key]*pb.Revocation
	ids     map[ID]*Account // by account id
	bearers map[Key]ID      // accounts by each identity key that they had
	begun   bool            // a generation, whose CONFIG follows
	// Channels are those that somebody is in.
	Channels map[ID]*Channel
	// Founded are all channels that ever were; Stays tell who was in them, and when.
	Founded map[ID]bool
	Stays   map[Seat][]*Stay
	// Successors have the queues of devices that they took the place of.
	Successors map[Key]Key
	// Shown tells when a member's presence was to be seen in a channel, and Epochs when
	// a channel had which.
	Shown  map[Seat][]*Shown
	Epochs map[ID][]EpochFrom
	// Bans are those that nothing has ended yet, by account.
	Bans map[ID]*pb.UserBanned
	// Reports are the states of all reports, touched when they came or got them.
	Reports map[ID]pb.ReportState
	touched map[ID]uint64
	// Proved are those whose tag was right.
	Proved map[ID]bool
	// Packages are all KeyPackages ever, by id; shelves are the same by device.
	Packages map[ID]*Package
	shelves  map[Key][]*Package
}

// Key is an Ed25519 public key, ID a random 16-byte id.
type (
	Key [32]byte
	ID  [16]byte
)

// PayloadKey says where a payload is stored.
type PayloadKey struct{ Owner, ID ID }

// ReceiptKey says whose request, to which method, under which id.
type ReceiptKey struct {
	Caller  Key
	Method  uint32
	Request ID
}

// Account is a person as the server knows them.
type Account struct {
	ID       ID
	Name     string
	Identity Key
	Devices  []Key
	Upload   []byte // of the newest password
	Version  uint32 // of the password, from the record
	Changes  int    // of the password
	Role     pb.Role
	Reset    *pb.ResetIssued // a token that was not used
}

// Session is one login.
type Session struct {
	Account ID
	Device  Key
	Day     uint32
	Expires uint64
}

// Queue is what waits for one device.
type Queue struct {
	Owner    ID
	Next     uint64 // number of the next item; the first is 1
	Cursor   uint64 // items up to here were drained or confirmed
	Gap      uint64 // messages lost and not told
	GapUpTo  uint64
	Items    []Item // ascending
	Assigned map[uint64]ID
	Expiry   map[uint64]uint64 // when each item's time to live ends
	Removed  map[uint64]Removal
	Moves    []Move // of the cursor by draining
	Closed   bool   // its device was revoked
}

// Removal says when and by what an item went.
type Removal struct {
	TimeMS uint64
	Cause  string
	Index  uint64 // of the event
}

// Move is a draining read as the log has it.
type Move struct{ TimeMS, From, To, Index uint64 }

// Item is one message in a queue.
type Item struct {
	Seq        uint64
	Message    ID
	Sender     ID
	Size       uint32
	EnqueuedMS uint64
	ExpiresMS  uint64
}

// Message is what was decided about one message.
type Message struct {
	Index   uint64 // of its event
	TimeMS  uint64 // … and when that was decided
	Owner   ID
	Sender  ID
	SHA256  [32]byte
	Size    uint32
	Targets map[Key]uint64
	Control bool // the server's own word
	Post    Post // zero outside of channels
}

// Post is a message's place in a channel.
type Post struct {
	Channel ID
	Seq     uint64 // of a Welcome that of the post it came with; 0 for a message to one person
	Welcome bool
	Commit  bool
	Epoch   uint64 // of the channel before it
}

// NewModel is the server before its first event.
func NewModel() *Model {
	return &Model{
		Accounts: map[string]*Account{}, Queues: map[Key]*Queue{}, Sessions: map[[32]byte]*Session{}, EverSessions: map[[32]byte]bool{},
		Receipts: map[ReceiptKey]*pb.Receipt{}, KeySets: map[Key]*pb.KeySet{}, ids: map[ID]*Account{},
		Payloads: map[PayloadKey][32]byte{}, Gone: map[PayloadKey]bool{}, Messages: map[ID]*Message{},
		Revoked: map[Key]*pb.Revocation{}, Channels: map[ID]*Channel{},
		Bans: map[ID]*pb.UserBanned{}, Reports: map[ID]pb.ReportState{}, touched: map[ID]uint64{}, Proved: map[ID]bool{},
		bearers: map[Key]ID{}, Successors: map[Key]Key{}, Shown: map[Seat][]*Shown{}, Epochs: map[ID][]EpochFrom{},
		Founded: map[ID]bool{}, Stays: map[Seat][]*Stay{}, Packages: map[ID]*Package{}, shelves: map[Key][]*Package{},
	}
}

// Apply takes the next event. An error says what rule of the protocol it breaks.
func (m *Model) Apply(ev *pb.Event) error {
	if ev.TimeMs < m.TimeMS {
		return fmt.Errorf("time %d runs back from %d", ev.TimeMs, m.TimeMS)
	}
	if (m.Size == 0 || m.begun) != (ev.GetServerConfigured() != nil) {
		return fmt.Errorf("the first event, and the one after a GenerationBegun, configures the server, and no other")
	}
	m.begun = false
	m.TimeMS = ev.TimeMs
	if err := m.acts(ev); err != nil {
		return err
	}
	if err := m.body(ev); err != nil {
		return err
	}
	m.showings(ev)
	m.Size++
	if r := ev.Receipt; r != nil {
		k := ReceiptKey{Key(r.Caller), r.Method, ID(r.RequestId)}
		if m.Receipts[k] != nil {
			return fmt.Errorf("request %x of method %d had an effect twice", r.RequestId, r.Method)
		}
		m.Receipts[k] = r
	}
	return nil
}

func (m *Model) body(ev *pb.Event) error {
	switch b := ev.Body.(type) {
	case *pb.Event_ServerConfigured, *pb.Event_SnapshotTaken, *pb.Event_RequestAnswered:
		return nil
	case *pb.Event_GenerationBegun:
		m.beginGeneration()
		return nil
	case *pb.Event_DeviceRegistered:
		return m.addDevice(b.DeviceRegistered)
	case *pb.Event_UserBanned:
		return m.ban(b.UserBanned)
	case *pb.Event_UserUnbanned:
		return m.unban(b.UserUnbanned)
	case *pb.Event_BansExpired:
		return m.expireBans(b.BansExpired)
	case *pb.Event_ChannelUserBanned:
		return m.banFromChannel(b.ChannelUserBanned)
	case *pb.Event_ChannelUserUnbanned:
		return m.unbanFromChannel(b.ChannelUserUnbanned)
	case *pb.Event_ChannelBansExpired:
		return m.expireChannelBans(b.ChannelBansExpired)
	case *pb.Event_MessageReported:
		return m.report(b.MessageReported)
	case *pb.Event_ReportResolved:
		return m.resolve(b.ReportResolved)
	case *pb.Event_ReportsExpired:
		return m.expireReports(b.ReportsExpired)
	case *pb.Event_KeyPackagesUploaded:
		return m.uploadPackages(b.KeyPackagesUploaded)
	case *pb.Event_KeyPackagesTaken:
		return m.takePackages(b.KeyPackagesTaken, ev.Receipt)
	case *pb.Event_KeyPackagesExpired:
		return m.expirePackages(b.KeyPackagesExpired)
	case *pb.Event_KeyPackagesReleased:
		return m.releasePackages(b.KeyPackagesReleased)
	case *pb.Event_ResetIssued:
		return m.issueReset(b.ResetIssued)
	case *pb.Event_AccountReset:
		return m.reset(b.AccountReset, ev.TimeMs)
	case *pb.Event_RoleChanged:
		return m.changeRole(b.RoleChanged)
	case *pb.Event_KeyRevoked:
		return m.namesAdministrator(b.KeyRevoked)
	case *pb.Event_IdentityReplaced:
		return m.replaceIdentity(b.IdentityReplaced)
	case *pb.Event_KeyTransparencyEntry:
		return m.keyTransparency(b.KeyTransparencyEntry)
	case *pb.Event_HeadSealed:
		return nil // its fields are checked where the leaf is at hand
	case *pb.Event_AccountRegistered:
		return m.register(b.AccountRegistered)
	case *pb.Event_PasswordChanged:
		return m.password(b.PasswordChanged)
	case *pb.Event_SessionStarted:
		return m.startSession(b.SessionStarted, ev.TimeMs)
	case *pb.Event_SessionTouched:
		return m.touch(b.SessionTouched)
	case *pb.Event_SessionsEnded:
		return m.endSessions(b.SessionsEnded)
	case *pb.Event_MessageEnqueued:
		return m.enqueue(b.MessageEnqueued, ev.TimeMs)
	case *pb.Event_ChannelCreated:
		return m.createChannel(b.ChannelCreated)
	case *pb.Event_ChannelMembersChanged:
		return m.changeMembers(b.ChannelMembersChanged)
	case *pb.Event_ChannelMemberUpdated:
		return m.updateMember(b.ChannelMemberUpdated)
	case *pb.Event_ChannelUpdated:
		return m.updateChannel(b.ChannelUpdated)
	case *pb.Event_ChannelEpochSet:
		return m.setEpoch(b.ChannelEpochSet)
	case *pb.Event_ChannelPosted:
		return m.post(b.ChannelPosted, ev.TimeMs)
	case *pb.Event_ChannelRotationRequested:
		return m.requestRotation(b.ChannelRotationRequested)
	case *pb.Event_MessagesDrained:
		return m.drain(Key(b.MessagesDrained.DeviceKey), b.MessagesDrained.UpTo)
	case *pb.Event_MessagesConfirmed:
		return m.confirm(Key(b.MessagesConfirmed.DeviceKey), b.MessagesConfirmed.UpTo)
	case *pb.Event_MessagesAcked:
		return m.ack(Key(b.MessagesAcked.DeviceKey), b.MessagesAcked.Seqs, b.MessagesAcked.UpTo)
	case *pb.Event_MessagesExpired:
		return m.expire(Key(b.MessagesExpired.DeviceKey), b.MessagesExpired.Seqs, ev.TimeMs)
	case *pb.Event_DrainedReleased:
		return m.release(Key(b.DrainedReleased.DeviceKey), b.DrainedReleased.UpTo)
	case *pb.Event_ReceiptsExpired:
		for k := range m.Receipts {
			if requestMS(k.Request) < b.ReceiptsExpired.BeforeMs {
				delete(m.Receipts, k)
			}
		}
		return nil
	}
	return fmt.Errorf("the model does not know %T", ev.Body)
}

// requestMS is the time inside a UUIDv7.
func requestMS(id ID) (ms uint64) {
	for _, b := range id[:6] {
		ms = ms<<8 | uint64(b)
	}
	return ms
}

func (m *Model) keyTransparency(ev *pb.KeyTransparencyEntry) error {
	switch ev.Kind {
	case 2:
	case 3:
		return m.revoke(ev)
	default:
		return nil
	}
	ks := new(pb.KeySet)
	if err := unmarshal(ev.Value, ks); err != nil {
		return err
	}
	old, identity := m.KeySets[Key(ev.Id)], Key(ev.Id)
	if (old == nil) != (ks.Version == 0) || (old != nil && ks.Version != old.Version+1) || ks.Version != ev.Version {
		return fmt.Errorf("KeySet of version %d does not follow", ks.Version)
	}
	m.KeySets[identity] = ks
	return nil
}

func (m *Model) register(ev *pb.AccountRegistered) error {
	if m.Accounts[ev.Username] != nil {
		return fmt.Errorf("a username was given twice")
	}
	device := Key(ev.DeviceKey)
	if m.Queues[device] != nil {
		return fmt.Errorf("a device key is used twice")
	}
	if m.Revoked[device] != nil || m.Revoked[Key(ev.IdentityKey)] != nil {
		return fmt.Errorf("a revoked key came back")
	}
	a := &Account{
		ID: ID(ev.AccountId), Name: ev.Username, Identity: Key(ev.IdentityKey), Devices: []Key{device},
		Upload: ev.Opaque.Upload, Version: ev.Opaque.Version, Role: pb.Role_USER,
	}
	m.Accounts[a.Name], m.ids[a.ID], m.bearers[a.Identity] = a, a, a.ID
	m.Queues[device] = newQueue(a.ID)
	return nil
}

func newQueue(owner ID) *Queue {
	return &Queue{Owner: owner, Next: 1, Assigned: map[uint64]ID{}, Expiry: map[uint64]uint64{}, Removed: map[uint64]Removal{}}
}

func (m *Model) password(ev *pb.PasswordChanged) error {
	a := m.ids[ID(ev.AccountId)]
	if a == nil || ev.Opaque.Version != a.Version+1 {
		return fmt.Errorf("a password changed to version %d out of turn", ev.Opaque.Version)
	}
	a.Changes++
	a.Upload, a.Version = ev.Opaque.Upload, ev.Opaque.Version
	for token, s := range m.Sessions {
		if s.Account == a.ID && !bytes.Equal(token[:], ev.KeptSession) {
			delete(m.Sessions, token)
		}
	}
	return nil
}

func (m *Model) startSession(ev *pb.SessionStarted, now uint64) error {
	s := &Session{Account: ID(ev.AccountId), Expires: ev.ExpiresMs, Day: uint32(now / 86_400_000)}
	if ev.Scope == pb.SessionScope_DEVICE {
		s.Device = Key(ev.DeviceKey)
	}
	if m.ids[s.Account] == nil || m.Sessions[[32]byte(ev.TokenHash)] != nil {
		return fmt.Errorf("a session of nobody, or twice")
	}
	m.Sessions[[32]byte(ev.TokenHash)] = s
	m.EverSessions[[32]byte(ev.TokenHash)] = true
	return nil
}

func (m *Model) touch(ev *pb.SessionTouched) error {
	s := m.Sessions[[32]byte(ev.TokenHash)]
	if s == nil || ev.Day < s.Day {
		return fmt.Errorf("a session that is none was used, or earlier than before")
	}
	s.Day = ev.Day
	return nil
}

func (m *Model) endSessions(ev *pb.SessionsEnded) error {
	for _, token := range ev.TokenHashes {
		if m.Sessions[[32]byte(token)] == nil {
			return fmt.Errorf("a session ended that is none")
		}
		delete(m.Sessions, [32]byte(token))
	}
	return nil
}

func (m *Model) enqueue(ev *pb.MessageEnqueued, now uint64) error {
	owner, channel := ID(ev.AccountId), ID{}
	copy(channel[:], ev.ChannelId) // it may be left out
	if len(ev.Targets) == 0 {
		return fmt.Errorf("a message for nobody")
	}
	return m.store(&storedMessage{
		id: ID(ev.MessageId), owner: owner, sender: ID(ev.SenderId), hash: [32]byte(ev.PayloadSha256),
		size: ev.PayloadSize, expires: ev.ExpiresMs, targets: ev.Targets, skipped: ev.Skipped,
		control: ev.Control, post: Post{Channel: channel},
		mayHave: func(account ID) bool { return account == owner },
	}, now)
}

// storedMessage is one payload on its way into queues.
type storedMessage struct {
	id, owner, sender ID
	hash              [32]byte
	size              uint32
	expires           uint64
	targets           []*pb.MessageEnqueued_Target
	skipped           [][]byte
	mayHave           func(account ID) bool
	control           bool
	post              Post
}

func (m *Model) store(s *storedMessage, now uint64) error {
	if m.Messages[s.id] != nil {
		return fmt.Errorf("message %x twice", s.id)
	}
	msg := &Message{
		Index: m.Size, TimeMS: now, Owner: s.owner, Sender: s.sender, SHA256: s.hash,
		Size: s.size, Targets: map[Key]uint64{}, Control: s.control, Post: s.post,
	}
	for _, t := range s.targets {
		q := m.Queues[Key(t.DeviceKey)]
		switch {
		case q == nil || q.Closed || !s.mayHave(q.Owner):
			return fmt.Errorf("message %x for a device of somebody else", s.id)
		case t.Seq != q.Next:
			return fmt.Errorf("message %x has number %d, the queue is at %d", s.id, t.Seq, q.Next)
		}
		q.Next++
		q.Assigned[t.Seq], q.Expiry[t.Seq] = s.id, s.expires
		q.Items = append(q.Items, Item{t.Seq, s.id, msg.Sender, s.size, now, s.expires})
		msg.Targets[Key(t.DeviceKey)] = t.Seq
	}
	for _, device := range s.skipped {
		q := m.Queues[Key(device)]
		q.Gap, q.GapUpTo = q.Gap+1, q.Next
		q.Next++
	}
	m.Messages[s.id] = msg
	if len(s.targets) > 0 {
		m.Payloads[PayloadKey{s.owner, s.id}] = msg.SHA256
	}
	return nil
}

// queueOf is the queue that a device reads or read: that of the device which took its
// place, if one did.
func (m *Model) queueOf(device Key) *Queue { return m.Queues[m.heir(device)] }

// heir is the device that has the queue now which a device had.
func (m *Model) heir(device Key) Key {
	for next, replaced := m.Successors[device]; replaced; next, replaced = m.Successors[device] {
		device = next
	}
	return device
}

// forget ends a payload that no queue refers to any more.
func (m *Model) forget(id ID) {
	owner := m.Messages[id].Owner
	for device := range m.Messages[id].Targets {
		if slices.ContainsFunc(m.queueOf(device).Items, func(it Item) bool { return it.Message == id }) {
			return
		}
	}
	delete(m.Payloads, PayloadKey{owner, id})
	m.Gone[PayloadKey{owner, id}] = true
}

// hashOf is the SHA-256 of a payload, as events carry it.
func hashOf(payload []byte) [32]byte { return sha256.Sum256(payload) }
