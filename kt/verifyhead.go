package kt

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	pb "quicprochat/proto/qpcv1"
)

// DefaultFreshness is a freshness window for servers that make a HEAD a minute.
const DefaultFreshness = 15 * time.Minute

// Verifier checks what a server shows, without trusting it. Its fields are what
// its person, or the operator of an auditor, decided.
type Verifier struct {
	// ServerName is the name of the server as it was configured.
	ServerName string
	// LogKey is a key that the log is known to have, or had; nil to believe the
	// first answer.
	LogKey ed25519.PublicKey
	// Policy is asked of answers to queries with Cosigned.
	Policy WitnessPolicy
	// Freshness bounds how far the time of a HEAD may be from now, in both
	// directions; 0 for any.
	Freshness time.Duration
}

// VerifiedHead is a HEAD that is the last leaf of a signed tree which contains
// everything that was known before.
type VerifiedHead struct {
	Checkpoint
	Head Head
	// Config is the CONFIG that the HEAD names.
	Config Config
	// Note is the signed note as it was received.
	Note []byte
	// Cosignatures are those of the policy's witnesses.
	Cosignatures []Cosignature
	// Cosigned says that the policy, if there is one, is met.
	Cosigned bool
}

// Head checks a head by itself and, if it holds, stores it in state; asked is the
// question to which p is the reply. nowMS is the time, Unix milliseconds. Errors
// are those of Verify.
func (v *Verifier) Head(state *State, asked *Question, p *pb.HeadProof, nowMS uint64) (*VerifiedHead, error) {
	before := *state
	head, next, err := v.head(state, asked, p, nowMS)
	if next != nil {
		*state = *next
	}
	return head, v.accuse(before, asked, &pb.KeyProof{Head: p}, nowMS, err)
}

// headCheck is one head on its way through the checks.
type headCheck struct {
	v      *Verifier
	asked  *Question
	known  *knownState
	p      *pb.HeadProof
	shown  *shownHead
	chain  []chainConfig
	config *chainConfig // the one that the HEAD names
}

// head checks p and returns the state to store. A head that holds but is stale or
// lacks cosignatures gives both a state and an error.
func (v *Verifier) head(state *State, asked *Question, p *pb.HeadProof, nowMS uint64) (*VerifiedHead, *State, error) {
	known, err := asked.State.read()
	if err != nil {
		return nil, nil, err
	}
	c := &headCheck{v: v, asked: asked, known: known, p: p}
	for _, check := range []func() error{c.read, c.readConfigs, c.open, c.included, c.generation, c.consistent} {
		if err := check(); err != nil {
			return nil, nil, err
		}
	}
	head := &VerifiedHead{
		Checkpoint: c.shown.Checkpoint, Head: c.shown.head, Config: c.config.Config,
		Note: p.GetNote(), Cosignatures: v.Policy.Cosignatures(p.GetNote()),
	}
	head.Cosigned = len(head.Cosignatures) >= v.Policy.k
	next, err := c.store(state, head.Cosigned)
	if err != nil {
		return nil, nil, err
	}
	switch err := v.fresh(head.Head.TimeMS, nowMS); {
	case err != nil:
		return nil, next, err
	case asked.Query.Cosigned && !head.Cosigned:
		return nil, next, fmt.Errorf("%w: %d of the %d wanted have signed", ErrPolicy, len(head.Cosignatures), v.Policy.k)
	}
	return head, next, nil
}

func (v *Verifier) fresh(headMS, nowMS uint64) error {
	window := uint64(v.Freshness.Milliseconds())
	switch {
	case window == 0:
		return nil
	case headMS+window < nowMS:
		return fmt.Errorf("%w: the newest HEAD is %d s old", ErrStale, (nowMS-headMS)/1000)
	case nowMS+window < headMS:
		return fmt.Errorf("%w: the newest HEAD is %d s ahead of the clock", ErrStale, (headMS-nowMS)/1000)
	}
	return nil
}

// read parses note and HEAD, which nobody has vouched for yet.
func (c *headCheck) read() error {
	checkpoint, err := peekCheckpoint(c.p.GetNote())
	if err != nil {
		return err
	}
	if name, _, err := ParseOrigin(checkpoint.Origin); err != nil || name != c.v.ServerName {
		return fmt.Errorf("%w: it is of %s, not of %s", ErrNote, checkpoint.Origin, c.v.ServerName)
	}
	leaf, err := ParseLeaf(c.p.GetHeadLeaf())
	if err != nil {
		return evidence(StepHead, "the last leaf: %w", err)
	}
	if leaf.Class != ClassHead {
		return evidence(StepHead, "a checkpoint was signed at %d leaves, of which the last is %v", checkpoint.Size, leaf.Class)
	}
	c.shown = &shownHead{checkpoint, leaf.Head, c.p.GetHeadLeaf()}
	return nil
}

