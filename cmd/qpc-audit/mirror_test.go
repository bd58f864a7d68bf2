package main

import (
	"bytes"
	"crypto/ed25519"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"quicprochat/kt"
)

// mirror runs the command on a fake log.
func (l *fakeLog) mirror(url, dir string) (code int, said string) {
	code, stdout, stderr := call(l.t, "mirror", "--url", url, "--vkey", l.vkey(), dir)
	return code, stdout + stderr
}

// sameAs compares every resource of the log with the copy's file.
func (l *fakeLog) sameAs(dir string) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	size := uint64(len(l.leaves))
	paths := slices.AppendSeq(slices.Collect(kt.Tiles(kt.EntryBundle, 0, 0, size)), kt.Tiles(kt.DeltaBundle, 0, 0, uint64(len(l.heads))))
	for level := 0; size>>(8*level) > 0; level++ {
		paths = slices.AppendSeq(paths, kt.Tiles(kt.HashTile, level, 0, size))
	}
	for _, p := range paths {
		got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(p.String())))
		if err != nil || !bytes.Equal(got, l.resource(p)) {
			l.t.Errorf("%s: the copy has %d bytes, %v", p, len(got), err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "checkpoint")); err != nil || !bytes.Equal(got, l.signed) {
		l.t.Errorf("checkpoint: %q, %v", got, err)
	}
}

func TestMirror(t *testing.T) {
	l := newFakeLog(t)
	url, dir := l.serve(), filepath.Join(t.TempDir(), "copy")
	for _, events := range []int{3, 200, 300, 66_000} {
		if events > 1000 { // levels 0 to 2
			for range events {
				l.add(opaqueLeaf(l.size()))
			}
			l.seal()
			l.publish()
		} else {
			l.grow(events)
		}
		if code, said := l.mirror(url, dir); code != exitSatisfied || !strings.Contains(said, "the root is the signed one") {
			t.Fatalf("%d: %s", code, said)
		}
		l.sameAs(dir)
	}
	l.asked()
	if code, said := l.mirror(url, dir); code != exitSatisfied || !strings.Contains(said, " 0 bundles fetched") {
		t.Errorf("%d: %s", code, said)
	}
	if n := l.asked(); n != 1 {
		t.Errorf("%d requests for a copy that is complete", n)
	}
	if _, err := os.Stat(filepath.Join(dir, "tile", "entries", "000.p")); err == nil {
		t.Error("a partial bundle stayed beside the full one")
	}
	// A static web server shows the copy, and an auditor is satisfied with it.
	copied := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer copied.Close()
	for _, mode := range [][]string{nil, {"--kt-only"}} {
		code, stdout, stderr := call(t, append([]string{"follow", "--once", "--url", copied.URL, "--state", filepath.Join(t.TempDir(), "s"), "--vkey", l.vkey()}, mode...)...)
		if code != exitSatisfied {
			t.Errorf("an audit of the copy %v: %d\n%s%s", mode, code, stdout, stderr)
		}
	}
}

// TestMirrorResumes: an interrupted run leaves no checkpoint that the copy does
// not have, and the next one fetches only what is missing.
func TestMirrorResumes(t *testing.T) {
	l := newFakeLog(t)
	l.grow(3000)
	url, dir := l.serve(), filepath.Join(t.TempDir(), "copy")
	l.tell(func(path string, body []byte) []byte {
		if path == "tile/entries/009" {
			return nil
		}
		return body
	})
	if code, said := l.mirror(url, dir); code != exitEvidence || !strings.Contains(said, "does not serve") {
		t.Errorf("%d: %s", code, said)
	}
	if _, err := os.Stat(filepath.Join(dir, "checkpoint")); err == nil {
		t.Error("an incomplete copy has a checkpoint")
	}
	l.tell(nil)
	l.asked()
	if code, said := l.mirror(url, dir); code != exitSatisfied || strings.Contains(said, " 0 bundles fetched") {
		t.Errorf("%d: %s", code, said)
	}
	if l.askedFor("tile/entries/000") > 0 {
		t.Error("a bundle was fetched twice")
	}
	l.sameAs(dir)
}

