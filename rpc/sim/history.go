package sim

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"quicprochat/rpc/client"
)

// Outcome is what a caller knows of a call.
type Outcome int

const (
	// Unknown: no answer, or one that says that the outcome is unknown.
	Unknown Outcome = iota
	// Done: the server said Ok.
	Done
	// Refused: the server said that nothing happened.
	Refused
)

// outcomeOf takes the error of a call of the SDK that mutates. Only a status
// says that nothing happened: a call that was never sent counts as unknown too,
// which promises less.
func outcomeOf(err error) Outcome {
	var status *client.StatusError
	switch {
	case err == nil:
		return Done
	case errors.Is(err, client.ErrOutcomeUnknown):
		return Unknown
	case errors.As(err, &status):
		return Refused
	}
	return Unknown
}

// span is when a call ran, in Unix milliseconds of the world.
type span struct{ start, end uint64 }

func begin() span { return span{start: nowMS(), end: never} }

func (s *span) finish() { s.end = nowMS() }

func (s span) before(o span) bool { return s.end < o.start }

const never = ^uint64(0)

func nowMS() uint64 { return uint64(time.Now().UnixMilli()) }

// Sent is one message that somebody tried to send. Its payload is unique.
type Sent struct {
	span
	By      *Person
	To      Key // device
	Hash    [32]byte
	Outcome Outcome
	Message ID // when Done
	// Of a post to a channel; then To is not set.
	Channel ID
	Epoch   *uint64 // of a commit
	Welcome bool
	Seq     uint64 // when Done
}

// Seen is one envelope that somebody was handed.
type Seen struct {
	Seq     uint64
	Message ID
	Hash    [32]byte
	Post    Post // without Commit and Epoch, which envelopes do not tell
	Control bool
}

// Read is one Fetch, FetchWait or Peek.
type Read struct {
	span
	Device  Key
	Drain   bool   // a Fetch without after_seq
	Confirm bool   // a Fetch with it
	After   uint64 // what came before the page
	// SkipsDrained: what a draining read handed out before is left out.
	SkipsDrained bool
	Outcome      Outcome
	Seen         []Seen
}

// Acked is one Ack.
type Acked struct {
	span
	Device  Key
	Seqs    []uint64
	UpTo    uint64
	Outcome Outcome
}

// Fact is anything else that was promised: a check against the final state.
type Fact struct {
	span
	What  string
	Check func(m *Model) error
}

// Life is the time between two starts of the server.
type Life struct {
	span
	Cause string
	// Anchored is the size that the disk's anchor named durably at the end.
	Anchored uint64
}

// History is what the people of a world were told.
type History struct {
	mu    sync.Mutex
	sent  []*Sent
	reads []*Read
	acks  []*Acked
	facts []Fact

	shelved []*Shelved
	taken   []*Taken
	invited []*Invited
	parted  []*Parted
	changed []*Changed
	passed  map[[32]byte]*Passed
	heard   []Heard
	noticed []Noticed

	people     []*Person
	banned     []*Banned
	lifted     []*Lifted
	accepted   []Accepted
	toldBanned []ToldBanned
	reported   []*Reported
	removed    []*Removed
	linked     int
	replaced   int
	repairs    int
	repaired   map[ID]bool // channels whose epoch somebody may have set

	lives []Life
	clock []span              // when the server's wall clock was wrong
	sizes []anchored          // of the log as the anchor on disk proves it, ascending
	marks map[uint64][32]byte // anchored sizes and roots seen while running
	wrong []string            // what went wrong while running
}

// anchored is a size of the log that was anchored at a time, in Unix
// milliseconds.
type anchored struct{ at, size uint64 }

func (h *History) addAnchored(size uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sizes = append(h.sizes, anchored{nowMS(), size})
}

func (h *History) addWrongClock(s span) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock = append(h.clock, s)
}

