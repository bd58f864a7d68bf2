package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// auditMetrics are what an auditor's operator watches. Without a listener they
// are counted for nobody.
type auditMetrics struct {
	checks    *prometheus.CounterVec
	size      prometheus.Gauge
	heads     prometheus.Gauge
	keys      prometheus.Gauge
	headTime  prometheus.Gauge
	satisfied prometheus.Gauge
	http      *http.Server
	done      chan struct{}
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

// openMetrics listens on address, or does nothing when it is empty.
func openMetrics(address string, stderr io.Writer) (*auditMetrics, error) {
	m := &auditMetrics{
		checks:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "qpc_audit_checks_total", Help: "Checks of the log, by verdict."}, []string{"verdict"}),
		size:      gauge("qpc_audit_size", "Leaves of the newest verified checkpoint."),
		heads:     gauge("qpc_audit_heads", "Heads among them."),
		keys:      gauge("qpc_audit_key_events", "Key events among them."),
		headTime:  gauge("qpc_audit_head_time_seconds", "Time of the newest head, Unix seconds."),
		satisfied: gauge("qpc_audit_satisfied_time_seconds", "When a check was last satisfied, Unix seconds."),
	}
	if address == "" {
		return m, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--metrics-listen: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.checks, m.size, m.heads, m.keys, m.headTime, m.satisfied)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	m.http = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 15 * time.Second, MaxHeaderBytes: 16 << 10}
	m.done = make(chan struct{})
	fmt.Fprintf(stderr, "metrics served at http://%s/metrics\n", listener.Addr())
	go func() { defer close(m.done); _ = m.http.Serve(listener) }()
	return m, nil
}

// note counts one check.
func (m *auditMetrics) note(r *result, err error, now time.Time) {
	status := statusOf(err)
	m.checks.WithLabelValues(verdicts[status]).Inc()
	if status == exitSatisfied {
		m.satisfied.Set(float64(now.Unix()))
	}
	if r != nil {
		m.size.Set(float64(r.Checkpoint.Size))
		m.heads.Set(float64(r.Head.Epoch + 1))
		m.keys.Set(float64(r.Head.KTCount))
		m.headTime.Set(float64(r.Head.TimeMS) / 1000)
	}
}

func (m *auditMetrics) close() {
	if m.http == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if m.http.Shutdown(ctx) != nil {
		_ = m.http.Close()
	}
	<-m.done
}