// readConfigs links the CONFIGs shown to those known.
func (c *headCheck) readConfigs() error {
	c.chain = slices.Clone(c.known.configs)
	known := len(c.chain)
	if c.known.newest == nil {
		c.chain = nil
	}
	for _, shown := range c.p.GetConfigs() {
		leaf, err := ParseLeaf(shown.GetLeaf())
		if err != nil {
			return evidence(StepConfig, "index %d: %w", shown.GetIndex(), err)
		}
		if leaf.Class != ClassConfig {
			return evidence(StepConfig, "index %d holds no CONFIG but %v", shown.GetIndex(), leaf.Class)
		}
		next := chainConfig{shown.GetIndex(), leaf.Config, KnownConfig{shown.GetIndex(), shown.GetLeaf(), c.p.GetNote(), shown.GetPath()}}
		switch n := len(c.chain); {
		case next.FormatVersion > FormatVersion:
			return fmt.Errorf("%w: %d", ErrFormat, next.FormatVersion)
		case n == 0 && (next.index != 0 || next.Previous != nil):
			return evidence(StepConfig, "the chain begins at index %d", next.index)
		case n == 0 && known > 0 && !bytes.Equal(shown.GetLeaf(), c.known.configs[0].known.Leaf):
			return evidence(StepConfig, "the CONFIG at index 0 is another than the known one")
		case n > 0 && next.index <= c.chain[n-1].index:
			return evidence(StepConfig, "a CONFIG at index %d after one at %d", next.index, c.chain[n-1].index)
		case n > 0:
			if err := next.VerifyLink(c.chain[n-1].Config, c.chain[n-1].index); err != nil {
				return evidence(StepConfig, "at index %d: %w", next.index, err)
			}
		}
		c.chain = append(c.chain, next)
	}
	if c.config = configAt(c.chain, c.shown.Size); c.config == nil || c.config.index != c.shown.head.Config {
		return evidence(StepConfig, "the HEAD names the CONFIG at index %d, which is not the newest of those shown", c.shown.head.Config)
	}
	if c.config.FormatVersion < FormatVersion {
		return evidence(StepHead, "a HEAD in a log of format %d", c.config.FormatVersion)
	}
	if c.v.LogKey != nil && !slices.ContainsFunc(c.chain, func(k chainConfig) bool { return c.v.LogKey.Equal(k.LogKey) }) {
		return fmt.Errorf("%w: none of %d CONFIGs names the key that was given for %s", ErrLogKey, len(c.chain), c.v.ServerName)
	}
	return nil
}

// open checks the log's signature.
func (c *headCheck) open() error {
	_, err := OpenCheckpoint(c.p.GetNote(), c.config.Origin, c.config.LogKey)
	return err
}

// included checks that the leaves shown are in the signed tree, and what a HEAD
// says about its own place.
func (c *headCheck) included() error {
	size, head := c.shown.Size, c.shown.head
	if size == 0 {
		return evidence(StepHead, "a checkpoint of an empty log")
	}
	if err := includes(c.shown.Checkpoint, size-1, c.p.GetHeadLeaf(), c.p.GetHeadPath()); err != nil {
		return evidence(StepHead, "it is not the last of %d leaves: %w", size, err)
	}
	for _, shown := range c.p.GetConfigs() {
		if err := includes(c.shown.Checkpoint, shown.GetIndex(), shown.GetLeaf(), shown.GetPath()); err != nil {
			return evidence(StepConfig, "the CONFIG at index %d is not in the tree: %w", shown.GetIndex(), err)
		}
	}
	// Index 0 is a CONFIG; what it counts must have room before it.
	room := size - 2
	if size < 2 || head.Epoch > room || head.KTCount > room-head.Epoch || head.PrevHead > size-2 {
		return evidence(StepHead, "epoch %d, %d KT leaves and prev_head %d do not fit into %d leaves", head.Epoch, head.KTCount, head.PrevHead, size)
	}
	return nil
}

func includes(c Checkpoint, index uint64, leaf []byte, path [][]byte) error {
	hash := LeafHash(leaf)
	return proof.VerifyInclusion(rfc6962.DefaultHasher, index, c.Size, hash[:], path, c.Root[:])
}

// generation lets the person decide about a log that was begun anew.
func (c *headCheck) generation() error {
	_, shown, err := ParseOrigin(c.config.Origin)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNote, err)
	}
	known := c.asked.State.Consented
	if c.known.newest != nil {
		if _, known, err = ParseOrigin(c.known.configs[len(c.known.configs)-1].Origin); err != nil {
			return fmt.Errorf("%w: %w", ErrState, err)
		}
	}
	switch {
	case known != 0 && shown > known:
		return &NewGenerationError{Known: known, Shown: shown}
	case c.known.newest == nil && shown < known:
		return fmt.Errorf("%w: generation %d after %d", ErrOlder, shown, known)
	}
	return nil
}

