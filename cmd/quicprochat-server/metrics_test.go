package main

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMetrics scrapes a server as Prometheus does.
func TestMetrics(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stderr := new(tail)
	done := make(chan int, 1)
	dir := filepath.Join(t.TempDir(), "data")
	serving := make(chan struct{}, 8)
	stdout := &notifying{fired: func() { serving <- struct{}{} }}
	go func() {
		done <- Run(ctx, []string{"--listen", "127.0.0.1:0", "--data-dir", dir, "--min-free", "0", "--metrics-listen", "127.0.0.1:0"}, nil, stdout, stderr)
	}()
	select {
	case <-serving:
	case code := <-done:
		t.Fatalf("code %d: %s", code, stderr)
	case <-time.After(time.Minute):
		t.Fatal("no server within a minute")
	}
	_, address, found := strings.Cut(stderr.String(), "address=")
	if !found {
		t.Fatalf("the log does not tell where metrics are: %s", stderr)
	}
	address = strings.Fields(address)[0]
	body, status := get(t, address)
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, body)
	}
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes", "go_build_info", "qpc_requests_total", "qpc_connections"} {
		if !strings.Contains(body, "\n"+name) {
			t.Errorf("no metric %s", name)
		}
	}
	if _, status := get(t, strings.TrimSuffix(address, "metrics")); status != http.StatusNotFound {
		t.Errorf("another path is answered with %d", status)
	}
	if resp, err := http.Post(address, "text/plain", strings.NewReader("x")); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v, %v", resp, err)
	} else if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	cancel()
	select {
	case code := <-done:
		if code != 0 {
			t.Errorf("code %d: %s", code, stderr)
		}
	case <-time.After(time.Minute):
		t.Fatal("the server did not stop")
	}
	if _, err := http.Get(address); err == nil {
		t.Error("metrics are served after the end")
	}
}

func get(t *testing.T, url string) (body string, status int) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(content), resp.StatusCode
}

// TestMetricsAddressWarning: beyond loopback they are served, with a warning.
func TestMetricsAddressWarning(t *testing.T) {
	for address, warn := range map[string]bool{"127.0.0.1:0": false, "[::1]:0": false, "0.0.0.0:0": true} {
		var out tail
		m, err := openMetrics(address, newLogger(&out, nil))
		if err != nil {
			t.Fatal(err)
		}
		m.close()
		if got := strings.Contains(out.String(), "level=WARN"); got != warn {
			t.Errorf("%s: warned %v: %s", address, got, &out)
		}
	}
}