// anchoredBy is how much of the log was anchored at the end of a call.
func (h *History) anchoredBy(end uint64) (size uint64) {
	after, _ := slices.BinarySearchFunc(h.sizes, end+1, func(a anchored, at uint64) int { return cmp.Compare(a.at, at) })
	if after > 0 {
		size = h.sizes[after-1].size
	}
	return size
}

func (h *History) addSent(s *Sent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent = append(h.sent, s)
}

func (h *History) addRead(r *Read) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads = append(h.reads, r)
}

func (h *History) addAck(a *Acked) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acks = append(h.acks, a)
}

func (h *History) addShelved(s *Shelved) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shelved = append(h.shelved, s)
}

func (h *History) addTaken(t *Taken) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taken = append(h.taken, t)
}

func (h *History) addInvited(i *Invited) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.invited = append(h.invited, i)
}

func (h *History) addParted(p *Parted) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.parted = append(h.parted, p)
}

func (h *History) addChanged(c *Changed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changed = append(h.changed, c)
}

func (h *History) addPassed(hash [32]byte, p *Passed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.passed[hash] = p
}

func (h *History) addHeard(heard Heard) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard = append(h.heard, heard)
}

func (h *History) addBanned(b *Banned) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.banned = append(h.banned, b)
}

func (h *History) addLifted(l *Lifted) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lifted = append(h.lifted, l)
}

func (h *History) addAccepted(a Accepted) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.accepted = append(h.accepted, a)
}

func (h *History) addToldBanned(t ToldBanned) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.toldBanned = append(h.toldBanned, t)
}

func (h *History) addReported(r *Reported) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reported = append(h.reported, r)
}

func (h *History) addLinked() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.linked++
}

func (h *History) addReplaced() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.replaced++
}

func (h *History) addRemoved(r *Removed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removed = append(h.removed, r)
}

func (h *History) addFact(f Fact) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.facts = append(h.facts, f)
}

// Wrong notes a broken promise.
func (h *History) Wrong(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.wrong) < 20 && !slices.Contains(h.wrong, what) {
		h.wrong = append(h.wrong, what)
	}
}

// Counts are the sizes of a history, for the summary of a run.
type Counts struct {
	Sent, Done, Unknown, Reads, Seen, Acks, Lives, Packets, Lost int
	// KeyEnds are keys whose end was confirmed.
	KeyEnds int
	// Packages are KeyPackages for one use that were handed out.
	Packages int
	// Posts and Commits are those that were acknowledged, Heard the EPHEMERAL messages
	// that came.
	Posts, Commits, Heard int
	// Bans are those that were acknowledged, Reports too.
	Bans, Reports int
	// Linked are devices beside the first that were let in, Replaced those of them that
	// took the place of another.
	Linked, Replaced int
	// Repairs are epochs that were set, Noticed the pushes that told of somebody's coming
	// or going.
	Repairs, Noticed int
	Trace            uint64
}

func (h *History) counts() (c Counts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sent {
		c.Sent++
		switch s.Outcome {
		case Done:
			c.Done++
			if s.Channel != (ID{}) && !s.Welcome {
				c.Posts++
			}
			if s.Epoch != nil {
				c.Commits++
			}
		case Unknown:
			c.Unknown++
		}
	}
	for _, t := range h.taken {
		for _, p := range t.Packages {
			if !p.Last {
				c.Packages++
			}
		}
	}
	for _, r := range h.reads {
		c.Seen += len(r.Seen)
	}
	for _, b := range h.banned {
		if b.Outcome == Done {
			c.Bans++
		}
	}
	for _, r := range h.reported {
		if r.Outcome == Done {
			c.Reports++
		}
	}
	c.Heard, c.Linked, c.Replaced = len(h.heard), h.linked, h.replaced
	c.Repairs, c.Noticed = h.repairs, len(h.noticed)
	c.Reads, c.Acks, c.Lives = len(h.reads), len(h.acks), len(h.lives)
	return c
}
