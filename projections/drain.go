package projections

import (
	"encoding/binary"
	"math"

	pb "quicprochat/proto/qpcv1"
)

// A draining Fetch hands items out and keeps them for a grace, in case its reply
// is lost. When they were drained is kept per queue and hour:
//
//	prefixDrain     device ‖ hour → up to   what the hour's drains reached
//	prefixDrainDue  hour ‖ device           the first of the device's hours

const hourMS = 60 * 60 * 1000

// applyMessagesDrained moves the cursor over items that a plain Fetch hands out.
// The gap, told in the same answer, ends.
func applyMessagesDrained(b *Batch, ev *pb.MessagesDrained, nowMS uint64) error {
	device, q, err := b.queueOf(ev.GetDeviceKey())
	if err != nil {
		return err
	}
	upTo := ev.GetUpTo()
	if upTo < q.Cursor || upTo > q.Tail() {
		return invalid("drained up to %d, cursor %d, tail %d", upTo, q.Cursor, q.Tail())
	}
	drained := q.DrainedCount
	err = scanItems(b, device, &q, q.Cursor+1, upTo, func(it *QueueItem) (bool, error) {
		q.DrainedCount++
		q.DrainedBytes += uint64(it.Size)
		return true, nil
	})
	if err != nil {
		return err
	}
	q.Cursor = upTo
	q.GapCount, q.GapUpTo = 0, 0
	if q.DrainedCount > drained {
		if err := b.markDrain(device, &q, uint32(nowMS/hourMS)); err != nil {
			return err
		}
	}
	return b.putQueue(device, &q)
}

// markDrain notes that the cursor was reached in an hour.
func (b *Batch) markDrain(device Key, q *QueueState, hour uint32) error {
	b.row = binary.BigEndian.AppendUint64(b.row[:0], q.Cursor)
	if err := b.put(drainKey(b.scratch(), device, hour), b.row); err != nil {
		return err
	}
	if q.drainMark != 0 {
		return nil
	}
	q.drainMark = hour + 1
	return b.put(drainDueKey(b.scratch(), hour, device), nil)
}

// applyDrainedReleased removes drained items after their grace.
func applyDrainedReleased(b *Batch, ev *pb.DrainedReleased) error {
	device, q, err := b.queueOf(ev.GetDeviceKey())
	if err != nil {
		return err
	}
	if ev.GetUpTo() > q.Cursor {
		return invalid("release up to %d, the cursor is %d", ev.GetUpTo(), q.Cursor)
	}
	if err := b.removeUpTo(device, &q, ev.GetUpTo()); err != nil {
		return err
	}
	return b.settle(device, &q)
}

// trimDrains forgets the hours whose drained items are all gone.
func (b *Batch) trimDrains(device Key, q *QueueState) error {
	if q.drainMark == 0 {
		return nil
	}
	first := uint32(0)
	var gone []uint32
	err := scanView(b, keyOf32(nil, prefixDrain, device), func(key, value []byte) (bool, error) {
		hour, upTo, err := decodeDrain(key, value)
		if err != nil {
			return false, err
		}
		if upTo >= q.Head && q.DrainedCount > 0 {
			first = hour + 1
			return false, nil
		}
		gone = append(gone, hour)
		return true, nil
	})
	if err != nil || first == q.drainMark {
		return err
	}
	for _, hour := range gone {
		if err := b.remove(drainKey(b.scratch(), device, hour)); err != nil {
			return err
		}
	}
	if err := b.remove(drainDueKey(b.scratch(), q.drainMark-1, device)); err != nil {
		return err
	}
	if q.drainMark = first; first == 0 {
		return nil
	}
	return b.put(drainDueKey(b.scratch(), first-1, device), nil)
}

func decodeDrain(key, value []byte) (hour uint32, upTo uint64, err error) {
	in := rowReader{rest: value}
	upTo = in.u64()
	return binary.BigEndian.Uint32(key[len(key)-4:]), upTo, in.end("drains")
}

// QueueRelease is the body of a DrainedReleased event that is due.
type QueueRelease struct {
	Device Key
	UpTo   uint64
}

// DrainedDue lists what was drained at least graceMS before nowMS, up to an hour
// later but never earlier: each result is to become one DrainedReleased event.
// limit bounds the items that these events remove.
func DrainedDue(r Reader, nowMS, graceMS uint64, limit int) ([]QueueRelease, error) {
	if nowMS < graceMS+hourMS {
		return nil, nil
	}
	// The last hour that ended a grace ago.
	last := uint32((nowMS-graceMS)/hourMS - 1)
	var devices []Key
	err := scanRows(r, keyOf(nil, prefixDrainDue), keyOfU32(nil, prefixDrainDue, last+1), func(key, _ []byte) (bool, error) {
		devices = append(devices, Key(key[1+4:]))
		return len(devices) < limit, nil
	})
	if err != nil {
		return nil, err
	}
	var due []QueueRelease
	for _, device := range devices {
		if limit <= 0 {
			break
		}
		upTo, items, err := drainedBefore(r, device, last, limit)
		if err != nil {
			return nil, err
		}
		due = append(due, QueueRelease{Device: device, UpTo: upTo})
		limit -= items
	}
	return due, nil
}

// drainedBefore finds the last of at most limit items that were drained until
// the end of an hour.
func drainedBefore(r Reader, device Key, lastHour uint32, limit int) (upTo uint64, items int, err error) {
	start := keyOf32(nil, prefixDrain, device)
	err = scanRows(r, start, drainKey(nil, device, lastHour+1), func(key, value []byte) (bool, error) {
		_, upTo, err = decodeDrain(key, value)
		return true, err
	})
	if err != nil {
		return 0, 0, err
	}
	q, found, err := Queue(r, device)
	if err != nil || !found {
		return 0, 0, err
	}
	drained := upTo
	err = scanItems(r, device, &q, 0, min(drained, math.MaxUint64-1), func(it *QueueItem) (bool, error) {
		items++
		upTo = it.Seq
		return items < limit, nil
	})
	if items < limit {
		upTo = drained
	}
	return upTo, items, err
}
