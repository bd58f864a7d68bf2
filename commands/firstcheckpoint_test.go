package commands

import (
	"crypto/ed25519"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	pb "quicprochat/proto/qpcv1"
)

// TestFirstCheckpointIsWaitedFor: whoever asks while the first checkpoint since
// the start is being signed gets its answer, and is not told that signing has stopped.
func TestFirstCheckpointIsWaitedFor(t *testing.T) {
	gate := newGateFS(vfs.NewMem(), func(name string) bool { return strings.HasSuffix(name, "/"+guardFile) })
	b := &bed{t: t, fs: gate, vrf: createLog(t, gate, bedDir)}
	signing := Options{LogKey: ed25519.NewKeyFromSeed(make([]byte, 32))}
	b.open(signing) // makes the guard
	b.close()
	gate.set(true)
	b.open(signing)
	defer b.close()
	gate.waitHeld(1) // the guard's sync, before the signature
	first := &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Index{Index: 0}}
	type answer struct {
		resp *pb.AuditKeyTransparencyResponse
		err  error
	}
	asked := make(chan answer)
	go func() {
		resp, err := b.engine.Audit(t.Context(), Caller{}, first)
		asked <- answer{resp, err}
	}()
	select {
	case a := <-asked:
		t.Errorf("answered before anything was signed: %v, %v", a.resp, a.err)
		gate.set(false)
	default:
		gate.set(false)
		if a := <-asked; a.err != nil || len(a.resp.GetLeaf().GetLeaf()) == 0 {
			t.Errorf("%v, %v", a.resp, a.err)
		}
	}
}
