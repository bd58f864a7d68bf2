package server_test

import (
	"strings"
	"testing"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// metric sums a metric's values over all labels that match.
func (w *world) metric(name string, labels map[string]string) float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
	metrics:
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if want, ok := labels[l.GetName()]; ok && want != l.GetValue() {
					continue metrics
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

func TestMetrics(t *testing.T) {
	w := boot(t, nil)
	alice, c := w.join("alice")
	for range 3 {
		must[*pb.EnqueueResponse](c, alice.enqueue(alice, make([]byte, 100)))
	}
	c.refused(&pb.EnqueueRequest{}, pb.Status_Unauthorized, pb.Reason_TOKEN_MISSING)
	if r, err := c.raw(rpc.AppendRequest(nil, 999, 1, nil)); err != nil || r.status != pb.Status_UnknownMethod {
		t.Errorf("unknown method: %v, %v", r, err)
	}
	for _, test := range []struct {
		name   string
		labels map[string]string
		want   float64
	}{
		{"qpc_requests_total", map[string]string{"method": "Enqueue", "status": "Ok"}, 3},
		{"qpc_requests_total", map[string]string{"method": "Enqueue", "status": "Unauthorized"}, 1},
		{"qpc_requests_total", map[string]string{"method": "unknown", "status": "UnknownMethod"}, 1},
		{"qpc_connections", nil, 1},
		{"qpc_engine_payload_bytes_total", nil, 300},
	} {
		if got := w.metric(test.name, test.labels); got != test.want {
			t.Errorf("%s %v is %v, want %v", test.name, test.labels, got, test.want)
		}
	}
	// A HEAD may come at any time, and nothing goes.
	before := float64(w.node.Log().Size())
	if got := w.metric("qpc_log_size", nil); got < before || got > float64(w.node.Log().Size()) {
		t.Errorf("qpc_log_size is %v, not from %v to %d", got, before, w.node.Log().Size())
	}
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if text := family.String(); strings.Contains(text, "alice") || strings.Contains(text, "127.0.0.1") {
			t.Errorf("a name or an address in %s", text)
		}
	}
	// The names are free again when the node has ended.
	w.stop()
	w.start(nil)
}
