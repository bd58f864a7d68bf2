package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/pake"
)

// IdleReport is what bench idle prints; the names are those of its JSON.
type IdleReport struct {
	Connections int `json:"connections"`
	// KiB of resident memory per idle connection: of the server, of the echo
	// server, and by how much the first is above the second.
	ServerKB float64 `json:"server_kb"`
	EchoKB   float64 `json:"echo_kb"`
	AboveKB  float64 `json:"above_kb"`
}

// Idler is a server whose memory is measured.
type Idler struct {
	Config client.Config
	// PID is the process that serves at Config.Addr.
	PID int
	// Echo tells that it knows no accounts.
	Echo bool
}

// Idle opens connections to one server and then to the other, each with one
// answered call, and compares what both hold for them after a pause of settle.
// At the server all belong to one device that is logged in.
func Idle(ctx context.Context, connections int, settle time.Duration, server, echo Idler, now func(string)) (*IdleReport, error) {
	r := &IdleReport{Connections: connections}
	for _, side := range []struct {
		name  string
		idler Idler
		kb    *float64
	}{{"echo", echo, &r.EchoKB}, {"server", server, &r.ServerKB}} {
		now(side.name)
		var err error
		if *side.kb, err = side.idler.measure(ctx, connections, settle); err != nil {
			return nil, fmt.Errorf("%s: %w", side.name, err)
		}
	}
	r.AboveKB = r.ServerKB - r.EchoKB
	return r, nil
}

// measure tells the KiB that each connection adds.
func (i Idler) measure(ctx context.Context, connections int, settle time.Duration) (kb float64, err error) {
	i.Config.KSF = pake.InsecureKSF()
	var open []*client.Client
	defer func() {
		for _, c := range open {
			err = errors.Join(err, c.Close())
		}
	}()
	session := client.Session{Token: make([]byte, 32), Scope: pb.SessionScope_DEVICE}
	dial := func() error {
		c, err := client.Dial(ctx, i.Config)
		if err != nil {
			return err
		}
		open = append(open, c)
		if len(open) == 1 && !i.Echo {
			a, err := register(ctx, c)
			if err != nil {
				return err
			}
			opened, err := c.Login(ctx, a.name, a.password, a.device)
			if err != nil {
				return err
			}
			session = *opened
		}
		c.SetSession(session)
		_, err = c.Fetch(ctx, &pb.FetchRequest{})
		return err
	}
	// A tenth comes first: what the first connections cost, once, is not theirs.
	var first Usage
	for n := range connections + connections/10 {
		if n == connections/10 {
			if first, err = i.rest(ctx, settle); err != nil {
				return 0, err
			}
		}
		if err := dial(); err != nil {
			return 0, fmt.Errorf("connection %d: %w", n+1, err)
		}
	}
	last, err := i.rest(ctx, settle)
	if err != nil {
		return 0, err
	}
	return float64(last.Resident-first.Resident) / 1024 / float64(connections), nil
}

// rest waits until nothing is under way and reads the usage.
func (i Idler) rest(ctx context.Context, settle time.Duration) (Usage, error) {
	select {
	case <-time.After(settle):
		return UsageOf(i.PID)
	case <-ctx.Done():
		return Usage{}, context.Cause(ctx)
	}
}

// Print writes the report for a person.
func (r *IdleReport) Print(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%d idle connections: %.1f KiB each at the server, %.1f at the echo server: %+.1f KiB\n",
		r.Connections, r.ServerKB, r.EchoKB, r.AboveKB)
	return err
}
