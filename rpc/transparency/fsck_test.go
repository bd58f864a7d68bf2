package transparency

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"quicprochat/kt"
)

// fsckLeaves is the size of the log that Tessera's fsck walks: levels 0 to 2 of
// tiles, partial ones on every level.
const fsckLeaves = 50_123

// buildFsck builds Tessera's fsck: a program that nobody here wrote and that
// checks a log which is served as C2SP tlog-tiles says.
func buildFsck(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "fsck")
	command := exec.Command("go", "build", "-ldflags=-s -w", "-modfile=tools.mod", "-o", program, "github.com/transparency-dev/tessera/cmd/fsck")
	command.Dir = "../.."
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("building Tessera's fsck: %v\n%s", err, out)
	}
	return program
}

// fsck runs the program on a URL. It always exits with 0 and tells its verdict
// on standard error.
func fsck(t *testing.T, program, url, vkey string) (accepted bool, said string) {
	t.Helper()
	keyFile := filepath.Join(t.TempDir(), "log.vkey")
	if err := os.WriteFile(keyFile, []byte(vkey), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := contextWithTimeout(5 * time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "-ui=false", "-N=8", "-storage_url="+url, "-public_key="+keyFile).CombinedOutput()
	if err != nil {
		t.Fatalf("fsck: %v\n%s", err, out)
	}
	said = string(out)
	accepted = strings.Contains(said, "Successfully fsck'd")
	if accepted == strings.Contains(said, "fsck failed") {
		t.Fatalf("fsck came to no verdict:\n%s", said)
	}
	return accepted, said
}

// TestTesserasFsck: what the server shows of a real log is what Tessera's fsck
// expects, one flipped byte of it is not, and what is erased of the log is not
// missed.
func TestTesserasFsck(t *testing.T) {
	program := buildFsck(t)
	l := newTestLog(t)
	l.grow(fsckLeaves)
	root := l.log.Root()
	vkey := l.verifierKey()
	handler := NewHandler(l.source())
	url := serve(t, handler)

	accept := func(when string) {
		t.Helper()
		accepted, said := fsck(t, program, url, vkey)
		if !accepted || !strings.Contains(said, fmt.Sprintf("size %d and root", fsckLeaves)) || !strings.Contains(said, fmt.Sprintf("(%x)", root)) {
			t.Fatalf("%s the log was not accepted:\n%s", when, said)
		}
	}
	accept("as it was written,")

	for _, flip := range []struct {
		path string
		at   int // byte, from the end if negative
	}{
		{"tile/entries/000", 700},           // within a leaf
		{"tile/entries/123", 0},             // the length of an entry
		{"tile/entries/195.p/203", -1},      // the last byte of the newest leaf
		{"tile/0/077", 4000},                // a leaf hash
		{"tile/0/195.p/203", 3},             // a leaf hash in a partial tile
		{"tile/1/000.p/195", 31},            // a hash over 256 leaves
		{"checkpoint", len(testOrigin) + 1}, // the size
	} {
		spoiled := serve(t, flipByte(t, handler, flip.path, flip.at))
		if accepted, said := fsck(t, program, spoiled, vkey); accepted {
			t.Errorf("one flipped byte of %s was accepted:\n%s", flip.path, said)
		}
	}

	before := l.everything(handler)
	proofs := l.proofs()
	l.erase()
	if !bytes.Equal(before, l.everything(handler)) {
		t.Error("erasing changed what strangers are shown")
	}
	if !bytes.Equal(proofs, l.proofs()) {
		t.Error("erasing changed an old proof")
	}
	accept("after payloads were released and bodies erased,")
}

// flipByte serves what h serves but for one flipped bit of one resource, which
// must be asked for.
func flipByte(t *testing.T, h http.Handler, path string, at int) http.Handler {
	asked := false
	t.Cleanup(func() {
		if !asked {
			t.Errorf("%s was never asked for", path)
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/"+path {
			h.ServeHTTP(w, r)
			return
		}
		recorded := httptest.NewRecorder()
		h.ServeHTTP(recorded, r)
		body := recorded.Body.Bytes()
		if at < 0 {
			at += len(body)
		}
		body[at] ^= 1
		asked = true
		_, _ = w.Write(body)
	})
}

// everything is the concatenation of all that the handler shows of the log.
func (l *testLog) everything(h http.Handler) []byte {
	l.t.Helper()
	size := l.log.Size()
	paths := slices.Collect(kt.Tiles(kt.EntryBundle, 0, 0, size))
	for level := 0; size>>(8*level) > 0; level++ {
		paths = slices.AppendSeq(paths, kt.Tiles(kt.HashTile, level, 0, size))
	}
	var all bytes.Buffer
	for _, path := range append([]string{"checkpoint"}, names(paths)...) {
		recorded := httptest.NewRecorder()
		h.ServeHTTP(recorded, httptest.NewRequest(http.MethodGet, "/"+path, nil))
		if recorded.Code != http.StatusOK {
			l.t.Fatalf("%s: %d", path, recorded.Code)
		}
		all.Write(recorded.Body.Bytes())
	}
	return all.Bytes()
}

func names(paths []kt.TilePath) []string {
	all := make([]string, len(paths))
	for i, p := range paths {
		all[i] = p.String()
	}
	return all
}

// proofs makes inclusion and consistency proofs all over the log, checks them
// with an implementation that nobody here wrote, and returns their hashes.
func (l *testLog) proofs() []byte {
	l.t.Helper()
	size := l.log.Size()
	var all []byte
	check := func(path [][]byte, err error) [][]byte {
		l.t.Helper()
		if err != nil {
			l.t.Fatal(err)
		}
		for _, h := range path {
			all = append(all, h...)
		}
		return path
	}
	root := l.log.Root()
	for index := uint64(0); index < size; index += 997 {
		leaf, err := l.log.LeafHash(index)
		if err != nil {
			l.t.Fatal(err)
		}
		path := check(l.log.InclusionProof(index, size))
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, size, leaf[:], path, root[:]); err != nil {
			l.t.Errorf("record %d: %v", index, err)
		}
		old, err := l.log.RootAt(index)
		if err != nil {
			l.t.Fatal(err)
		}
		path = check(l.log.ConsistencyProof(index, size))
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, index, size, path, old[:], root[:]); index > 0 && err != nil {
			l.t.Errorf("size %d: %v", index, err)
		}
	}
	return all
}

// erase blanks the bodies of nearly all records, releases all payloads and
// compacts the store.
func (l *testLog) erase() {
	l.t.Helper()
	var indexes []uint64
	g := l.log.NewGroup()
	for i := uint64(1); i < l.log.Size(); i++ {
		if i%11 != 0 {
			indexes = append(indexes, i)
		}
		if i%10 == 0 {
			g.ReleasePayload(payloadKey(i))
		}
	}
	p, err := g.Commit()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		l.t.Fatal(err)
	}
	n, err := l.log.Erase(l.t.Context(), indexes)
	if err != nil || n != len(indexes) {
		l.t.Fatalf("erased %d of %d bodies: %v", n, len(indexes), err)
	}
	if err := l.log.Compact(l.t.Context(), 64<<20); err != nil {
		l.t.Fatal(err)
	}
	if r, err := l.log.Record(indexes[1000]); err != nil || !r.Erased {
		l.t.Fatalf("record %d is not erased: %v", indexes[1000], err)
	}
	if _, there, err := l.log.Payload(payloadKey(1000)); err != nil || there {
		l.t.Fatalf("the payload of record 1000 is there (%v)", err)
	}
}
