package commands

import (
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// Budget is what the limiters say of a call whose outcome they change.
type Budget struct {
	// Spent: nothing may be used up any more.
	Spent bool
	// RetryAfterMS tells when something may be again, in milliseconds.
	RetryAfterMS uint64
}

// keyPackageWish is a FetchKeyPackageRequest, checked.
type keyPackageWish struct {
	identity projections.Key
	all      bool
	suite    uint16 // 0: any
	keptMS   uint64 // until when the receipt is kept
	budget   Budget
}

// takenKeyPackage is one package that was chosen.
type takenKeyPackage struct {
	device projections.Key
	suite  uint16
	projections.KeyPackage
}

// NewFetchKeyPackage makes the command of a FetchKeyPackage. The reply of the
// command has no bytes of KeyPackages yet: FillKeyPackages adds them. Refusals, all BadRequest:
// MISSING_FIELD, KEY_INVALID, INVALID_FIELD.
func NewFetchKeyPackage(rule *pb.Rule, req *pb.FetchKeyPackageRequest, budget Budget) (*Command, error) {
	wish := keyPackageWish{all: req.GetAllDevices(), suite: uint16(req.GetCipherSuite()), budget: budget}
	var err error
	if wish.identity, err = keyOf("identity_key", req.GetIdentityKey()); err != nil {
		return nil, err
	}
	if req.GetCipherSuite() > 0xffff {
		return nil, invalid("cipher_suite is %d, they have 16 bits", req.GetCipherSuite())
	}
	// The writer refuses ids without a time.
	sent, _ := requestIDTime(req.GetRequestId())
	wish.keptMS = sent + RequestIDWindowMS
	return NewCommand(rule, req, func(tx *Tx) (*pb.FetchKeyPackageResponse, error) { return FetchKeyPackage(tx, &wish) })
}

// FetchKeyPackage decides who gets which KeyPackage: the oldest valid one of the
// primary device, the oldest active one that has any; or one of each. A device
// without one for single use gives its last resort, and so does each whose budget
// is spent. That there is none, and that there is no such identity, look the
// same. Refusal: RateLimited RATE when the budget is spent and a device has only
// packages for one use.
func FetchKeyPackage(tx *Tx, wish *keyPackageWish) (*pb.FetchKeyPackageResponse, error) {
	taken, err := chooseKeyPackages(tx, wish)
	if err != nil {
		return nil, err
	}
	resp := new(pb.FetchKeyPackageResponse)
	if len(taken) == 0 {
		return resp, nil
	}
	event := &pb.KeyPackagesTaken{KeptUntilMs: max(wish.keptMS, tx.Now()) + 1}
	for i := range taken {
		t := &taken[i]
		event.Packages = append(event.Packages, &pb.KeyPackagesTaken_Package{
			DeviceKey: t.device[:], CipherSuite: uint32(t.suite), Number: t.Number, PackageId: t.ID[:],
		})
		resp.Packages = append(resp.Packages, &pb.FetchKeyPackageResponse_Package{
			DeviceKey: t.device[:], CipherSuite: uint32(t.suite), LastResort: t.Number == 0, PackageId: t.ID[:],
		})
	}
	return resp, tx.Emit(&pb.Event{Body: &pb.Event_KeyPackagesTaken{KeyPackagesTaken: event}})
}

// chooseKeyPackages looks for what the wish is to get; it changes nothing.
func chooseKeyPackages(tx *Tx, wish *keyPackageWish) (taken []takenKeyPackage, err error) {
	account, found, err := projections.AccountByKey(tx.View(), wish.identity)
	if err != nil || !found {
		return nil, err
	}
	if banned, err := projections.BannedAt(tx.View(), account.ID, tx.Now()); err != nil || banned {
		return nil, err // as if there were none
	}
	for _, device := range account.Devices {
		if device == tx.Caller().DeviceKey {
			continue // nobody adds the device that asks
		}
		t, found, err := wish.chooseOf(tx, device)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		if taken = append(taken, t); !wish.all {
			break
		}
	}
	return taken, nil
}

// chooseOf is what one device gives; found is false when it has nothing.
func (wish *keyPackageWish) chooseOf(tx *Tx, device projections.Key) (chosen takenKeyPackage, found bool, err error) {
	stocks, err := projections.KeyPackageStocks(tx.View(), device)
	if err != nil {
		return chosen, false, err
	}
	var single, last *takenKeyPackage
	for i := range stocks {
		s := &stocks[i]
		if wish.suite != 0 && s.Suite != wish.suite {
			continue
		}
		if s.Last.ValidAt(tx.Now()) && (last == nil || s.Last.UploadedMS < last.UploadedMS) {
			last = &takenKeyPackage{device, s.Suite, s.Last}
		}
		if wish.budget.Spent && last != nil {
			continue // nothing else is given, so nothing else is looked for
		}
		oldest, found, err := projections.OldestKeyPackage(tx.View(), device, s, tx.Now())
		if err != nil {
			return chosen, false, err
		}
		if found && (single == nil || oldest.UploadedMS < single.UploadedMS) {
			single = &takenKeyPackage{device, s.Suite, oldest}
		}
	}
	switch {
	case single != nil && !wish.budget.Spent:
		return *single, true, nil
	case last != nil:
		return *last, true, nil
	case single != nil:
		return chosen, false, &Refusal{
			Status: pb.Status_RateLimited, Reason: pb.Reason_RATE, RetryAfterMS: wish.budget.RetryAfterMS,
			Message: "too many KeyPackages of this person were taken: wait before the next",
		}
	}
	return chosen, false, nil
}

// KeyPackageOwner is the account whose identity key this is or was: the owner of
// its devices' packages. found is false for a key that the view does not know.
func KeyPackageOwner(v *View, identityKey []byte) (owner projections.ID, found bool, err error) {
	o, found, err := projections.KeyOwner(v.Reader, key32(identityKey))
	return o.AccountID, found, err
}

// FillKeyPackages adds their bytes to the packages of a reply. A package that was
// purged since, with its device, is left out. payload reads one, under the owner's
// account.
func FillKeyPackages(payload func(owner, id [16]byte) ([]byte, bool, error), owner projections.ID, resp *pb.FetchKeyPackageResponse) error {
	filled := resp.Packages[:0]
	for _, p := range resp.GetPackages() {
		data, found, err := payload(owner, id16(p.GetPackageId()))
		if err != nil {
			return err
		}
		if found {
			p.KeyPackage = data
			filled = append(filled, p)
		}
	}
	clear(resp.Packages[len(filled):])
	resp.Packages = filled
	return nil
}

// ownersOfLow are the devices of taken packages that have few for one use left.
func ownersOfLow(r projections.Reader, ev *pb.KeyPackagesTaken, low [][32]byte) ([][32]byte, error) {
	for _, p := range ev.GetPackages() {
		device := key32(p.GetDeviceKey())
		stocks, err := projections.KeyPackageStocks(r, device)
		if err != nil {
			return low, err
		}
		for i := range stocks {
			if uint32(stocks[i].Suite) != p.GetCipherSuite() {
				continue
			}
			// One of them goes now, unless it is the last resort. To count the valid ones
			// would cost more than all else here, and what has expired goes within the hour.
			if stocks[i].Waiting() <= LowKeyPackages {
				low = append(low, device)
			}
		}
	}
	return low, nil
}
