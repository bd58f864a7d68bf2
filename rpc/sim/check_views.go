package sim

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"quicprochat/log"
	"quicprochat/projections"
)

// checkViews holds the stored views against views that are built from nothing,
// and both against the model.
func checkViews(fs *vfs.MemFS, l *log.Log, m *Model) error {
	live, err := projections.Open(fs, DataDir, projections.Options{LogSize: l.Size(), CacheBytes: 1 << 20})
	if err != nil {
		return fmt.Errorf("open the views: %w", err)
	}
	defer live.Close()
	if live.Cursor() != l.Size() {
		return fmt.Errorf("the views of a stopped server stand at %d of %d", live.Cursor(), l.Size())
	}
	snap := live.Snapshot()
	defer snap.Close()
	if err := compareWithRebuilt(snap, l, l.Size()); err != nil {
		return err
	}
	return CompareViews(snap, m)
}

// compareWithRebuilt holds views of a size against those that are built from
// nothing out of the log.
func compareWithRebuilt(live *projections.Snapshot, l *log.Log, size uint64) error {
	fresh, err := rebuild(l, size)
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	defer fresh.Close()
	snap := fresh.Snapshot()
	defer snap.Close()
	want, err := projections.Digest(snap)
	if err != nil {
		return err
	}
	if got, err := projections.Digest(live); err != nil || got != want {
		return fmt.Errorf("the live views have digest %x, rebuilt ones %x (%v)", got, want, err)
	}
	return nil
}

// rebuild makes views from the first events of a log, in memory.
func rebuild(l *log.Log, size uint64) (_ *projections.Views, err error) {
	v, err := projections.DropAndRecreate(vfs.NewMem(), DataDir, projections.Options{LogSize: size, CacheBytes: 1 << 20})
	if err != nil {
		return nil, err
	}
	b := v.NewBatch()
	err = l.Iterate(0, size, func(index uint64, r log.Record) error {
		ev, err := projections.DecodeEvent(r.Event)
		if err != nil {
			return err
		}
		return projections.Apply(b, &projections.Entry{Index: index, Leaf: r.Leaf, Opening: r.Opening, Raw: r.Event, Event: ev})
	})
	if err == nil {
		err = b.Commit()
	}
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// CompareViews says where views and model differ.
func CompareViews(r projections.Reader, m *Model) error {
	for name, a := range m.Accounts {
		if err := compareAccount(r, m, name, a); err != nil {
			return fmt.Errorf("account %s: %w", name, err)
		}
	}
	for device, q := range m.Queues {
		if err := compareQueue(r, device, q); err != nil {
			return fmt.Errorf("queue %x: %w", device[:4], err)
		}
	}
	for k, want := range m.Receipts {
		got, found, err := projections.Receipt(r, k.Caller, k.Method, k.Request)
		if err != nil || !found || !bytes.Equal(got.RequestHash[:], want.RequestHash) || !bytes.Equal(got.Outcome, want.Outcome) {
			return fmt.Errorf("receipt %x: found %v, %v", k.Request, found, err)
		}
	}
	for token, want := range m.Sessions {
		got, found, err := projections.SessionByToken(r, token)
		if err != nil || !found || ID(got.AccountID) != want.Account || Key(got.DeviceKey) != want.Device || got.LastDay != want.Day || got.ExpiresMS != want.Expires {
			return fmt.Errorf("session: found %v, %v: %+v, not %+v", found, err, got, want)
		}
	}
	if err := compareKeys(r, m); err != nil {
		return err
	}
	if err := compareBans(r, m); err != nil {
		return err
	}
	if err := comparePackages(r, m); err != nil {
		return err
	}
	for id, want := range m.Channels {
		if err := compareChannel(r, id, want); err != nil {
			return fmt.Errorf("channel %x: %w", id, err)
		}
	}
	for token := range m.EverSessions {
		if _, found, err := projections.SessionByToken(r, token); err != nil || found != (m.Sessions[token] != nil) {
			return fmt.Errorf("a session that ended: found %v, %v", found, err)
		}
	}
	return nil
}

func compareAccount(r projections.Reader, m *Model, name string, want *Account) error {
	got, found, err := projections.AccountByName(r, name)
	if err != nil || !found {
		return fmt.Errorf("found %v, %w", found, err)
	}
	if ID(got.ID) != want.ID || Key(got.IdentityKey) != want.Identity || len(got.Devices) != len(want.Devices) {
		return fmt.Errorf("%+v, not %+v", got, want)
	}
	record, found, err := projections.OpaqueRecord(r, got.ID)
	if err != nil || !found || record.Version != want.Version || !bytes.Equal(record.Upload, want.Upload) {
		return fmt.Errorf("password record of version %d, not %d: found %v, %w", record.GetVersion(), want.Version, found, err)
	}
	keyset, found, err := projections.KeySet(r, got.IdentityKey)
	if err != nil || !found || !proto.Equal(keyset, m.KeySets[want.Identity]) {
		return fmt.Errorf("KeySet %d: found %v, %w", keyset.GetVersion(), found, err)
	}
	return nil
}

func compareQueue(r projections.Reader, device Key, want *Queue) error {
	got, found, err := projections.Queue(r, device)
	if err != nil || found == want.Closed {
		return fmt.Errorf("found %v, %w", found, err)
	}
	if want.Closed {
		return nil
	}
	if got.NextSeq != want.Next || got.Cursor != want.Cursor || got.GapCount != want.Gap || got.GapUpTo != want.GapUpTo || got.Count != uint64(len(want.Items)) {
		return fmt.Errorf("%+v, not next %d, cursor %d, gap %d up to %d, %d items", got, want.Next, want.Cursor, want.Gap, want.GapUpTo, len(want.Items))
	}
	items, _, err := projections.QueueItems(r, device, 0, len(want.Items)+1, 1<<40)
	if err != nil {
		return err
	}
	return compareItems(items, want)
}

func compareItems(items []projections.QueueItem, q *Queue) error {
	same := slices.EqualFunc(items, q.Items, func(a projections.QueueItem, b Item) bool {
		return a.Seq == b.Seq && ID(a.MessageID) == b.Message && ID(a.Sender) == b.Sender && a.Size == b.Size &&
			a.EnqueuedMS == b.EnqueuedMS && a.ExpiresMS == b.ExpiresMS && a.Drained == (b.Seq <= q.Cursor)
	})
	if !same {
		return fmt.Errorf("items %+v, not %+v", items, q.Items)
	}
	return nil
}
