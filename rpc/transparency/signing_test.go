package transparency

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"quicprochat/kt"
)

// These make notes and keys after the specifications, without the code that the
// server and its verifiers use.

// checkpointText is the text of a C2SP tlog-checkpoint.
func checkpointText(origin string, size uint64, root kt.Hash) string {
	return fmt.Sprintf("%s\n%d\n%s\n", origin, size, base64.StdEncoding.EncodeToString(root[:]))
}

// signerKey is the log's key as golang.org/x/mod/sumdb/note reads it.
func (l *testLog) signerKey() string {
	public := append([]byte{1}, l.key.Public().(ed25519.PublicKey)...)
	sum := sha256.Sum256(append([]byte(testOrigin+"\n"), public...))
	return fmt.Sprintf("PRIVATE+KEY+%s+%x+%s", testOrigin, sum[:4],
		base64.StdEncoding.EncodeToString(append([]byte{1}, l.key.Seed()...)))
}

// verifierKey is the line of log.vkey.
func (l *testLog) verifierKey() string {
	line, err := note.NewEd25519VerifierKey(testOrigin, l.key.Public().(ed25519.PublicKey))
	if err != nil {
		l.t.Fatal(err)
	}
	return line
}

func contextWithTimeout(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// testLogger logs to the test.
func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, nil))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(line []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(line))
	return len(line), nil
}
