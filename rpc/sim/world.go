package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/server"
)

// DataDir is where a simulated server keeps its data.
const DataDir = "/data"

const serverName = "chat.example.org"

// serverAddr is a loopback address, so that worlds without limits are allowed.
var serverAddr = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5001}

// World is one simulated world. It lives in a synctest bubble.
type World struct {
	Seed    uint64
	Net     *Network
	People  []*Person
	History *History
	// Prepare, when set, changes each life's disk before the server starts on it.
	Prepare func(life int, d *Disk)
	// MinFree is the server's --min-free.
	MinFree int

	plan   plan
	rng    *rand.Rand
	logs   *journal
	ca     []byte
	disk   *Disk
	node   *server.Node
	probe  *probe
	alive  atomic.Pointer[probe] // the same, for those who run the server
	ended  chan ending           // what the disk saw of the end of the present life
	ghosts sync.WaitGroup
	armed  atomic.Bool  // the planned operation may still end the present life
	dawn   atomic.Int64 // people sleep until then, Unix milliseconds
	begun  time.Time
	wrong  atomic.Int64 // by how much the server's wall clock is wrong, nanoseconds
	asleep atomic.Bool  // the machine is off: its clock is right when it comes back

	mu       sync.Mutex
	keysets  map[Key]uint32 // newest that was accepted
	fates    map[Key]keyFate
	rooms    []ID // channels whose ids went round
	progress map[ID]progress
	life     Life
	wrongly  span // since when the wall clock is wrong
}

// ending is the disk that a life leaves behind.
type ending struct {
	death death
	fs    *vfs.MemFS
	err   error
}

// NewWorld draws a world.
func NewWorld(seed uint64) *World {
	rng := rand.New(rand.NewPCG(seed, 1))
	w := &World{
		Seed: seed, plan: drawPlan(rng), rng: rng, keysets: map[Key]uint32{}, fates: map[Key]keyFate{},
		progress: map[ID]progress{},
		Net:      NewNetwork(rand.New(rand.NewPCG(seed, 2))),
		History:  &History{marks: map[uint64][32]byte{}, passed: map[[32]byte]*Passed{}},
		logs:     &journal{}, begun: time.Now(),
	}
	for i := range w.plan.people {
		w.People = append(w.People, newPerson(w, i))
	}
	w.History.people = w.People
	return w
}

