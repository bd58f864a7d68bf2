package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metricsServer serves /metrics. The zero value serves nothing and has no
// registry, so that nothing is counted for nobody.
type metricsServer struct {
	registry prometheus.Registerer
	http     *http.Server
}

// openMetrics listens on address, or does nothing when it is empty.
func openMetrics(address string, logger *slog.Logger) (*metricsServer, error) {
	if address == "" {
		return &metricsServer{}, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, listenError("--metrics-listen", "TCP", address, err)
	}
	if tcp, ok := listener.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		logger.Warn("metrics are served without encryption and without a password to whoever reaches this address: use a loopback address",
			slog.String("address", listener.Addr().String()))
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	m := &metricsServer{registry: registry, http: &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}}
	logger.Info("metrics served", slog.String("address", "http://"+listener.Addr().String()+"/metrics"))
	go func() {
		if err := m.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("metrics are no longer served", slog.Any("error", err))
		}
	}()
	return m, nil
}

// close ends scrapes that run within a second, then cuts them.
func (m *metricsServer) close() {
	if m.http == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if m.http.Shutdown(ctx) != nil {
		_ = m.http.Close()
	}
}