func TestMirrorFindsLies(t *testing.T) {
	l := newFakeLog(t)
	l.grow(600)
	url := l.serve()
	for _, path := range []string{"tile/entries/001", "checkpoint", "kt/delta/000"} {
		l.tell(func(asked string, body []byte) []byte {
			if strings.HasPrefix(asked, path) {
				body[len(fakeOrigin)+2] ^= 1
			}
			return body
		})
		if code, said := l.mirror(url, filepath.Join(t.TempDir(), "copy")); code != exitEvidence && code != exitUnsettled {
			t.Errorf("%s: %d: %s", path, code, said)
		}
	}
	l.tell(nil)
	dir := filepath.Join(t.TempDir(), "copy")
	if code, said := l.mirror(url, dir); code != exitSatisfied {
		t.Fatalf("%d: %s", code, said)
	}
	// A copy that rotted is found, too.
	name := filepath.Join(dir, "tile", "entries", "000")
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	content[300] ^= 1
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	l.grow(3)
	if code, said := l.mirror(url, dir); code != exitLocal || !strings.Contains(said, "is damaged") {
		t.Errorf("%d: %s", code, said)
	}
	// An older checkpoint does not replace a newer one.
	older := l.signed
	l.grow(10)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if code, said := l.mirror(url, dir); code != exitSatisfied {
		t.Fatalf("%d: %s", code, said)
	}
	l.show(older)
	if code, said := l.mirror(url, dir); code != exitUnsettled {
		t.Errorf("%d: %s", code, said)
	}
}

// TestMirrorKeepsWhatItHas: neither a server that lies, nor a power cut, nor another
// log harms a copy, and what is evidence is kept.
func TestMirrorKeepsWhatItHas(t *testing.T) {
	l := newFakeLog(t)
	l.grow(300)
	url, dir := l.serve(), filepath.Join(t.TempDir(), "copy")
	if code, said := l.mirror(url, dir); code != exitSatisfied {
		t.Fatalf("%d: %s", code, said)
	}
	before := l.signed

	// Another history, which goes on beyond the copy.
	other := newFakeLog(t)
	other.now++
	other.grow(600)
	code, said := l.mirror(other.serve(), dir)
	if code != exitEvidence || !strings.Contains(said, "(consistency)") || !strings.Contains(said, "saved in") {
		t.Errorf("two histories: %d: %s", code, said)
	}
	files, err := filepath.Glob(filepath.Join(dir, "evidence-*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("evidence: %v, %v", files, err)
	}
	code, stdout, stderr := call(t, "verify", "--vkey", l.vkey(), files[0])
	if code != exitEvidence || !strings.Contains(stdout, "PROVED: the log signed two histories") {
		t.Errorf("verify: %d\n%s%s", code, stdout, stderr)
	}
	l.sameAs(dir)

	// A note that anybody could have written accuses nobody, and changes nothing.
	forger := newFakeLog(t)
	forger.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
	forger.grow(600)
	forgery := forger.serve()
	for _, args := range [][]string{{"--vkey", l.vkey()}, nil} {
		code, stdout, stderr = call(t, append([]string{"mirror", "--url", forgery, dir}, args...)...)
		if code != exitUnsettled || strings.Contains(stderr, "EVIDENCE") {
			t.Errorf("forged: %d\n%s%s", code, stdout, stderr)
		}
	}
	// Nor does an empty log.
	forger.show(forger.sign(fakeOrigin, 0, kt.EmptyHeadsRoot))
	for _, folder := range []string{dir, filepath.Join(t.TempDir(), "new")} {
		if code, stdout, stderr = call(t, "mirror", "--url", forgery, folder); code != exitUnsettled {
			t.Errorf("empty: %d\n%s%s", code, stdout, stderr)
		}
	}
	// The log of somebody else is another one.
	forger.show(forger.sign("other.example.org/1", 900, kt.Hash{1}))
	if code, stdout, stderr = call(t, "mirror", "--url", forgery, dir); code != exitUsage || !strings.Contains(stderr, "is a copy of the log of chat.example.org") {
		t.Errorf("another log: %d\n%s%s", code, stdout, stderr)
	}
	l.sameAs(dir)
	if !bytes.Equal(l.signed, before) {
		t.Fatal("the log has gone on")
	}

	// A file that a power cut left without its end comes again.
	l.grow(10)
	for _, path := range []string{"tile/entries/000", "kt/delta/000.p/" + strconv.Itoa(len(l.heads))} {
		if code, said := l.mirror(url, dir); code != exitSatisfied {
			t.Fatalf("%d: %s", code, said)
		}
		if err := os.Truncate(filepath.Join(dir, filepath.FromSlash(path)), 0); err != nil {
			t.Fatal(err)
		}
		if code, said := l.mirror(url, dir); code != exitSatisfied {
			t.Errorf("%s: %d: %s", path, code, said)
		}
		l.sameAs(dir)
	}

	// Two at a time do not write into one folder.
	unlock, err := (&mirror{dir: dir}).lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if code, said := l.mirror(url, dir); code != exitLocal || !strings.Contains(said, "another qpc-audit is using it") {
		t.Errorf("%d: %s", code, said)
	}
}