// Run lives through the plan and gives what is wrong, nil when all is as it was
// promised.
func (w *World) Run() error {
	if err := w.start(nil, false); err != nil {
		return fmt.Errorf("first start: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var people sync.WaitGroup
	for _, p := range w.People {
		people.Go(func() { p.live(ctx) })
	}
	storms := make(chan struct{})
	go func() { defer close(storms); w.weather(ctx) }()
	clocks := make(chan struct{})
	go func() { defer close(clocks); w.stepClock(ctx) }()
	err := w.lives()
	cancel()
	people.Wait()
	for _, p := range w.People {
		p.ears.Wait()
	}
	<-storms
	<-clocks
	if err == nil {
		err = w.checkRunning()
	}
	if err == nil {
		err = w.settle()
	}
	for _, p := range w.People {
		if p.client != nil {
			p.client.Close()
		}
	}
	if w.node != nil {
		err = errors.Join(err, w.stop())
	}
	w.ghosts.Wait()
	if err == nil {
		err = w.check()
	}
	if err != nil {
		return fmt.Errorf("world %d: %w\nplan: %+v\n%s", w.Seed, err, w.plan, w.logs)
	}
	return nil
}

// start boots the server on what the life before left.
func (w *World) start(fs *vfs.MemFS, acceptTime bool) error {
	w.disk = NewDisk(fs, rand.New(rand.NewPCG(w.rng.Uint64(), 3)))
	if w.Prepare != nil {
		w.Prepare(len(w.History.lives), w.disk)
	}
	w.life = Life{span: begin()}
	if fs != nil {
		w.History.addAnchored(anchorSize(fs))
	}
	probe := &probe{world: w, disk: w.disk}
	w.disk.Anchored = func(size uint64) {
		if !probe.dead.Load() {
			w.History.addAnchored(size)
		}
	}
	w.ended = make(chan ending, 1)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	node, err := server.Boot(ctx, server.Config{
		FS: w.disk.FS(), Dir: DataDir, PacketConn: w.Net.Listen(serverAddr), ServerName: serverName,
		Limits: w.plan.limits, AcceptTime: acceptTime, MinFree: w.MinFree, WallClock: w.wallClock, Version: "sim", Logger: slog.New(w.logs),
	})
	if err != nil {
		return err
	}
	w.node = node
	probe.node = node
	w.probe = probe
	w.alive.Store(probe)
	node.Engine().OnPublish(func(commands.Published) { probe.look() })
	if w.ca == nil {
		w.ca, err = readAll(w.disk.fs, node.CAFile())
	}
	w.disk.Slow(w.plan.syncTime)
	w.hangNowAndThen()
	return err
}

// lives ends lives as planned and starts the next, until the world's time is
// over.
func (w *World) lives() error {
	for _, d := range w.plan.deaths {
		left := w.plan.length - time.Since(w.begun)
		if left <= 0 {
			return nil
		}
		if d.op == 0 {
			left = min(left, d.after)
		} else {
			w.armDeath(d)
		}
		if d.hang > 0 {
			w.hangBeforeFlush(d.hang)
		}
		var end ending
		select {
		case <-time.After(left):
			if d.op > 0 {
				if w.armed.CompareAndSwap(true, false) {
					return nil // so many operations never came
				}
			} else {
				w.kill(d)
			}
			end = <-w.ended
		case end = <-w.ended:
		case <-w.node.Failed():
			return fmt.Errorf("the node failed on a good disk: %w", w.node.Wait())
		}
		if err := w.resurrect(end); err != nil {
			return err
		}
	}
	if left := w.plan.length - time.Since(w.begun); left > 0 {
		select {
		case <-time.After(left):
		case <-w.node.Failed():
			return fmt.Errorf("the node failed on a good disk: %w", w.node.Wait())
		}
	}
	return nil
}

// hangNowAndThen lets the syncs of the log hang in every other life, while people go
// on: what is not durable can be seen then by whoever shows it too early, and whose
// patience ends asks again for what is decided already.
func (w *World) hangNowAndThen() {
	disk, rng := w.disk, rand.New(rand.NewPCG(w.Seed, uint64(2000+len(w.History.lives))))
	if rng.IntN(2) == 0 {
		return
	}
	between := func(least, most int) time.Duration {
		return time.Duration(least+rng.IntN(most-least)) * time.Millisecond
	}
	for at := between(1000, 8000); at < w.plan.length; at += between(5000, 15_000) {
		long := between(500, 6000)
		time.AfterFunc(at, func() { disk.Hang(time.Now().Add(long)) })
	}
}

// hangBeforeFlush lets the syncs of the log hang from some time before the views
// are flushed until after that.
func (w *World) hangBeforeFlush(before time.Duration) {
	disk := w.disk
	time.AfterFunc(flushEvery-before, func() { disk.Hang(time.Now().Add(2 * before)) })
}

// armDeath kills the server at a file operation.
func (w *World) armDeath(d death) {
	n := 0
	var mu sync.Mutex
	w.armed.Store(true)
	w.disk.SetWatch(func(_ int, op errorfs.Op) {
		if d.on != "" && !within(op.Path, d.on) {
			return
		}
		mu.Lock()
		n++
		now := n == d.op
		mu.Unlock()
		if now && w.armed.CompareAndSwap(true, false) {
			w.kill(d)
		}
	})
}

// kill ends the present life at once: nothing that the server does from now on
// reaches anybody.
func (w *World) kill(d death) {
	w.Net.Vanish(serverAddr)
	w.probe.dead.Store(true)
	fs, err := w.disk.Crash(d.percent, rand.New(rand.NewPCG(w.Seed, uint64(1000+len(w.History.lives)))))
	select {
	case w.ended <- ending{d, fs, err}:
	default:
	}
}

// resurrect buries the life that ended and starts the next.
func (w *World) resurrect(end ending) error {
	if end.err != nil {
		return end.err
	}
	w.bury(end)
	w.setClock(0)
	w.asleep.Store(true)
	defer w.asleep.Store(false)
	if end.death.down > time.Minute {
		// Nobody tries for days to reach a server that is not there.
		w.dawn.Store(time.Now().Add(end.death.down).UnixMilli())
	}
	w.begun = w.begun.Add(end.death.down)
	time.Sleep(end.death.down)
	w.logs.note(fmt.Sprintf("--- start after %v, %v down", end.death, end.death.down))
	err := w.start(end.fs, false)
	var clock *commands.ClockError
	late := end.death.down > 7*24*time.Hour
	if errors.As(err, &clock) {
		// A life after a long pause may have ended before its first event.
		late = clock.Wall.Sub(clock.Last) > 7*24*time.Hour
		err = w.start(end.fs, true)
	} else if late && err == nil {
		err = errors.New("it was not asked whether the time is right")
	}
	if errors.As(err, &clock) || clock != nil && !late {
		return fmt.Errorf("start %v after the last life: %w", end.death.down, clock)
	}
	if err != nil {
		return fmt.Errorf("start after %v: %w", end.death, err)
	}
	return w.checkStart(end)
}

// bury lets what is left of a life end on its own disk, where nobody sees it.
func (w *World) bury(end ending) {
	w.life.Cause = end.death.String()
	w.life.finish()
	w.life.Anchored = anchorSize(end.fs)
	w.History.mu.Lock()
	w.History.lives = append(w.History.lives, w.life)
	w.History.mu.Unlock()
	node := w.node
	w.node = nil
	w.disk.Quick()
	if node == nil {
		return // it never came to serve
	}
	w.ghosts.Go(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		node.Shutdown(ctx) // its errors are of no interest: it is dead
	})
}

// stop ends the last life in good order.
func (w *World) stop() error {
	node := w.node
	w.node = nil
	w.disk.Quick()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := node.Shutdown(ctx); err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	return nil
}

// weather changes the network until ctx ends, and then calms it.
func (w *World) weather(ctx context.Context) {
	rng := rand.New(rand.NewPCG(w.Seed, 4))
	defer func() {
		w.Net.SetWeather(Weather{Delay: 2 * time.Millisecond})
		for _, p := range w.People {
			w.Net.Cut(p.addr, false)
		}
	}()
	for {
		if w.plan.storms {
			w.Net.SetWeather(drawWeather(rng))
		} else {
			w.Net.SetWeather(Weather{Delay: 5 * time.Millisecond})
		}
		if w.plan.storms && rng.IntN(3) == 0 {
			p := w.People[rng.IntN(len(w.People))]
			w.Net.Cut(p.addr, rng.IntN(2) == 0)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(200+rng.IntN(6000)) * time.Millisecond):
		}
	}
}

