package commands

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	pb "quicprochat/proto/qpcv1"
)

// Bounds of the disk's gate. It closes below MinFree percent of the disk, at
// most maxReserve, and opens again a quarter above that, so that it does not
// flutter.
//
//	free  ├────────────────┼──────┼───────────────────────────────────┤
//	      0            reserve  reserve × 5/4                      total
//	      gate closed ───────────▶ opens
//	      closes ◀─────────┤             gate open
const (
	// maxReserve bounds the reserve in bytes: what a store needs to go on,
	// compactions included, does not grow with the disk.
	maxReserve = 10 << 30
	// fullRetryMS is when trying again makes sense on a full disk, in
	// milliseconds: people or the operator must make room first.
	fullRetryMS = 60_000
)

// errDiskFull refuses what would take room on a nearly full disk.
var errDiskFull = &Refusal{
	Status: pb.Status_Unavailable, Reason: pb.Reason_DISK_FULL, RetryAfterMS: fullRetryMS,
	Message: "the server's disk is full: messages can be fetched and acknowledged, nothing new is taken",
}

// space watches how full the disk is. While its gate is closed only commands
// pass that free room, are needed for that, or are the engine's own. It also
// keeps the ballast. Without Options.MinFree it does nothing.
type space struct {
	fs      vfs.FS
	dir     string
	percent uint64
	logger  *slog.Logger

	full  atomic.Bool
	free  atomic.Uint64 // bytes, at the last look
	total atomic.Uint64

	ballasting sync.Mutex // guards the ballast file
	ballast    atomic.Uint64
	spent      bool // the ballast was released for good; guarded by ballasting
	blind      bool // the last look failed; the keeper's own
}

func newSpace(o Options, logger *slog.Logger) *space {
	return &space{fs: o.FS, dir: o.Dir, percent: uint64(max(o.MinFree, 0)), logger: logger}
}

// reserve is the free space below which the gate closes, in bytes.
func reserve(percent, total uint64) uint64 {
	return min(total/100*percent, maxReserve)
}

// begin looks for the first time; false when there is nothing to watch.
func (s *space) begin() bool {
	if s.percent == 0 {
		return false
	}
	if _, err := s.fs.GetDiskUsage(s.dir); errors.Is(err, vfs.ErrUnsupported) {
		return false // a file system in memory
	}
	s.look()
	return true
}

// look takes a sample and moves the gate. A file system that can't tell leaves
// the gate as it is.
func (s *space) look() {
	usage, err := s.fs.GetDiskUsage(s.dir)
	if err == nil && usage.TotalBytes == 0 {
		err = errors.New("it says that its size is 0")
	}
	if err != nil {
		if !s.blind {
			s.logger.Warn("can't find out how full the disk is: changes are neither stopped nor let through because of it", "error", err)
		}
		s.blind = true
		return
	}
	s.blind = false
	s.free.Store(usage.AvailBytes)
	s.total.Store(usage.TotalBytes)
	closes := reserve(s.percent, usage.TotalBytes)
	switch full := s.full.Load(); {
	case !full && usage.AvailBytes < closes:
		s.full.Store(true)
		s.logger.Warn("the disk is nearly full: new messages are refused until there is room; fetching and acknowledging go on",
			"free_bytes", usage.AvailBytes, "total_bytes", usage.TotalBytes, "needed_bytes", closes/4*5)
	case full && usage.AvailBytes >= closes/4*5:
		s.full.Store(false)
		s.logger.Info("the disk has room again: everything is accepted", "free_bytes", usage.AvailBytes)
	}
}

// refuse is the answer to a command that must wait for room, else nil.
func (s *space) refuse(c *Command) error {
	if c.Method == 0 || c.WorksWhenFull || !s.full.Load() {
		return nil
	}
	return errDiskFull
}

// check is nil while there is room.
func (s *space) check() error {
	if s.full.Load() {
		return errDiskFull
	}
	return nil
}

// keepBallast makes the ballast when there is room for it beyond what opens the
// gate.
func (s *space) keepBallast() {
	size := ballastSize(s.total.Load())
	s.ballasting.Lock()
	defer s.ballasting.Unlock()
	if s.spent || s.ballast.Load() == size || s.full.Load() {
		return
	}
	if info, err := s.fs.Stat(s.fs.PathJoin(s.dir, BallastFile)); err == nil && uint64(info.Size()) == size {
		s.ballast.Store(size)
		return
	}
	if s.free.Load() < reserve(s.percent, s.total.Load())/4*5+size {
		return
	}
	if err := makeBallast(s.fs, s.dir, size); err != nil {
		s.spent = true // once per start is enough
		s.logger.Warn("no ballast: if the disk runs full, a start will need room that you make", "error", err)
		return
	}
	s.ballast.Store(size)
}

// release gives the ballast's room back after a failure for want of room, so
// that the next start can recover the log and people can empty their queues.
func (s *space) release(cause error) {
	if s.percent == 0 || !vfs.IsNoSpaceError(cause) {
		return
	}
	s.ballasting.Lock()
	defer s.ballasting.Unlock()
	s.spent = true
	s.ballast.Store(0)
	switch released, err := ReleaseBallast(s.fs, s.dir); {
	case err != nil:
		s.logger.Error("the disk is full and the ballast can't be removed", "error", err)
	case released:
		s.logger.Warn("the disk is full: the ballast was removed, so that the next start has room")
	}
}

// Space tells how full the disk is, for metrics.
type Space struct {
	Free    uint64 // bytes, at the last look; 0 when nobody looks
	Full    bool   // the gate is closed
	Ballast uint64 // bytes that the ballast holds
}

// Space reads the state of the disk's gate.
func (e *Engine) Space() Space {
	return Space{Free: e.space.free.Load(), Full: e.space.full.Load(), Ballast: e.space.ballast.Load()}
}

// CheckMinFree says what is wrong with a percentage for Options.MinFree.
func CheckMinFree(percent int) error {
	if percent < 0 || percent > 90 {
		return fmt.Errorf("%d %% of the disk can't be kept free: give 0 (off) to 90", percent)
	}
	return nil
}
