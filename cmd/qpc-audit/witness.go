package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"quicprochat/kt"
)

// witnessCommand cosigns what it has audited.
type witnessCommand struct {
	auditFlags    `embed:""`
	Listen        string `default:"127.0.0.1:5080" placeholder:"HOST:PORT" help:"TCP address for the log's submissions, plain HTTP: put a proxy with TLS in front."`
	Key           string `default:"witness.key" placeholder:"FILE" help:"The witness's own key, 0600; made when it is missing."`
	Name          string `placeholder:"NAME" help:"Name of a new witness, such as a host name you own; it stands in its verifier key for good."`
	MetricsListen string `placeholder:"HOST:PORT" help:"TCP address for Prometheus, path /metrics, plain HTTP: use a loopback address."`
}

// Help is shown by witness --help.
func (*witnessCommand) Help() string {
	return `Serves add-checkpoint of C2SP tlog-witness for the one log named by --vkey. A
checkpoint is cosigned only if it continues the one cosigned before and everything
it covers was audited from --url or --server. What was cosigned is on disk before the
cosignature leaves. Start it once to make a key; the first line on standard output is
what the log's operator and the users need:

  witness NAME+HASH+KEY`
}

// Run is called by kong.
func (c *witnessCommand) Run(ctx context.Context, a *app) (err error) {
	if c.VKey == "" {
		return usageError("a witness is for a log that it was told: give its key with --vkey")
	}
	key, err := openWitnessKey(c.Key, c.Name)
	if err != nil {
		return err
	}
	metrics, err := openMetrics(c.MetricsListen, a.stderr)
	if err != nil {
		return err
	}
	defer metrics.close()
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	audit, err := c.auditor(a)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	if err := audit.sameGeneration(); err != nil {
		return errors.Join(err, audit.close(), listener.Close())
	}
	w := &witness{ctx: ctx, audit: audit, key: key, metrics: metrics, stderr: a.stderr}
	defer func() {
		w.mu.Lock() // what was begun ends first: it may be on its way to the disk
		err = errors.Join(err, audit.close())
	}()
	if _, err := fmt.Fprintf(a.stdout, "witness %s\nlistening http://%s\n", key, listener.Addr()); err != nil {
		return errors.Join(err, listener.Close())
	}
	return w.serve(ctx, listener)
}

// witness answers a log's submissions, one at a time.
type witness struct {
	ctx     context.Context // of the process
	audit   *auditor
	key     *witnessKey
	metrics *auditMetrics
	stderr  io.Writer
	mu      sync.Mutex
	told    string // origin of a later generation that its operator was told of
	found   bool   // evidence against the log: nothing is cosigned until a new start
}

func (w *witness) serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler: w, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 8 << 10,
	}
	stop := context.AfterFunc(ctx, func() {
		last, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if server.Shutdown(last) != nil {
			_ = server.Close()
		}
	})
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// answer is a status with its body.
type answer struct {
	status int
	body   string
}

// patience is how long a submission waits for the audit: logs give up after some
// seconds.
const patience = 8 * time.Second

// ServeHTTP implements http.Handler.
func (w *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/add-checkpoint" {
		http.NotFound(rw, r)
		return
	}
	if r.Method != http.MethodPost {
		rw.Header().Set("Allow", http.MethodPost)
		http.Error(rw, "POST only", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, kt.MaxAddCheckpoint))
	if err != nil {
		http.Error(rw, "the request can't be read", http.StatusBadRequest)
		return
	}
	request, err := kt.ParseAddCheckpoint(body)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	got := answer{http.StatusServiceUnavailable, "the audit is not there yet: submit again later\n"}
	if w.mu.TryLock() {
		done := make(chan answer, 1)
		go func() { // goes on after patience: the next submission finds it further
			result := w.add(request)
			w.mu.Unlock()
			done <- result
		}()
		select {
		case got = <-done:
		case <-time.After(patience):
		}
	}
	switch got.status {
	case http.StatusConflict:
		rw.Header().Set("Content-Type", "text/x.tlog.size")
	case http.StatusServiceUnavailable:
		rw.Header().Set("Retry-After", "5")
	}
	if rw.Header().Get("Content-Type") == "" {
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	rw.WriteHeader(got.status)
	_, _ = io.WriteString(rw, got.body)
}

