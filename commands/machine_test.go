package commands_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
)

// machine drives a whole engine and the model beside it, call by call.
type machine struct {
	*world
	oracle *oracle
	model  *serverModel
	disk   *powerFS
	booted uint64 // when the engine started, Unix milliseconds
	looked uint64 // the last time housekeeping came by

	tokens [][]byte          // all that were ever handed out, and some more
	owners map[string]string // whose they are
	last   *request          // for retries
	hybrid map[string][]byte // hybrid keys by name
	// packages are all KeyPackages that were ever made.
	packages []*modelPackage
	cut      *powerCut // what the next call will meet

	answers map[string]int // what was answered, over all sequences
}

// sequences is how many sequences a run tries: 100, or what QPC_SEQUENCES or
// QPC_TEST_SCALE say.
func sequences(t *testing.T) int {
	return runs(t, "QPC_SEQUENCES", map[string]int{"": 100, "race": 5, "nightly": 5_000, "release": 100_000})
}

// TestServerAgainstModel runs random sequences of every mutation and read that
// exists, of retries, pauses from seconds to months, restarts, power cuts in the
// middle of a call, snapshots and dropped views. The model says before each call
// what it will be answered and how many records it makes, and where the log has
// its HEADs. After each step the views equal the model, the log's root is that of a second implementation, and
// an independent fold of the log has the digest of the views.
func TestServerAgainstModel(t *testing.T) {
	counts, answers := map[string]int{}, map[string]int{}
	before := flag.Lookup("rapid.checks").Value.String()
	if err := flag.Set("rapid.checks", fmt.Sprint(sequences(t))); err != nil {
		t.Fatal(err)
	}
	defer flag.Set("rapid.checks", before)
	rapid.Check(t, func(rt *rapid.T) {
		inBubble(t, rt, func(t tester) {
			m := newMachine(t, rt)
			m.answers = answers
			m.join(rt, "alice")
			m.join(rt, "bob")
			m.stockUp(rt, "bob")
			if rapid.IntRange(0, 3).Draw(rt, "alone") > 0 {
				m.gather(rt)
			}
			m.appoint(rt, "alice")
			m.equip(rt)
			rt.Repeat(m.actions(counts))
			m.rebuild()
			m.started(0)
			m.compare(rt)
		})
	})
	t.Logf("steps: %v\nanswers: %v", counts, answers)
	for name := range (&machine{}).actions(nil) {
		if counts[strings.TrimRight(name, "+")] == 0 && sequences(t) >= 100 {
			t.Errorf("no sequence tried %q", name)
		}
	}
}

func newMachine(t tester, rt *rapid.T) *machine {
	disk := newPowerFS(vfs.NewCrashableMem())
	m := &machine{
		world: newWorldOn(t, disk, rapid.IntRange(0, 2).Draw(rt, "quotas") == 2), disk: disk,
		tokens: [][]byte{nil, bytes.Repeat([]byte{7}, commands.TokenSize)},
		owners: map[string]string{}, hybrid: map[string][]byte{},
	}
	m.model, m.oracle = newServerModel(m.quotas), newOracle(m.world)
	m.started(0)
	return m
}

// weights are how much oftener than others a step is tried.
var weights = map[string]int{"enqueue": 5, "batch": 2, "read": 4, "pause": 2, "power cut": 2, "post": 3, "channel update": 2, "upload": 2, "take": 3,
	"link": 3, "unlink": 2, "ban": 3, "report": 2}

// actions are the steps of a sequence. Those that send something can also meet a
// power cut.
func (m *machine) actions(counts map[string]int) map[string]func(*rapid.T) {
	calls := map[string]func(*rapid.T) *request{
		"register":       m.drawRegistration,
		"register again": m.drawRegisterAgain,
		"login":          m.drawLogin,
		"password":       m.drawPassword,
		"keyset":         m.drawKeySet,
		"enqueue":        m.drawEnqueue,
		"batch":          m.drawBatch,
		"read":           m.drawRead,
		"peek":           m.drawPeek,
		"ack":            m.drawAck,
		"lookup":         m.drawLookup,
		"channel":        m.drawCreateChannel,
		"members":        m.drawMembers,
		"channel update": m.drawUpdate,
		"post":           m.drawPost,
		"upload":         m.drawUpload,
		"take":           m.drawFetchPackage,
		"link":           m.drawLink,
		"unlink":         m.drawUnlink,
		"devices":        m.drawDevices,
		"revoke":         m.drawRevoke,
		"hand over":      m.drawHandOver,
		"role":           m.drawRole,
		"ban":            m.drawBan,
		"banned":         m.drawBanned,
		"report":         m.drawReport,
		"verdict":        m.drawVerdict,
		"again":          m.drawAgain,
		"reuse id":       m.drawReuse,
	}
	actions := map[string]func(*rapid.T){
		"":         m.compare,
		"pause":    m.pause,
		"restart":  m.restartStep,
		"snapshot": m.snapshot,
		"rebuild":  func(*rapid.T) { m.rebuild(); m.started(0) },
		"power cut": func(t *rapid.T) {
			name := rapid.SampledFrom(slices.Sorted(maps.Keys(calls))).Draw(t, "call")
			m.cut = drawCut(t)
			m.call(t, calls[name](t))
		},
	}
	for name, draw := range calls {
		actions[name] = func(t *rapid.T) { m.call(t, draw(t)) }
	}
	for name, action := range maps.Clone(actions) {
		counted := func(t *rapid.T) {
			action(t)
			counts[name]++
		}
		for i := range max(1, weights[name]) { // each name is drawn as often
			actions[name+strings.Repeat("+", i)] = counted
		}
	}
	return actions
}

