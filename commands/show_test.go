package commands_test

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"quicprochat/commands"
	"quicprochat/kt"
	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// answer prints what a request got, and the events that it put into the log.
func (w *world) answer(response proto.Message, err error) []string {
	if err == nil {
		line := "Ok"
		if response != nil {
			line += w.fields(response.ProtoReflect())
		}
		return append([]string{line}, w.events()...)
	}
	refusal := commands.AsRefusal(err)
	if refusal == nil {
		return append([]string{"internal error: " + err.Error()}, w.events()...)
	}
	if refusal.Message == "" || strings.ContainsAny(refusal.Message, "\n\x00") {
		w.t.Errorf("a refusal without a sentence for a person: %+v", refusal)
	}
	line := fmt.Sprintf("%s %s", refusal.Status, refusal.Reason)
	if refusal.Limit > 0 {
		line += fmt.Sprintf(" limit=%d", refusal.Limit)
	}
	if refusal.RetryAfterMS > 0 {
		line += fmt.Sprintf(" retry_after=%s", time.Duration(refusal.RetryAfterMS)*time.Millisecond)
	}
	return append([]string{line}, w.events()...)
}

// events prints the records that the log got since the last call.
func (w *world) events() []string {
	w.settle() // what was sent without waiting for an answer is decided, too
	var lines []string
	size := w.log.Size()
	w.check(w.log.Iterate(w.shown, size, func(index uint64, r log.Record) error {
		event, err := projections.DecodeEvent(r.Event)
		if err != nil {
			return fmt.Errorf("record %d: %w", index, err)
		}
		if line := w.event(event); line != "" {
			lines = append(lines, "  "+line)
		}
		return nil
	}))
	w.shown = size
	return shorten(lines)
}

// event prints one event; of HEADs only those that sum up new key events, since
// the others come by the clock.
func (w *world) event(event *pb.Event) string {
	if sealed := event.GetHeadSealed(); sealed != nil {
		leaf, err := kt.ParseLeaf(append([]byte{byte(kt.ClassHead)}, sealed.GetHead()...))
		w.check(err)
		if leaf.Head.KTCount == w.keyEvents {
			return ""
		}
		w.keyEvents = leaf.Head.KTCount
		return fmt.Sprintf("HeadSealed kt_count=%d", leaf.Head.KTCount)
	}
	m := event.ProtoReflect()
	body := m.WhichOneof(m.Descriptor().Oneofs().ByName("body"))
	w.learn(event)
	line := string(body.Message().Name()) + w.fields(m.Get(body).Message())
	if receipt := event.GetReceipt(); receipt != nil {
		line += fmt.Sprintf(" receipt=%s/%d/%s", w.names[string(receipt.GetCaller())], receipt.GetMethod(), w.names[string(receipt.GetRequestId())])
	}
	if event.GetTimeMs() != w.now() {
		line += " time_ms=" + w.moment(event.GetTimeMs())
	}
	return line
}

// learn gives names to what an event introduces.
func (w *world) learn(event *pb.Event) {
	if registered := event.GetAccountRegistered(); registered != nil {
		w.names[string(registered.GetAccountId())] = "account(" + registered.GetUsername() + ")"
	}
}

// fields prints the set fields of a message, in their order.
func (w *world) fields(m protoreflect.Message) string {
	var out strings.Builder
	descriptors := m.Descriptor().Fields()
	for i := range descriptors.Len() {
		field := descriptors.Get(i)
		if !m.Has(field) {
			continue
		}
		value := m.Get(field)
		if !field.IsList() {
			fmt.Fprintf(&out, " %s=%s", field.Name(), w.value(field, value))
			continue
		}
		var items []string
		for j := range value.List().Len() {
			items = append(items, w.value(field, value.List().Get(j)))
		}
		fmt.Fprintf(&out, " %s=[%s]", field.Name(), strings.Join(shorten(items), " "))
	}
	return out.String()
}

// shorten keeps the two ends of a long list.
func shorten(items []string) []string {
	if len(items) <= 12 {
		return items
	}
	middle := fmt.Sprintf("  … %d more …", len(items)-4)
	return append(append(items[:2:2], middle), items[len(items)-2:]...)
}

