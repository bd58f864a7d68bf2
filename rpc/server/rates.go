package server

import (
	"crypto/sha256"
	"time"

	"quicprochat/commands"
	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// rates are the budgets of the classes in the method table that are charged to
// the caller alone: the account of a session, else the address prefix.
var rates = map[pb.Rate_Class]budget{
	pb.Rate_PROBE:              {burst: 60, interval: time.Second},
	pb.Rate_REGISTER_START:     {burst: 30, interval: time.Hour / 30},
	pb.Rate_REGISTER_FINISH:    {burst: 6, interval: time.Hour / 6},
	pb.Rate_RECEIVE:            {burst: 1_200, interval: time.Second / 50},
	pb.Rate_KEY_UPLOAD:         {burst: 20, interval: time.Minute},
	pb.Rate_KEY_FETCH:          {burst: 300, interval: time.Second / 2},
	pb.Rate_RESOLVE:            {burst: 100, interval: 10 * time.Second},
	pb.Rate_REVOKE:             {burst: 10, interval: time.Hour / 10},
	pb.Rate_AUDIT:              {burst: 300, interval: time.Second / 5},
	pb.Rate_DEVICE_CHANGE:      {burst: 20, interval: time.Minute},
	pb.Rate_DEVICE_LIST:        {burst: 60, interval: time.Second},
	pb.Rate_CHANNEL_CREATE:     {burst: 100, interval: 24 * time.Hour / 100},
	pb.Rate_CHANNEL_CHANGE:     {burst: 120, interval: time.Second},
	pb.Rate_CHANNEL_READ:       {burst: 300, interval: time.Second / 5},
	pb.Rate_KEY_PACKAGE_UPLOAD: {burst: 20, interval: time.Minute},
	pb.Rate_REPORT:             {burst: 30, interval: 24 * time.Hour / 30},
	pb.Rate_MODERATE:           {burst: 120, interval: time.Second},
	// Over all targets; keyPackageBudget is for each. A group of 1,000 can be begun.
	pb.Rate_KEY_PACKAGE_FETCH: {burst: 1_000, interval: time.Second / 2},
}

// Budgets that are charged to something else, too.
var (
	// pairRate is for (sending account, recipient): messages.
	pairRate = budget{burst: 60, interval: time.Second}
	// loginPairRate is for (username, address prefix).
	loginPairRate = budget{burst: 10, interval: 15 * time.Minute / 10}
	// loginNameRate is for a username, from wherever.
	loginNameRate = budget{burst: 100, interval: time.Hour / 100}
	// ownLoginRate is for logins of an account on connections that are bound to
	// it: its owner can't be locked out by others' attempts.
	ownLoginRate = budget{burst: 10, interval: 15 * time.Minute / 10}
	// typingRate is for passing messages of an account: what nobody stores still
	// goes to every member.
	typingRate = budget{burst: 30, interval: time.Second / 2}
	// fanoutRate is for posts of an account to all its channels, a token for each member:
	// a post costs the server what its channel has members, and whoever makes channels
	// chooses how many. A full channel can be sent a post a second, as by pairRate.
	fanoutRate = budget{burst: 60_000, interval: time.Millisecond}
	// receiptRate is for looks of an account at its own leaves.
	receiptRate = budget{burst: 20, interval: 24 * time.Hour / 20}
)

// Kinds of buckets beside the classes of the table, which are numbered below.
const (
	kindPair uint8 = 100 + iota
	kindLoginPair
	kindLoginName
	kindLoginOwn
	kindReceipt
	kindTyping
	kindPackagePair
	kindPackageTarget
	kindFanout
)

// spend charges a call to its buckets. Refusal: RateLimited RATE. Unknown names
// are charged as known ones are.
func (c *call) spend() error {
	if c.server.unlimited {
		return nil
	}
	charges, err := c.charges()
	if err != nil || len(charges) == 0 {
		return err
	}
	wait, ok := c.server.buckets.take(c.server.elapsed(), charges...)
	if ok {
		return nil
	}
	return &commands.Refusal{
		Status: pb.Status_RateLimited, Reason: pb.Reason_RATE, Message: "too many of these calls: wait before the next",
		RetryAfterMS: uint64(wait/time.Millisecond) + 1,
	}
}

func (c *call) charges() ([]charge, error) {
	switch class := c.method.Rule.Rate; class {
	case pb.Rate_SEND:
		return c.sendCharges()
	case pb.Rate_LOGIN:
		return c.loginCharges()
	case pb.Rate_LOGIN_FINISH:
		return nil, nil // paid for by the first half: without it there is no work
	case pb.Rate_REVOKE: // by address, whoever asks: a session must not buy more
		return []charge{{key: bucketKey{kind: uint8(class), b: c.prefixKey()}, budget: rates[class], tokens: 1}}, nil
	case pb.Rate_AUDIT:
		return c.auditCharges(), nil
	default:
		return []charge{c.classCharge(class)}, nil
	}
}

// classCharge is one token of a class, from the caller's account or else from the
// address prefix.
func (c *call) classCharge(class pb.Rate_Class) charge {
	k := bucketKey{kind: uint8(class)}
	if c.caller.Known() {
		k.a = c.caller.Account
	} else {
		k.b = c.prefixKey()
	}
	return charge{key: k, budget: rates[class], tokens: 1}
}

// auditCharges is what a look at the log costs. A person costs what ResolveUser
// costs, or this would be the cheaper way to list people. Where the own messages
// stand in the log tells how many those of all others are: 20 a day.
func (c *call) auditCharges() []charge {
	charges := []charge{c.classCharge(pb.Rate_AUDIT)}
	req, ok := c.message.(*pb.AuditKeyTransparencyRequest)
	if !ok || !c.caller.Known() {
		return charges
	}
	switch req.GetQuery().(type) {
	case *pb.AuditKeyTransparencyRequest_Username, *pb.AuditKeyTransparencyRequest_IdentityKey:
		return append(charges, c.classCharge(pb.Rate_RESOLVE))
	case *pb.AuditKeyTransparencyRequest_Message, *pb.AuditKeyTransparencyRequest_Index:
		key := bucketKey{kind: kindReceipt, a: c.caller.Account}
		return append(charges, charge{key: key, budget: receiptRate, tokens: 1})
	}
	return charges
}

// prefixKey is the address prefix in the form of a bucket's key.
func (c *call) prefixKey() (k [32]byte) {
	p := c.request.connection.admission.neighbours.prefix
	address := p.Addr().As16()
	copy(k[:], address[:])
	k[16] = byte(p.Bits())
	return k
}

// sendCharges is one token per message, for each recipient, and for a post one per
// member as well.
func (c *call) sendCharges() ([]charge, error) {
	pair := func(identity, device []byte) bucketKey {
		k := bucketKey{kind: kindPair, a: c.caller.Account}
		copy(k.b[:], identity)
		if len(identity) == 0 {
			copy(k.b[:], device)
		}
		return k
	}
	switch req := c.message.(type) {
	case *pb.EnqueueRequest:
		if req.GetClass() == pb.MessageClass_EPHEMERAL {
			return []charge{{key: bucketKey{kind: kindTyping, a: c.caller.Account}, budget: typingRate, tokens: 1}}, nil
		}
		return []charge{{key: pair(req.GetRecipientKey(), req.GetRecipientDevice()), budget: pairRate, tokens: 1}}, nil
	case *pb.BatchEnqueueRequest:
		tokens := make(map[bucketKey]int)
		if len(req.GetChannelId()) > 0 { // one for the channel, and for each Welcome
			tokens[pair(req.GetChannelId(), nil)]++
		}
		for _, w := range req.GetWelcomes() {
			for _, key := range w.GetRecipientKeys() {
				tokens[pair(key, nil)]++
			}
			for _, key := range w.GetRecipientDevices() {
				tokens[pair(nil, key)]++
			}
		}
		for _, item := range req.GetItems() {
			tokens[pair(item.GetRecipientKey(), item.GetRecipientDevice())]++
		}
		charges := make([]charge, 0, len(tokens)+1)
		for k, n := range tokens {
			charges = append(charges, charge{key: k, budget: pairRate, tokens: n})
		}
		members, err := c.membersOf(req.GetChannelId())
		if members > 0 {
			key := bucketKey{kind: kindFanout, a: c.caller.Account}
			charges = append(charges, charge{key: key, budget: fanoutRate, tokens: members})
		}
		return charges, err
	}
	return nil, nil
}

// membersOf is how many members a channel has; 0 for one that does not exist.
func (c *call) membersOf(channel []byte) (int, error) {
	if len(channel) != commands.ChannelIDSize {
		return 0, nil
	}
	v, err := c.service.engine.View()
	if err != nil {
		return 0, err
	}
	defer v.Release()
	found, _, err := projections.ChannelByID(v.Reader, projections.ID(channel))
	return int(found.Members), err
}

// loginCharges is the budget of guessing passwords. A name that can't be one is
// refused by its handler and charged to nobody.
func (c *call) loginCharges() ([]charge, error) {
	req, ok := c.message.(*pb.OpaqueLoginStartRequest)
	if !ok {
		return nil, nil
	}
	name, err := statement.CanonicalUsername(req.GetUsername())
	if err != nil {
		return nil, nil
	}
	account, own, err := c.boundAs(name)
	if err != nil {
		return nil, err
	}
	if own {
		return []charge{{key: bucketKey{kind: kindLoginOwn, a: account}, budget: ownLoginRate, tokens: 1}}, nil
	}
	hash := sha256.Sum256([]byte(name))
	prefix := c.prefixKey()
	return []charge{
		{key: bucketKey{kind: kindLoginPair, a: [16]byte(prefix[:16]), b: hash}, budget: loginPairRate, tokens: 1},
		{key: bucketKey{kind: kindLoginName, b: hash}, budget: loginNameRate, tokens: 1},
	}, nil
}

// boundAs reports whether the connection belongs to a device of the account with
// this name, and which account that is.
func (c *call) boundAs(name string) (projections.ID, bool, error) {
	b := c.request.connection.bound.Load()
	if b == nil {
		return projections.ID{}, false, nil
	}
	v, err := c.service.engine.View()
	if err != nil {
		return projections.ID{}, false, err
	}
	defer v.Release()
	account, found, err := projections.AccountByName(v.Reader, name)
	return account.ID, found && account.ID == b.caller.Account, err
}