// consistent ties the head shown to the newest one known when it was asked for,
// whichever is older.
func (c *headCheck) consistent() error {
	p, known := c.p, c.known.newest
	surplus := len(p.GetLogConsistency())+len(p.GetKnownHeadPath())+len(p.GetHeadsConsistency()) > 0
	switch {
	case known == nil:
		if surplus {
			return fmt.Errorf("%w: it is consistent with something at first contact", ErrMalformed)
		}
		return nil
	case known.Size == c.shown.Size && known.Root != c.shown.Root:
		return evidence(StepConsistency, "two roots of %d leaves were signed: %x and %x", known.Size, known.Root, c.shown.Root)
	case known.Size == c.shown.Size:
		if surplus || known.head != c.shown.head {
			return fmt.Errorf("%w: it is consistent with itself", ErrMalformed)
		}
		return nil
	case known.Size < c.shown.Size:
		return follows(known, c.shown, p)
	}
	if err := follows(c.shown, known, p); err != nil {
		return err
	}
	if !c.asked.Query.Cosigned || c.known.cosigned != nil && c.shown.Size < c.known.cosigned.Size {
		return fmt.Errorf("%w: %d leaves, %d are known", ErrOlder, c.shown.Size, known.Size)
	}
	return nil
}

// follows checks that the log and the tree of heads of newer contain those of
// older, which is smaller.
func follows(older, newer *shownHead, p *pb.HeadProof) error {
	hasher := rfc6962.DefaultHasher
	if err := proof.VerifyConsistency(hasher, older.Size, newer.Size, p.GetLogConsistency(), older.Root[:], newer.Root[:]); err != nil {
		return evidence(StepConsistency, "from %d to %d leaves: %w", older.Size, newer.Size, err)
	}
	a, b := older.head, newer.head
	if !b.CanFollow(a, older.Size-1, newer.Size-1) {
		return evidence(StepHead, "the HEAD of %d leaves contradicts that of %d: %s, after %s", newer.Size, older.Size, b.summary(), a.summary())
	}
	leaf := LeafHash(older.leaf)
	if err := proof.VerifyInclusion(hasher, a.Epoch, b.Epoch, leaf[:], p.GetKnownHeadPath(), b.HeadsRoot[:]); err != nil {
		return evidence(StepHeads, "the HEAD of epoch %d is not under the heads_root of epoch %d: %w", a.Epoch, b.Epoch, err)
	}
	if err := proof.VerifyConsistency(hasher, a.Epoch, b.Epoch, p.GetHeadsConsistency(), a.HeadsRoot[:], b.HeadsRoot[:]); err != nil {
		return evidence(StepHeads, "heads_root from epoch %d to %d: %w", a.Epoch, b.Epoch, err)
	}
	return nil
}

// CanFollow reports whether h, at index, can stand in one log with an earlier HEAD, as
// far as the two alone tell.
func (h Head) CanFollow(earlier Head, earlierIndex, index uint64) bool {
	a, b := earlier, h
	switch {
	case b.Epoch <= a.Epoch, b.TimeMS < a.TimeMS, b.Config < a.Config, b.KTCount < a.KTCount,
		b.PrevHead < earlierIndex, (b.Epoch == a.Epoch+1) != (b.PrevHead == earlierIndex),
		b.Config != a.Config && b.Config <= earlierIndex,
		b.KTCount == a.KTCount && b.MapRoot != a.MapRoot,
		b.KTCount-a.KTCount+b.Epoch-a.Epoch > index-earlierIndex:
		return false
	}
	return true
}

func (h Head) summary() string {
	return fmt.Sprintf("epoch %d, time_ms %d, prev_head %d, config %d, kt_count %d, map_root %x",
		h.Epoch, h.TimeMS, h.PrevHead, h.Config, h.KTCount, h.MapRoot)
}

// store makes the next state. What others stored since the question was asked is
// only comparable with a head of the same size.
func (c *headCheck) store(state *State, cosigned bool) (*State, error) {
	now, err := state.read()
	if err != nil {
		return nil, err
	}
	next := *state
	head := &KnownHead{Note: c.p.GetNote(), HeadLeaf: c.p.GetHeadLeaf(), HeadPath: c.p.GetHeadPath()}
	switch {
	case state.Consented != c.asked.State.Consented:
		return nil, fmt.Errorf("%w: the person consented to a new generation meanwhile", ErrOlder)
	case now.newest == nil || c.known.newest != nil && now.newest.Checkpoint == c.known.newest.Checkpoint:
		if c.known.newest == nil || c.known.newest.Size < c.shown.Size {
			next.Newest = head
			next.Configs = nil
			for _, config := range c.chain {
				next.Configs = append(next.Configs, config.known)
			}
		}
	case now.newest.Size != c.shown.Size:
		return nil, fmt.Errorf("%w: a head of %d leaves was stored meanwhile, this one has %d", ErrOlder, now.newest.Size, c.shown.Size)
	case now.newest.Root != c.shown.Root:
		return nil, evidence(StepConsistency, "two roots of %d leaves were signed: %x and %x", c.shown.Size, now.newest.Root, c.shown.Root)
	}
	if cosigned && !c.v.Policy.IsZero() && (now.cosigned == nil || now.cosigned.Size < c.shown.Size) {
		next.Cosigned = head
	}
	return &next, nil
}
