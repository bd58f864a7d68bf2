package server

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"quicprochat/commands"
	"quicprochat/log"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// unknownMethod is the label of requests whose method id is not in the table.
const unknownMethod = "unknown"

// metrics are the server's counters. Labels are names of methods and statuses
// only, never of people or addresses.
type metrics struct {
	requests           map[uint16]*[statuses]prometheus.Counter // by method; 0: unknown
	connections        prometheus.Gauge
	refusedConnections prometheus.Counter
	brokenStreams      prometheus.Counter
	collectors         []prometheus.Collector
}

// statuses is one more than the highest status.
const statuses = int(pb.Status_UnknownMethod) + 1

func newMetrics() *metrics {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "qpc_requests_total", Help: "Requests answered, by method and status.",
	}, []string{"method", "status"})
	m := &metrics{
		requests: make(map[uint16]*[statuses]prometheus.Counter),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "qpc_connections", Help: "QUIC connections that are open.",
		}),
		refusedConnections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "qpc_connections_refused_total", Help: "Connection attempts refused over a cap.",
		}),
		brokenStreams: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "qpc_streams_reset_total", Help: "Streams reset because they were too slow or too broken to answer.",
		}),
	}
	m.requests[0] = countersOf(requests, unknownMethod)
	for _, method := range rpc.Methods() {
		m.requests[method.ID] = countersOf(requests, method.Name)
	}
	m.collectors = []prometheus.Collector{requests, m.connections, m.refusedConnections, m.brokenStreams}
	return m
}

// countersOf looks the counters of a method up once: by label it costs a lock
// and a hash per request.
func countersOf(v *prometheus.CounterVec, method string) *[statuses]prometheus.Counter {
	var counters [statuses]prometheus.Counter
	for i := range counters {
		if name, known := pb.Status_name[int32(i)]; known {
			counters[i] = v.WithLabelValues(method, name)
		}
	}
	return &counters
}

func (m *metrics) count(method *rpc.Method, status pb.Status) {
	var id uint16
	if method != nil {
		id = method.ID
	}
	if c := m.requests[id][status]; c != nil {
		c.Inc()
	}
}

// engineCollectors tell what the log counts.
func engineCollectors(l *log.Log) []prometheus.Collector {
	counter := func(name, help string, read func(log.Counters) uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return float64(read(l.Counters())) })
	}
	return []prometheus.Collector{
		counter("qpc_engine_groups_total", "Groups committed: one synced batch of the log each.",
			func(c log.Counters) uint64 { return c.Batches }),
		counter("qpc_engine_events_total", "Events appended to the log.",
			func(c log.Counters) uint64 { return c.Records }),
		counter("qpc_engine_event_bytes_total", "Bytes of the segments that hold the events.",
			func(c log.Counters) uint64 { return c.SegmentBytes }),
		counter("qpc_engine_payload_bytes_total", "Bytes of the payloads stored.",
			func(c log.Counters) uint64 { return c.PayloadBytes }),
		counter("qpc_engine_anchor_syncs_total", "Head anchors written and synced.",
			func(c log.Counters) uint64 { return c.AnchorSyncs }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "qpc_log_size", Help: "Records in the log."},
			func() float64 { return float64(l.Size()) }),
	}
}

// diskCollectors tell how full the disk is.
func diskCollectors(e *commands.Engine) []prometheus.Collector {
	gauge := func(name, help string, read func(commands.Space) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return read(e.Space()) })
	}
	return []prometheus.Collector{
		gauge("qpc_disk_free_bytes", "Free space on the disk of the data directory; 0 with --min-free 0.",
			func(s commands.Space) float64 { return float64(s.Free) }),
		gauge("qpc_disk_full", "1 while only calls pass that free space (--min-free), else 0.",
			func(s commands.Space) float64 {
				if s.Full {
					return 1
				}
				return 0
			}),
		gauge("qpc_disk_ballast_bytes", "Size of the ballast file, 0 when there is none.",
			func(s commands.Space) float64 { return float64(s.Ballast) }),
	}
}

// register registers all collectors; nil means that nobody wants them.
func register(r prometheus.Registerer, collectors []prometheus.Collector) error {
	if r == nil {
		return nil
	}
	for _, c := range collectors {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

// unregister lets another node register the same names.
func unregister(r prometheus.Registerer, collectors []prometheus.Collector) {
	if r == nil {
		return
	}
	for _, c := range collectors {
		r.Unregister(c)
	}
}