// add is the rule of tlog-witness, with the audit between proof and signature.
func (w *witness) add(a kt.AddCheckpoint) answer {
	to, err := readCheckpoint(a.Note)
	if err != nil {
		return answer{http.StatusBadRequest, "it holds no checkpoint\n"}
	}
	if w.found { // once is enough: each time would read the log, and leave a file
		return answer{http.StatusForbidden, evidenceFound}
	}
	if got := w.ours(to, a.Note); got != nil {
		return *got
	}
	vouched, err := w.vouched()
	if err != nil {
		return w.trouble(err)
	}
	switch {
	case a.Old > to.Size:
		return answer{http.StatusBadRequest, "the old size is larger than the checkpoint's\n"}
	case a.Old != vouched.Size, a.Old == to.Size && to.Root != vouched.Root:
		return answer{http.StatusConflict, fmt.Sprintf("%d\n", vouched.Size)}
	case a.Old == 0 && len(a.Proof) > 0:
		return answer{http.StatusUnprocessableEntity, "a proof from size 0 is empty\n"}
	}
	if a.Old > 0 {
		path := make([][]byte, len(a.Proof))
		for i := range a.Proof {
			path[i] = a.Proof[i][:]
		}
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, a.Old, to.Size, path, vouched.Root[:], to.Root[:]); err != nil {
			return answer{http.StatusUnprocessableEntity, "the checkpoint does not continue the one cosigned before\n"}
		}
	}
	return w.vouch(a.Note)
}

// ours refuses what is not signed by the log that this witness is for.
func (w *witness) ours(to kt.Checkpoint, signed []byte) *answer {
	known, err := w.audit.known()
	if err == nil {
		err = w.audit.load(known)
	}
	if err != nil {
		got := w.trouble(err)
		return &got
	}
	config, _, there := w.audit.replay.config()
	switch {
	case w.begunAnew(to, signed):
		return &answer{http.StatusNotFound, "this witness follows " + w.audit.pinned.origin + ", and its operator has not agreed to " + to.Origin + "\n"}
	case to.Origin != w.audit.pinned.origin && (!there || to.Origin != config.Origin):
		return &answer{http.StatusNotFound, "this witness is for another log\n"}
	case w.audit.pinned.opens(signed) != nil && w.audit.opens(signed) != nil:
		return &answer{http.StatusForbidden, "it is not signed by the log's key\n"}
	}
	return nil
}

// begunAnew is whether a note is of a later generation of this log, signed by its
// key. Who lost what a witness cosigned must not have the next history cosigned as
// if nothing had been: that is for the witness's operator to decide, who is told.
func (w *witness) begunAnew(to kt.Checkpoint, signed []byte) bool {
	name, shown, err := kt.ParseOrigin(to.Origin)
	own, follows, _ := kt.ParseOrigin(w.audit.pinned.origin)
	if err != nil || name != own || shown <= follows {
		return false
	}
	if _, err := w.audit.pinned.opensAnyGeneration(signed); err != nil && !w.audit.signedByKnownKey(to, signed) {
		return false
	}
	if w.told != to.Origin {
		w.told = to.Origin
		fmt.Fprintf(w.stderr, "%s the log was begun anew: %s is submitted, after %s. Its operator says that the newest part was lost and disowns what was signed there. Nothing of it is cosigned. Ask why; to go on with it, start again with the new --vkey, another --state and the same --key\n",
			w.audit.now().UTC().Format(time.RFC3339), to.Origin, w.audit.pinned.origin)
	}
	return true
}

// sameGeneration refuses a state folder of another generation than --vkey names:
// what was cosigned under one origin says nothing of the other.
func (a *auditor) sameGeneration() error {
	if a.folder.state == nil {
		return nil
	}
	c, err := a.known()
	if err != nil || c.Origin == a.pinned.origin {
		return err
	}
	return usageError("the state folder %s is of %s, and --vkey of %s: use another --state with it, and keep this one", a.folder.dir, c.Origin, a.pinned.origin)
}

// vouched is the newest checkpoint that was cosigned; size 0 before the first.
func (w *witness) vouched() (kt.Checkpoint, error) {
	if s := w.audit.folder.state; s != nil && s.Vouched != "" {
		return readCheckpoint([]byte(s.Vouched))
	}
	return kt.Checkpoint{}, nil
}

// vouch audits up to a note, keeps it and cosigns it.
func (w *witness) vouch(signed []byte) answer {
	r, err := w.audit.checkNote(w.ctx, signed)
	w.metrics.note(r, err, w.audit.now())
	if r == nil { // a stale head is none of a witness's business, a missing one is
		return w.trouble(err)
	}
	next := *w.audit.folder.state
	next.Vouched = string(signed)
	if err := w.audit.folder.save(next); err != nil {
		return w.trouble(err)
	}
	line, err := w.key.cosign(signed, uint64(w.audit.now().Unix()))
	if err != nil {
		return w.trouble(err)
	}
	return answer{http.StatusOK, string(line)}
}

const evidenceFound = "the audit of this log found evidence against it\n"

// trouble tells the operator what is wrong, and the log only whether to come
// again.
func (w *witness) trouble(err error) answer {
	fmt.Fprintf(w.stderr, "%s %v\n", w.audit.now().UTC().Format(time.RFC3339), err)
	var wrong *findingError
	if errors.As(err, &wrong) {
		w.found = true
		fmt.Fprintln(w.stderr, "nothing is cosigned any more; to audit anew, start the witness again")
		return answer{http.StatusForbidden, evidenceFound}
	}
	return answer{http.StatusServiceUnavailable, "the audit can't be made now: submit again later\n"}
}
