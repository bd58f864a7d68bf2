package server

import (
	"slices"
	"strings"
	"testing"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

func TestBindingsFitTheTable(t *testing.T) {
	handlers, err := bindAll(rpc.Methods(), bindings)
	if err != nil {
		t.Fatal(err)
	}
	if len(handlers) != len(rpc.Methods()) {
		t.Errorf("%d handlers for %d methods", len(handlers), len(rpc.Methods()))
	}
	// What the guard and the rates rely on.
	for _, m := range rpc.Methods() {
		switch m.Rule.Rate {
		case pb.Rate_SEND, pb.Rate_LOGIN, pb.Rate_LOGIN_FINISH:
		default:
			if rates[m.Rule.Rate].burst == 0 {
				t.Errorf("%s: no budget for class %v", m, m.Rule.Rate)
			}
		}
	}
}

func TestFaultyBindings(t *testing.T) {
	enqueue := slices.IndexFunc(bindings, func(b binding) bool { return strings.HasSuffix(string(b.request), ".EnqueueRequest") })
	missing := slices.Delete(slices.Clone(bindings), enqueue, enqueue+1)
	doubled := append(slices.Clone(bindings), bindings[enqueue])
	mistyped := append(slices.Clone(missing), mutation[*pb.AckResponse](commands.NewEnqueue))
	stray := append(slices.Clone(bindings), query(func(*commands.View, *pb.KeySet) (*pb.KeySet, error) { return nil, nil }))
	for name, test := range map[string]struct {
		bindings []binding
		word     string
	}{
		"missing":  {missing, "Enqueue (200): there is none"},
		"doubled":  {doubled, "Enqueue (200): there are two"},
		"mistyped": {mistyped, "answers with qpc.v1.AckResponse instead of qpc.v1.EnqueueResponse"},
		"stray":    {stray, "no method has this request"},
	} {
		if _, err := bindAll(rpc.Methods(), test.bindings); err == nil || !strings.Contains(err.Error(), test.word) {
			t.Errorf("%s: got %v, want a word of %q", name, err, test.word)
		}
	}
}
