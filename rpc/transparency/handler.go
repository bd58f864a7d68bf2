package transparency

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"quicprochat/kt"
	"quicprochat/log"
)

// Published is what strangers may see at one moment.
type Published struct {
	// Note is the signed note that /checkpoint shows; empty before the first.
	Note []byte
	// Size is the number of leaves up to which tiles and bundles are shown: that
	// of the newest signed note.
	Size uint64
	// Epochs is the number of heads among those leaves.
	Epochs uint64
	// Stopped: nothing is shown because the server signs nothing any more, and will
	// not before its operator has settled why.
	Stopped bool
}

// Source is what a Handler serves.
type Source struct {
	// Log holds tiles and entry bundles.
	Log *log.Log
	// Published gives the newest state; it is asked once a request.
	Published func() Published
	// Delta gives the delta number n with the first width epochs, 1 to
	// kt.TileWidth, all below Published().Epochs.
	Delta func(n uint64, width int) ([]byte, error)
	// Logger gets errors of reading, which strangers are not told.
	Logger *slog.Logger
}

// Values of Cache-Control. A path of a tile says how wide it is, so what it
// names never changes; a checkpoint is new every minute at the latest, and what
// is missing now may be there then.
const (
	cacheForever = "public, max-age=31536000, immutable"
	cacheNever   = "no-cache"
)

// maxPath is longer than every path of a resource, in bytes.
const maxPath = 64

// NewHandler serves the log, read-only:
//
//	/checkpoint                  the newest published note
//	/tile/<L>/<N>[.p/<W>]        hash tiles            (C2SP tlog-tiles)
//	/tile/entries/<N>[.p/<W>]    entry bundles         (C2SP tlog-tiles)
//	/kt/delta/<N>[.p/<W>]        heads with the KT leaves between them
//
// Everything else, and everything above the published checkpoint, is 404.
func NewHandler(s Source) http.Handler {
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	return &handler{Source: s, slots: make(chan struct{}, maxInFlight), deltas: make(chan struct{}, maxDeltas)}
}

const (
	// maxInFlight bounds the requests that read the log at a time.
	maxInFlight = 64
	// maxDeltas bounds the deltas that are made at a time: each costs a read for every
	// leaf in it, on the CPU that messages need too.
	maxDeltas = 2
	// deltaPatience is how long a delta waits for its turn.
	deltaPatience = 5 * time.Second
)

type handler struct {
	Source
	slots  chan struct{}
	deltas chan struct{}
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", cacheNever)
	header.Set("X-Content-Type-Options", "nosniff")
	// Whoever audits in a browser comes from another origin.
	header.Set("Access-Control-Allow-Origin", "*")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "read-only", http.StatusMethodNotAllowed)
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	if path == "checkpoint" {
		h.checkpoint(w)
		return
	}
	if len(path) > maxPath {
		http.NotFound(w, r)
		return
	}
	resource, err := kt.ParseTilePath(path)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	body, err := h.readInTurn(r.Context(), resource)
	switch {
	case errors.Is(err, errBusy):
		header.Set("Retry-After", "1")
		http.Error(w, "busy", http.StatusServiceUnavailable)
	case errors.Is(err, log.ErrOutOfRange):
		http.NotFound(w, r)
	case err != nil:
		h.Logger.Error("a public resource can't be read", slog.String("path", path), slog.Any("error", err))
		http.Error(w, "the resource can't be read", http.StatusInternalServerError)
	default:
		header.Set("Cache-Control", cacheForever)
		write(w, "application/octet-stream", body)
	}
}

func (h *handler) checkpoint(w http.ResponseWriter) {
	switch published := h.Published(); {
	case len(published.Note) > 0:
		write(w, "text/plain; charset=utf-8", published.Note)
	case published.Stopped:
		http.Error(w, "the server signs no checkpoints: its log may be an older copy; its operator has to settle that", http.StatusServiceUnavailable)
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "no checkpoint is published yet", http.StatusServiceUnavailable)
	}
}

var errBusy = errors.New("too many requests at a time")

// readInTurn reads a resource when there is a slot. The slot is not held while the
// answer is written: a slow reader costs a connection and no more.
func (h *handler) readInTurn(ctx context.Context, p kt.TilePath) ([]byte, error) {
	if p.Kind != kt.DeltaBundle {
		select {
		case h.slots <- struct{}{}:
			defer func() { <-h.slots }()
			return h.read(p)
		default:
			return nil, errBusy
		}
	}
	wait, cancel := context.WithTimeout(ctx, deltaPatience)
	defer cancel()
	select {
	case h.deltas <- struct{}{}:
		defer func() { <-h.deltas }()
		return h.read(p)
	case <-wait.Done():
		return nil, errBusy
	}
}

// read gives a resource that lies wholly below the published state; any other
// is log.ErrOutOfRange.
func (h *handler) read(p kt.TilePath) ([]byte, error) {
	published := h.Published()
	count := published.Size >> (8 * uint(p.Level))
	if p.Kind == kt.DeltaBundle {
		count = published.Epochs
	}
	if p.N > count/kt.TileWidth || p.N*kt.TileWidth+uint64(p.Width) > count {
		return nil, log.ErrOutOfRange
	}
	switch p.Kind {
	case kt.HashTile:
		return h.Log.Tile(p.Level, p.N, p.Width)
	case kt.EntryBundle:
		return h.Log.EntryBundle(p.N, p.Width)
	default:
		return h.Delta(p.N, p.Width)
	}
}

// write answers with body; net/http drops it from the answer to a HEAD.
func write(w http.ResponseWriter, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // whoever went away misses nothing
}
