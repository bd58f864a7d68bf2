package kt

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/transparency-dev/merkle/compact"
)

// The state of a replayer, so that a long run can stop and go on:
//
//	"qpc-replay-v1\n" │ u8 with the log's tree? │ tree of leaves │ tree of heads │
//	leaf of CONFIG │ leaf of HEAD │ u64 n │ n × (L[32] │ C[32]) │ SHA-256 of all before
//
//	tree = u64 size │ one hash for each bit set in size, the largest subtree first
//	leaf = u64 index │ u16 length, 0 for none │ leaf
//
// It is a private file of its owner: the checksum finds damage, not malice.
const replayMagic = "qpc-replay-v1\n"

// ErrReplayState is in the chain of errors about a damaged state of a replayer.
var ErrReplayState = errors.New("damaged replay state")

// WriteTo writes the state, from which ReadReplayer goes on.
func (r *Replayer) WriteTo(w io.Writer) (int64, error) { return r.write(w, r.tree) }

// ReadReplayer reads what WriteTo of a Replayer wrote. Errors wrap ErrReplayState,
// or are those of in.
func ReadReplayer(in io.Reader) (*Replayer, error) {
	state, tree, err := readReplay(in, true)
	if err != nil {
		return nil, err
	}
	return &Replayer{replay: *state, tree: tree}, nil
}

// stateWriter counts, hashes and remembers the first error.
type stateWriter struct {
	out *bufio.Writer
	sum hash.Hash
	n   int64
	err error
}

func (w *stateWriter) bytes(b []byte) {
	if w.err == nil {
		_, w.err = w.out.Write(b)
		w.sum.Write(b)
		w.n += int64(len(b))
	}
}

func (w *stateWriter) uint64(v uint64) { w.bytes(binary.BigEndian.AppendUint64(nil, v)) }

func (w *stateWriter) tree(r *compact.Range) {
	w.uint64(r.End())
	for _, h := range r.Hashes() {
		w.bytes(h)
	}
}

func (w *stateWriter) leaf(index uint64, leaf []byte) {
	w.uint64(index)
	w.bytes(binary.BigEndian.AppendUint16(nil, uint16(len(leaf))))
	w.bytes(leaf)
}

// write writes the state; tree is nil for a replayer without the log's tree.
func (r *replay) write(out io.Writer, tree *compact.Range) (int64, error) {
	w := &stateWriter{out: bufio.NewWriter(out), sum: sha256.New()}
	w.bytes([]byte(replayMagic))
	if tree == nil {
		w.bytes([]byte{0})
	} else {
		w.bytes([]byte{1})
		w.tree(tree)
	}
	w.tree(r.heads)
	w.leaf(r.configIndex, r.configLeaf)
	w.leaf(r.headIndex, r.headLeaf)
	w.uint64(r.m.Len())
	for leaf := range r.m.Leaves {
		w.bytes(leaf.Label[:])
		w.bytes(leaf.Commitment[:])
	}
	w.bytes(w.sum.Sum(nil))
	if w.err == nil {
		w.err = w.out.Flush()
	}
	return w.n, w.err
}

// stateReader hashes what it reads and remembers the first error.
type stateReader struct {
	in  *bufio.Reader
	sum hash.Hash
	err error
}

func (r *stateReader) bytes(n int) []byte {
	b := make([]byte, n)
	if r.err != nil {
		return b
	}
	if _, r.err = io.ReadFull(r.in, b); r.err == io.EOF || r.err == io.ErrUnexpectedEOF {
		r.err = fmt.Errorf("%w: it ends early", ErrReplayState)
	}
	r.sum.Write(b)
	return b
}

func (r *stateReader) uint64() uint64 { return binary.BigEndian.Uint64(r.bytes(8)) }

func (r *stateReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrReplayState, fmt.Sprintf(format, args...))
	}
}

func (r *stateReader) tree() *compact.Range {
	size := r.uint64()
	hashes := make([][]byte, compact.RangeSize(0, size))
	for i := range hashes {
		hashes[i] = r.bytes(sha256.Size)
	}
	tree, err := ranges.NewRange(0, size, hashes)
	if err != nil {
		r.fail("%v", err)
	}
	return tree
}

// leaf reads a leaf of one class, or none.
func (r *stateReader) leaf(class Class) (index uint64, leaf []byte, parsed Leaf) {
	index = r.uint64()
	n := binary.BigEndian.Uint16(r.bytes(2))
	if n == 0 {
		return index, nil, Leaf{}
	}
	leaf = r.bytes(int(n))
	parsed, err := ParseLeaf(leaf)
	if err != nil || parsed.Class != class {
		r.fail("a leaf of class %v: %v", class, err)
	}
	return index, leaf, parsed
}

func readReplay(in io.Reader, withTree bool) (*replay, *compact.Range, error) {
	r := &stateReader{in: bufio.NewReader(in), sum: sha256.New()}
	if !bytes.Equal(r.bytes(len(replayMagic)), []byte(replayMagic)) {
		r.fail("it does not start with %q", replayMagic)
	}
	var tree *compact.Range
	if has := r.bytes(1)[0] == 1; has != withTree {
		r.fail("it is that of another kind of replay")
	} else if has {
		tree = r.tree()
	}
	state := &replay{heads: r.tree()}
	var config, head Leaf
	state.configIndex, state.configLeaf, config = r.leaf(ClassConfig)
	state.headIndex, state.headLeaf, head = r.leaf(ClassHead)
	state.config, state.head = config.Config, head.Head
	for n := r.uint64(); n > 0 && r.err == nil; n-- {
		b := r.bytes(64)
		if err := state.m.Insert(Label(b), Hash(b[32:])); err != nil && r.err == nil {
			r.fail("%v", err)
		}
	}
	want := r.sum.Sum(nil)
	if got := r.bytes(sha256.Size); !bytes.Equal(got, want) {
		r.fail("its checksum is wrong")
	}
	if _, err := r.in.ReadByte(); err != io.EOF {
		r.fail("there is more after its end")
	}
	return state, tree, r.err
}