// wallClock is what the server's machine takes for the time of day.
func (w *World) wallClock() time.Time { return time.Now().Add(time.Duration(w.wrong.Load())) }

// stepClock sets the server's wall clock wrong and right again, as planned.
func (w *World) stepClock(ctx context.Context) {
	for _, s := range w.plan.steps {
		for _, change := range []struct{ after, by time.Duration }{{s.after, s.by}, {s.lasts, 0}} {
			select {
			case <-ctx.Done():
				w.setClock(0)
				return
			case <-time.After(change.after):
				w.setClock(change.by)
			}
		}
	}
}

// setClock sets the server's wall clock wrong, or right with 0.
func (w *World) setClock(by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if by != 0 && w.asleep.Load() {
		return
	}
	if was := w.wrong.Swap(int64(by)); was != 0 {
		w.wrongly.finish()
		w.History.addWrongClock(w.wrongly)
	}
	if by != 0 {
		w.wrongly = begin()
		w.logs.note(fmt.Sprintf("--- the wall clock is wrong by %v", by))
	}
}

// settle lets everybody collect their mail in a calm world.
func (w *World) settle() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for _, p := range w.People {
		if p.gone.Load() {
			continue
		}
		if p.client == nil && !p.connect(ctx) {
			return fmt.Errorf("%s can't connect in a calm world", p.name)
		}
		for try := 0; ; try++ {
			var err error
			if p.ready(ctx) {
				err = p.collect(ctx)
			} else {
				err = p.lastError
			}
			if err == nil || client.ReasonOf(err) == pb.Reason_BANNED {
				break // who is banned has nothing to collect
			}
			if try == 20 {
				return fmt.Errorf("%s can't collect mail in a calm world: %w", p.name, err)
			}
			time.Sleep(2 * time.Minute) // default limits may want a pause
		}
	}
	return nil
}

// published and newestKeySet keep what the server accepted.
func (w *World) published(identity Key, version uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keysets[identity] = max(w.keysets[identity], version)
}

func (w *World) newestKeySet(identity Key) (uint32, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	version, ok := w.keysets[identity]
	return version, ok
}

// Counts sums up what happened.
func (w *World) Counts() Counts {
	c := w.History.counts()
	c.Packets, c.Lost, c.Trace = w.Net.Counts()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, fate := range w.fates {
		if fate.done {
			c.KeyEnds++
		}
	}
	return c
}

// journal keeps what the server logged, for a failure's report, and what must
// never be logged in a world whose disk is good.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf("%s %s", time.Now().Format("15:04:05.000"), line))
}

// Enabled implements slog.Handler.
func (j *journal) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// Handle implements slog.Handler.
func (j *journal) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool { fmt.Fprintf(&b, " %s=%v", a.Key, a.Value); return true })
	j.note(b.String())
	return nil
}

// WithAttrs implements slog.Handler.
func (j *journal) WithAttrs([]slog.Attr) slog.Handler { return j }

// WithGroup implements slog.Handler.
func (j *journal) WithGroup(string) slog.Handler { return j }

// has tells whether a line with all parts was logged.
func (j *journal) has(parts ...string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, line := range j.lines {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			return true
		}
	}
	return false
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "\n")
}