func (w *world) value(field protoreflect.FieldDescriptor, value protoreflect.Value) string {
	name := string(field.Name())
	switch {
	case field.Message() != nil:
		return "{" + strings.TrimPrefix(w.fields(value.Message()), " ") + "}"
	case field.Kind() == protoreflect.BytesKind:
		return w.bytes(name, value.Bytes())
	case field.Kind() == protoreflect.StringKind:
		return strconv.Quote(value.String())
	case field.Enum() != nil:
		return string(field.Enum().Values().ByNumber(value.Enum()).Name())
	case name == "idle_timeout_ms", name == "retry_after_ms":
		return (time.Duration(value.Uint()) * time.Millisecond).String()
	case strings.HasSuffix(name, "_ms"):
		return w.moment(value.Uint())
	}
	return fmt.Sprint(value.Interface())
}

func (w *world) bytes(field string, value []byte) string {
	if name, known := w.names[string(value)]; known {
		return name
	}
	switch field {
	case "message_id":
		return w.call("m", value)
	case "report_id":
		return w.call("report", value)
	case "reset_token":
		return w.call("token", value)
	case "channel_id":
		return w.call("ch", value)
	case "package_id":
		return w.call("p", value)
	}
	printable := len(value) <= 40
	for _, b := range value {
		printable = printable && b < 0x80 && unicode.IsPrint(rune(b))
	}
	if printable {
		return strconv.Quote(string(value))
	}
	return fmt.Sprintf("<%d bytes>", len(value))
}

// moment prints a time by its distance from the start of the world.
func (w *world) moment(ms uint64) string {
	d := time.UnixMilli(int64(ms)).Sub(w.start)
	if day := 24 * time.Hour; d >= day && d%time.Second == 0 {
		return fmt.Sprintf("+%dd%s", d/day, d%day)
	}
	return "+" + d.String()
}

// queue prints a device's queue as the published view has it.
func (w *world) queue(device string) []string {
	view := w.view()
	defer view.Release()
	key := projections.Key(w.public(device))
	state, found, err := projections.Queue(view.Reader, key)
	w.check(err)
	if !found {
		return []string{"no queue"}
	}
	line := fmt.Sprintf("next=%d cursor=%d count=%d bytes=%d", state.NextSeq, state.Cursor, state.Count, state.Bytes)
	if state.DrainedCount > 0 {
		line += fmt.Sprintf(" drained=%d", state.DrainedCount)
	}
	if state.GapCount > 0 {
		line += fmt.Sprintf(" gap=%d up_to=%d", state.GapCount, state.GapUpTo)
	}
	items, _, err := projections.QueueItems(view.Reader, key, 1, 1<<20, 1<<40)
	w.check(err)
	lines := make([]string, len(items))
	payloads := 0
	for i, item := range items {
		lines[i] = fmt.Sprintf("  %d %s from=%s size=%d expires=%s", item.Seq, w.call("m", item.MessageID[:]),
			w.names[string(item.Sender[:])], item.Size, w.moment(item.ExpiresMS))
		if item.Drained {
			lines[i] += " drained"
		}
		_, there, err := view.Payload(item.Owner, item.MessageID)
		w.check(err)
		if there {
			payloads++
		}
	}
	if payloads != len(items) {
		line += fmt.Sprintf(" payloads=%d", payloads)
	}
	return append([]string{line}, shorten(lines)...)
}

// person prints an account with its devices, record and sessions.
func (w *world) person(name string) []string {
	view := w.view()
	defer view.Release()
	account, found, err := projections.AccountByName(view.Reader, name)
	w.check(err)
	if !found {
		return []string{"no account"}
	}
	record, _, err := projections.OpaqueRecord(view.Reader, account.ID)
	w.check(err)
	keySet, _, err := projections.KeySet(view.Reader, account.IdentityKey)
	w.check(err)
	sessions, err := projections.SessionsOf(view.Reader, account.ID)
	w.check(err)
	var devices, live []string
	for _, device := range account.Devices {
		devices = append(devices, w.bytes("", device[:]))
	}
	for _, session := range sessions {
		live = append(live, w.bytes("", session.TokenHash[:]))
	}
	return []string{fmt.Sprintf("identity=%s devices=%v record=%d keyset=%d kem=%#x sessions=%d%v",
		w.bytes("", account.IdentityKey[:]), devices, record.GetVersion(), keySet.GetVersion(), keySet.GetKemId(), len(live), sorted(live))}
}

// showPassed prints the passing messages since the last look: to whom, and what.
func (w *world) showPassed(string, *arguments) []string {
	var lines []string
	for _, p := range w.passed {
		var devices []string
		for _, device := range p.Devices {
			devices = append(devices, w.bytes("", device[:]))
		}
		lines = append(lines, fmt.Sprintf("to %v%s", sorted(devices), w.fields(p.Push.ProtoReflect())))
	}
	w.passed = nil
	return lines
}