// call sends one request, with or without a power cut, and holds the answer
// against the model's.
func (m *machine) call(t *rapid.T, r *request) {
	if r == nil {
		t.Skip("there is nothing to send")
	}
	now, cut := m.now(), m.cut
	m.cut = nil
	before, used := m.model, m.model
	if cut != nil {
		before, used = m.model.clone(), m.model.clone()
		used.enter(r, now)
		m.disk.arm(cut)
	}
	p := m.model.predict(r, now)
	response, err := m.deliver(r)
	m.settle()
	m.hold(t, r, p, response, err)
	m.last = r
	if cut != nil {
		m.recover(t, cut, before, used, m.model)
	}
}

// hold compares an answer with the prediction.
func (m *machine) hold(t *rapid.T, r *request, p prediction, response proto.Message, err error) {
	method := methodOf(r.Message)
	m.answers[strings.TrimSuffix(fmt.Sprint(method.Name, " ", p.status, " ", p.reason), " REASON_UNSPECIFIED")]++
	if p.status != pb.Status_Ok {
		if refusal := commands.AsRefusal(err); refusal == nil || refusal.Status != p.status || refusal.Reason != p.reason {
			t.Fatalf("%s: %v, %v; the model says %v %v", method, short(response), err, p.status, p.reason)
		}
		return
	}
	if err != nil {
		t.Fatalf("%s: %v; the model says %s", method, err, short(p.answer))
	}
	if p.learn != nil {
		p.learn(response)
	}
	if !proto.Equal(response, p.answer) {
		t.Fatalf("%s: answer %s\nmodel %s", method, short(response), short(p.answer))
	}
	if login, ok := response.(*pb.OpaqueLoginFinishResponse); ok {
		m.tokens = append(m.tokens, login.GetSessionToken())
		m.owners[string(login.GetSessionToken())] = r.Message.(*pb.OpaqueLoginFinishRequest).GetUsername()
	}
}

// join registers a person and logs them in.
func (m *machine) join(t *rapid.T, name string) {
	req, challenge := m.registrationRequest(name, name, name+"/1")
	m.call(t, &request{Message: req, challenge: challenge})
	m.compare(t) // learns the account's id
	m.login(t, name, name+"/1")
}

// login logs a person in with a key.
func (m *machine) login(t *rapid.T, name, key string) {
	a := m.model.accounts[name]
	m.call(t, m.loginRequest(commands.LoginAttempt{
		Username: name, Account: a.id, RecordVersion: a.record, LoginID: [16]byte{7}, TranscriptHash: seedFrom("transcript"),
	}, key))
}

// gather makes a channel of those who have joined the server.
func (m *machine) gather(t *rapid.T) {
	session := func(name string) []byte {
		for _, s := range m.model.sessions {
			if s.account == name {
				return s.token
			}
		}
		return nil
	}
	m.call(t, &request{Message: &pb.CreateChannelRequest{
		SessionToken: session("alice"), RequestId: m.newID(time.Now()), Name: []byte("sealed"), Members: [][]byte{m.public("bob")},
	}})
	m.compare(t)
	if rapid.Bool().Draw(t, "accepts") {
		m.call(t, &request{Message: &pb.UpdateGroupMetadataRequest{
			SessionToken: session("bob"), RequestId: m.newID(time.Now()), ChannelId: m.model.channels[0].id[:],
			Fields: []pb.ChannelField{pb.ChannelField_ACCEPT},
		}})
	}
}

// drawSession is a session token: mostly one that is alive.
func (m *machine) drawSession(t *rapid.T) []byte {
	if len(m.model.sessions) > 0 && rapid.IntRange(0, 9).Draw(t, "any token") > 0 {
		return m.model.sessions[rapid.IntRange(0, len(m.model.sessions)-1).Draw(t, "session")].token
	}
	return rapid.SampledFrom(m.tokens).Draw(t, "token")
}

// personOf is whose token it is or was.
func (m *machine) personOf(token []byte) string {
	if name, known := m.owners[string(token)]; known {
		return name
	}
	return "nobody"
}

