package commands_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/sim"
)

// keyPackage makes the KeyPackage DEVICE:NAME[:WORD…] when it is first named. The
// words spoil or change it: a number is its cipher suite, "last" makes it a last
// resort, "for=1h" says how long it lives, "message" puts it into an MLSMessage;
// the others are in keyPackageFaults.
func (w *world) keyPackage(text string) []byte {
	for value, name := range w.names {
		if name == "kp:"+text {
			return []byte(value)
		}
	}
	parts := strings.Split(text, ":")
	device, message, cut := parts[0], false, 0
	p := sim.NewKeyPackage(w.public(device), 1, parts[1], time.Now())
	for _, word := range parts[2:] {
		n, err := strconv.Atoi(word)
		life, lives := strings.CutPrefix(word, "for=")
		switch {
		case err == nil:
			p.Suite, p.Suites = uint16(n), []uint16{uint16(n)}
		case lives:
			d, err := time.ParseDuration(life)
			w.check(err)
			p.NotAfter = uint64(time.Now().Add(d).Unix())
		case word == "last":
			p.Extensions = append(p.Extensions, sim.LastResort)
		case word == "message":
			message = true
		case word == "cut":
			cut = 1
		case keyPackageFaults[word] != nil:
			keyPackageFaults[word](p)
		default:
			w.t.Fatalf("%q: nothing is known of %q", text, word)
		}
	}
	data := p.Sign(w.key(device))
	sum := sha256.Sum256(data)
	w.names[string(sum[:])] = "sha256(" + text + ")"
	w.names[string(data)] = "kp:" + text
	if message {
		w.names[string(data)] = "kp:" + text + " bare"
		data = append([]byte{0, 1, 0, 5}, data...)
		w.names[string(data)] = "kp:" + text
	}
	return data[:len(data)-cut]
}

var keyPackageFaults = map[string]func(*sim.KeyPackage){
	"samekeys":  func(p *sim.KeyPackage) { p.EncryptionKey = p.InitKey },
	"update":    func(p *sim.KeyPackage) { p.Source = 2 },
	"mls11":     func(p *sim.KeyPackage) { p.Version = 2 },
	"unsigned":  func(p *sim.KeyPackage) { p.SignatureKey = make([]byte, 32) },
	"unlisted":  func(p *sim.KeyPackage) { p.LeafExtensions = []sim.Extension{{Type: 77}} },
	"notbefore": func(p *sim.KeyPackage) { p.NotBefore = uint64(time.Now().Add(time.Second).Unix()) },
	"large":     func(p *sim.KeyPackage) { p.Credential = make([]byte, 16<<10) },
}

// fetchKeyPackage does what the server does for method 301. What the limiters say
// is the world's to choose.
func (w *world) fetchKeyPackage(ctx context.Context, rule *pb.Rule, view *commands.View, req *pb.FetchKeyPackageRequest) (proto.Message, error) {
	command, err := commands.NewFetchKeyPackage(rule, req, w.budget)
	if err != nil {
		return nil, err
	}
	response, err := w.engine.Do(ctx, command)
	if err != nil {
		return nil, err
	}
	resp := response.(*pb.FetchKeyPackageResponse)
	owner, found, err := commands.KeyPackageOwner(view, req.GetIdentityKey())
	if err == nil && !found && len(resp.GetPackages()) > 0 {
		w.t.Errorf("packages of nobody")
	}
	w.check(err)
	return orNil(resp, commands.FillKeyPackages(w.engine.Payload, owner, resp))
}

// spend has the limiters say that nothing more may be used up, or with "off" that
// it may.
func (w *world) spend(what string, _ *arguments) []string {
	w.budget = commands.Budget{}
	if what != "off" {
		w.budget = commands.Budget{Spent: true, RetryAfterMS: 600_000}
	}
	return nil
}

// packages prints what a device has of KeyPackages, as the published view says.
func (w *world) packages(device string) []string {
	view := w.view()
	defer view.Release()
	key := projections.Key(w.public(device))
	stocks, err := projections.KeyPackageStocks(view.Reader, key)
	w.check(err)
	var lines []string
	for i := range stocks {
		s := &stocks[i]
		n, err := projections.CountKeyPackages(view.Reader, key, s, w.now(), 1<<20)
		w.check(err)
		line := fmt.Sprintf("suite=%d next=%d valid=%d", s.Suite, s.Next, n)
		if oldest, found, err := projections.OldestKeyPackage(view.Reader, key, s, w.now()); found {
			w.check(err)
			line += fmt.Sprintf(" oldest=%d %s", oldest.Number, w.call("p", oldest.ID[:]))
		}
		if s.Last.ValidAt(w.now()) {
			line += " last=" + w.call("p", s.Last.ID[:])
		}
		lines = append(lines, line)
	}
	return append(lines, fmt.Sprintf("payloads=%d", w.countPayloads(view.Reader, device)))
}

// countPayloads counts which of the packages seen so far have their bytes.
func (w *world) countPayloads(r projections.Reader, device string) (n int) {
	found, _, err := projections.KeyOwner(r, projections.Key(w.public(device)))
	w.check(err)
	for value, name := range w.names {
		if number, is := strings.CutPrefix(name, "p"); is && len(value) == 16 {
			if _, err := strconv.Atoi(number); err != nil {
				continue
			}
			_, there, err := w.engine.Payload(found.AccountID, projections.ID([]byte(value)))
			w.check(err)
			if there {
				n++
			}
		}
	}
	return n
}
