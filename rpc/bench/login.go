package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"quicprochat/rpc/client"
	"quicprochat/rpc/pake"
)

// LoginReport is what bench login prints; the names are those of its JSON.
type LoginReport struct {
	Connections int `json:"connections"`
	// DurationS is how long logins were made, in seconds.
	DurationS  float64 `json:"duration_s"`
	LoginsPerS float64 `json:"logins_per_s"`
	P50MS      float64 `json:"p50_ms"`
	P99MS      float64 `json:"p99_ms"`

	Logins     uint64 `json:"logins"`
	Failed     uint64 `json:"failed"`
	FirstError string `json:"first_error,omitempty"`
	// Cause is FirstError for errors.As; nil without a failure.
	Cause error `json:"-"`

	// Microseconds of CPU: of the server per whole login, and of the OPAQUE
	// library for its KE2, the one expensive message. 0 without the server's
	// process id.
	ServerCPUUS  float64 `json:"server_cpu_us,omitempty"`
	LibraryCPUUS float64 `json:"library_cpu_us,omitempty"`
	// Ratio is library_cpu_us ÷ server_cpu_us: logins per second and core
	// against those of the library.
	Ratio float64 `json:"ratio,omitempty"`
}

// People are accounts that log in, each over a connection of its own.
type People struct {
	// Reconnect: each login has a new connection, as after a restart of the server.
	Reconnect bool

	cfg      client.Config
	accounts []*account
}

// login has one of them log in.
func (p *People) login(ctx context.Context, i int) error {
	a := p.accounts[i]
	if !p.Reconnect {
		return a.login(ctx, a.client)
	}
	c, err := client.Dial(ctx, p.cfg)
	if err != nil {
		return err
	}
	before := a.client
	a.client = c
	return errors.Join(a.login(ctx, c), before.Close())
}

// OpenPeople registers accounts under random names, with a password stretching
// that costs nothing: it is the client's, and the server never sees it.
func OpenPeople(ctx context.Context, cfg client.Config, n int, step func(ready int)) (*People, error) {
	cfg.KSF = pake.InsecureKSF()
	p := &People{cfg: cfg}
	for i := range n {
		c, err := client.Dial(ctx, cfg)
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		a, err := register(ctx, c)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("account %d of %d: %w", i+1, n, err), c.Close(), p.Close())
		}
		a.client = c
		p.accounts = append(p.accounts, a)
		step(i + 1)
	}
	return p, nil
}

// Close ends all connections.
func (p *People) Close() error {
	var all error
	for _, a := range p.accounts {
		all = errors.Join(all, a.client.Close())
	}
	return all
}

// Login has everybody log in again and again for a time, one login at a time
// each. With the server's process id (else 0) it counts the CPU that the server
// takes, and in between, on one core, that of the library alone.
func Login(ctx context.Context, length time.Duration, p *People, pid int, now func(string)) (*LoginReport, error) {
	library, err := newLibrary()
	if err != nil {
		return nil, err
	}
	load := Load{Connections: len(p.accounts), InFlight: len(p.accounts), Payload: 16}
	var logins Measured
	var server, alone time.Duration
	var alones int
	for left := length; left > 0 && ctx.Err() == nil; left -= slice {
		now("login")
		took, err := cpuOf(pid, func() error {
			logins.add(load.Run(ctx, min(slice, left), func(ctx context.Context, i int, _ []byte) error {
				return p.login(ctx, i)
			}))
			return nil
		})
		if err != nil {
			return nil, err
		}
		server += took
		if pid == 0 {
			continue
		}
		now("library")
		took, err = cpuOf(os.Getpid(), func() error {
			n, err := library.run(slice / 2)
			alones += n
			return err
		})
		if err != nil {
			return nil, err
		}
		alone += took
	}
	r := &LoginReport{
		Connections: len(p.accounts), DurationS: logins.Elapsed.Seconds(), LoginsPerS: logins.PerSecond(),
		P50MS: ms(logins.Latencies.Quantile(0.5)), P99MS: ms(logins.Latencies.Quantile(0.99)),
		Logins: logins.Answered, Failed: logins.Failed,
	}
	if r.Cause = logins.FirstError; r.Cause != nil {
		r.FirstError = r.Cause.Error()
	}
	if pid != 0 && logins.Answered > 0 && server > 0 {
		r.ServerCPUUS = float64(server.Microseconds()) / float64(logins.Answered)
		r.LibraryCPUUS = float64(alone.Microseconds()) / float64(max(alones, 1))
		r.Ratio = r.LibraryCPUUS / r.ServerCPUUS
	}
	return r, nil
}

// cpuOf runs work and tells what CPU time a process took meanwhile; 0 for no
// process.
func cpuOf(pid int, work func() error) (time.Duration, error) {
	if pid == 0 {
		return 0, work()
	}
	before, err := UsageOf(pid)
	if err == nil {
		err = work()
	}
	if err != nil {
		return 0, err
	}
	after, err := UsageOf(pid)
	return after.CPU - before.CPU, err
}

// library is the server's end of OPAQUE with one record and one first message.
type library struct {
	server *pake.Server
	record *pake.Record
	id     []byte
	ke1    []byte
}

func newLibrary() (*library, error) {
	l := &library{id: bytes.Repeat([]byte{1}, pake.CredentialIDSize)}
	upload, err := pake.NewFakeRecord()
	if err != nil {
		return nil, err
	}
	if l.server, err = pake.NewServer(pake.NewMaterial()); err != nil {
		return nil, err
	}
	if l.record, err = l.server.ParseRecord(upload); err != nil {
		return nil, err
	}
	_, l.ke1, err = pake.StartLogin([]byte("password"), pake.InsecureKSF())
	return l, err
}

// run makes as many KE2 as fit into a time.
func (l *library) run(length time.Duration) (n int, err error) {
	for end := time.Now().Add(length); time.Now().Before(end); n++ {
		if _, _, err := l.server.LoginStart(l.ke1, l.record, l.id); err != nil {
			return n, err
		}
	}
	return n, nil
}

// Print writes the report for a person.
func (r *LoginReport) Print(w io.Writer) error {
	fmt.Fprintf(w, "%d connections, %.1f s\n", r.Connections, r.DurationS)
	fmt.Fprintf(w, "%.0f logins/s, p50 %.2f ms, p99 %.2f ms, failed %d\n", r.LoginsPerS, r.P50MS, r.P99MS, r.Failed)
	if r.Ratio > 0 {
		fmt.Fprintf(w, "CPU of the server per login %.0f µs, of the library for KE2 %.0f µs: ratio %.2f\n", r.ServerCPUUS, r.LibraryCPUUS, r.Ratio)
	}
	if r.FirstError != "" {
		fmt.Fprintf(w, "first error: %s\n", r.FirstError)
	}
	return nil
}
