package transparency

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// WitnessOptions configure NewWitnesses.
type WitnessOptions struct {
	WitnessPolicy
	// Prove makes the RFC 6962 consistency proof between two sizes of the log.
	Prove func(from, to uint64) ([][]byte, error)
	// Cosigned gets a note with at least Quorum cosignatures, again each time one
	// is added.
	Cosigned func(signed []byte, size uint64)
	// Stop is called when a witness knows better: nothing must be signed any more.
	Stop func(*KnowsBetterError)
	// Every is the shortest time between two submissions; notes that were signed
	// meanwhile are passed over for the newest. 0: one second.
	Every  time.Duration
	Logger *slog.Logger
}

// Witnesses submits notes to witnesses, in the background.
type Witnesses struct {
	o      WitnessOptions
	client *http.Client
	peers  []*peer
	cancel context.CancelFunc
	done   chan struct{}
	wake   chan struct{}

	mu    sync.Mutex
	offer *offered // the newest note; nil before the first

	submissions *prometheus.CounterVec
	size        prometheus.Gauge
}

// offered is a note that waits for cosignatures.
type offered struct {
	note    []byte
	size    uint64
	release func()
	uses    int // by the offer and by a round; under mu
}

// peer is what is remembered of a witness between submissions.
type peer struct {
	Witness
	old     uint64    // size that it cosigned last, as far as known
	failed  int       // times in a row
	resting time.Time // no submission before
}

const (
	// submissionTime bounds one witness's part in a round.
	submissionTime = 10 * time.Second
	// longestRest is how long a witness that does not answer is left alone.
	longestRest = 5 * time.Minute
)

// NewWitnesses starts to submit what Offer is given; Close ends it.
func NewWitnesses(o WitnessOptions) *Witnesses {
	if o.Every == 0 {
		o.Every = time.Second
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &Witnesses{
		o: o, cancel: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1),
		client: &http.Client{
			Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 1, IdleConnTimeout: 2 * time.Minute},
			// A witness is where its operator says; a redirect would let another
			// host answer.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		submissions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "qpc_witness_submissions_total", Help: "Checkpoints sent to witnesses, by outcome.",
		}, []string{"witness", "outcome"}),
		size: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "qpc_witness_cosigned_size", Help: "Log size of the newest checkpoint with a quorum of cosignatures.",
		}),
	}
	for _, witness := range o.Witnesses {
		w.peers = append(w.peers, &peer{Witness: witness})
	}
	go w.run(ctx)
	return w
}

// Collectors are the metrics, for whoever has a registry.
func (w *Witnesses) Collectors() []prometheus.Collector {
	return []prometheus.Collector{w.submissions, w.size}
}

// Offer hands over a note that was just signed. It does not block; a newer note
// takes the place of one that was not submitted yet. release, if not nil, is called
// when Cosigned will not be called with this note any more.
func (w *Witnesses) Offer(signed []byte, size uint64, release func()) {
	next := &offered{note: signed, size: size, release: release, uses: 1}
	w.mu.Lock()
	old := w.offer
	if old != nil && size < old.size {
		old, next = next, old
	}
	w.offer = next
	w.mu.Unlock()
	w.drop(old)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take uses the newest note for a round; nil before the first.
func (w *Witnesses) take() *offered {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.offer != nil {
		w.offer.uses++
	}
	return w.offer
}

// drop ends one use of a note.
func (w *Witnesses) drop(o *offered) {
	if o == nil {
		return
	}
	w.mu.Lock()
	o.uses--
	last := o.uses == 0
	w.mu.Unlock()
	if last && o.release != nil {
		o.release()
	}
}

// newest is the size of the newest note offered.
func (w *Witnesses) newest() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.offer == nil {
		return 0
	}
	return w.offer.size
}

// Close ends all submissions. Nothing may be offered any more.
func (w *Witnesses) Close() {
	w.cancel()
	<-w.done
	w.mu.Lock()
	last := w.offer
	w.offer = nil
	w.mu.Unlock()
	w.drop(last)
	w.client.CloseIdleConnections()
}