func (m *machine) hybridKey(name string) []byte {
	if m.hybrid[name] == nil {
		m.hybrid[name] = hybridKeyFrom(name)
	}
	return m.hybrid[name]
}

// drawRegisterAgain repeats a registration that was decided.
func (m *machine) drawRegisterAgain(t *rapid.T) *request {
	name := rapid.SampledFrom(slices.Sorted(maps.Keys(m.model.accounts))).Draw(t, "name")
	again := m.model.accounts[name].registration
	return &request{Message: again, challenge: commands.Challenge{Username: name, CredentialID: seedFrom(name), KeyVersion: 1}}
}

// drawAgain repeats the last request, maybe from another session.
func (m *machine) drawAgain(t *rapid.T) *request {
	if m.last == nil {
		return nil
	}
	again := *m.last
	if _, is := again.Message.(interface{ GetRequestId() []byte }); is && rapid.Bool().Draw(t, "other session") {
		again.Message = proto.Clone(again.Message)
		setBytes(again.Message, "session_token", m.drawSession(t))
	}
	return &again
}

// drawReuse sends something else under the request_id of the last request.
func (m *machine) drawReuse(t *rapid.T) *request {
	if m.last == nil || m.last.wrong != 0 {
		return nil
	}
	other := *m.last
	other.Message = proto.Clone(other.Message)
	switch req := other.Message.(type) {
	case *pb.EnqueueRequest:
		req.Payload = append(req.GetPayload()[:1:1], "other"...)
	case *pb.BatchEnqueueRequest:
		if len(req.GetChannelId()) > 0 {
			req.Payload = append(req.GetPayload()[:1:1], "other"...)
			break
		}
		req.Items = append(req.GetItems()[:1:1], &pb.BatchEnqueueRequest_Item{
			Recipient: &pb.BatchEnqueueRequest_Item_RecipientKey{RecipientKey: m.public("bob")}, Payload: []byte("other"),
		})
	case *pb.AckRequest:
		req.Seqs = append(req.GetSeqs(), 1)
	default:
		return nil
	}
	return &other
}

// pause lets time pass: housekeeping comes by every ten seconds. Long pauses are
// spent switched off.
func (m *machine) pause(t *rapid.T) {
	d := rapid.SampledFrom([]time.Duration{
		time.Second, 6 * time.Second, 45 * time.Second, 130 * time.Second, 6 * time.Minute,
		50 * time.Minute, 25 * time.Hour, 8 * 24 * time.Hour, 31 * 24 * time.Hour, 181 * 24 * time.Hour,
	}).Draw(t, "pause")
	if d <= 10*time.Minute {
		time.Sleep(d)
	} else {
		m.oracle.close(m.world)
		m.sleep(d) // starts anew 15 s before its end
		m.oracle.open(m.world)
		m.started(15 * aSecond)
	}
	m.settle()
	m.lookAround()
}

// lookAround has the model keep house up to now, and write its HEADs on the clock.
func (m *machine) lookAround() {
	for m.looked+10*aSecond <= m.now() {
		m.looked += 10 * aSecond
		before := m.model.events
		m.model.housekeeping(m.looked)
		if (m.looked-m.booted)%aMinute == 0 {
			m.model.sealBetween(before, m.looked)
		}
	}
}

// started notes that the engine was started some milliseconds ago. It begins with
// a HEAD, and its clocks begin then.
func (m *machine) started(ago uint64) {
	m.booted = m.now() - ago
	m.looked = m.booted
	m.model.seal(m.booted)
}

func (m *machine) restartStep(*rapid.T) {
	m.stop()
	m.check(m.log.Close())
	m.open()
	m.boot()
	m.started(0)
}

func (m *machine) snapshot(*rapid.T) {
	m.check(m.engine.TakeSnapshot(m.t.Context()))
	m.model.events++
}

// recover starts from what the disk held at the moment of the power cut: the log
// must be as before the call, or as after it, or hold the note that the session
// was used and nothing else.
func (m *machine) recover(t *rapid.T, cut *powerCut, states ...*serverModel) {
	m.stop()
	m.check(m.log.Close())
	m.disk = newPowerFS(m.disk.after(cut))
	m.fs = m.disk
	m.open()
	m.boot()
	survived := m.log.Size() - 1 // without the HEAD of this start
	for _, state := range states {
		if state.events == survived {
			m.model = state
			m.started(0)
			m.oracle.forget(m.world)
			return
		}
	}
	t.Fatalf("%d records survived, %d were there before the call and %d after it", survived, states[0].events, states[len(states)-1].events)
}

func drawCut(t *rapid.T) *powerCut {
	return &powerCut{
		after:   rapid.IntRange(1, 12).Draw(t, "operations"),
		percent: rapid.SampledFrom([]int{0, 10, 50, 90}).Draw(t, "survives"),
		seed:    rapid.Uint64().Draw(t, "seed"),
	}
}