// Ask asks every witness whether it knows more of the log than a note that was
// signed before, and is to be called before anything new is signed. It returns
// how many answered, and a *KnowsBetterError when one does. Nothing is lost when
// none answers: what it signs later, they refuse.
func (w *Witnesses) Ask(ctx context.Context, signed []byte, size uint64) (answered int, err error) {
	ctx, cancel := context.WithTimeout(ctx, submissionTime)
	defer cancel()
	results := make(chan error, len(w.peers))
	for _, p := range w.peers {
		go func() {
			err := p.ask(ctx, w.client, signed, size)
			var refused *refusedError
			if errors.As(err, &refused) && refused.status == http.StatusNotFound {
				err = nil // it never heard of this log
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", p.Key.Name(), err)
			}
			results <- err
		}()
	}
	var better *KnowsBetterError
	for range w.peers {
		err := <-results
		switch {
		case err == nil:
			answered++
		case errors.As(err, &better):
			return answered, better
		default:
			w.o.Logger.Warn("a witness can't be asked", slog.Any("error", err))
		}
	}
	return answered, nil
}

// run makes rounds until ctx ends or a witness knows better.
func (w *Witnesses) run(ctx context.Context) {
	defer close(w.done)
	done := uint64(0) // size up to which every witness has signed
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		select {
		case <-w.wake:
		case <-retry.C:
		case <-ctx.Done():
			return
		}
		next := w.take()
		if next == nil {
			continue
		}
		complete, err := w.round(ctx, next)
		w.drop(next)
		if err != nil {
			w.o.Stop(err)
			return
		}
		if complete {
			done = next.size
		}
		if done == next.size {
			retry.Reset(time.Hour)
		} else {
			retry.Reset(10 * w.o.Every)
		}
		select { // notes signed meanwhile become one
		case <-time.After(w.o.Every):
		case <-ctx.Done():
			return
		}
	}
}

// round submits one note to all witnesses at a time and passes on each set of
// cosignatures that makes a quorum. complete tells that every witness that is
// not resting has signed.
func (w *Witnesses) round(ctx context.Context, next *offered) (complete bool, better *KnowsBetterError) {
	ctx, cancel := context.WithTimeout(ctx, submissionTime)
	defer cancel()
	type result struct {
		peer   *peer
		answer []byte
		err    error
	}
	results := make(chan result, len(w.peers))
	asked := 0
	for _, p := range w.peers {
		if time.Now().Before(p.resting) {
			continue
		}
		asked++
		go func() {
			answer, err := p.submit(ctx, w.client, next.note, next.size, &p.old, w.o.Prove)
			results <- result{p, answer, err}
		}()
	}
	signed, count := bytes.Clone(next.note), 0
	for range asked {
		r := <-results
		if err := w.settle(r.peer, r.err); err != nil {
			better = err
		}
		if r.err != nil {
			continue
		}
		cosigned, err := r.peer.cosign(signed, r.answer)
		if err != nil {
			w.o.Logger.Warn("a cosignature can't be kept", slog.Any("error", err))
			continue
		}
		signed = cosigned
		if count++; count >= w.o.Quorum {
			w.size.Set(float64(next.size))
			w.o.Cosigned(bytes.Clone(signed), next.size)
		}
	}
	return count == len(w.peers), better
}

// settle notes how a submission went.
func (w *Witnesses) settle(p *peer, err error) *KnowsBetterError {
	name := p.Key.Name()
	var better *KnowsBetterError
	switch {
	case err == nil:
		w.submissions.WithLabelValues(name, "cosigned").Inc()
		if p.failed > 0 {
			w.o.Logger.Info("a witness cosigns again", slog.String("witness", name))
		}
		p.failed, p.resting = 0, time.Time{}
		return nil
	case errors.As(err, &better) && better.Ours < better.Theirs && better.Theirs <= w.newest():
		// Somebody else showed it a note that was signed during the round.
		p.old = better.Theirs
	case errors.As(err, &better):
		w.submissions.WithLabelValues(name, "knows_better").Inc()
		return better
	}
	w.submissions.WithLabelValues(name, "failed").Inc()
	p.failed++
	rest := min(w.o.Every<<min(p.failed, 20), longestRest)
	p.resting = time.Now().Add(rest)
	w.o.Logger.Warn("a witness does not cosign", slog.String("witness", name), slog.Any("error", err), slog.Duration("again_in", rest))
	return nil
}
