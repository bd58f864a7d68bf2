package kt

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "quicprochat/proto/qpcv1"
)

// scaled picks a number by QPC_TEST_SCALE.
func scaled(few, nightly, release int) int {
	switch os.Getenv("QPC_TEST_SCALE") {
	case "nightly":
		return nightly
	case "release":
		return release
	case "race":
		return few / 20
	}
	return few
}

// answered is a question with its right answer.
type answered struct {
	name  string
	state State
	q     *Question
	p     *pb.KeyProof
	nowMS uint64
}

// answeredQuestions are of every kind: at first contact, later, about versions
// that are known, about names and keys that nobody has.
func answeredQuestions(t testing.TB) (v *Verifier, all []answered, others []*pb.KeyProof) {
	t.Helper()
	l := newTestLog(t)
	l.head()
	alice := l.register("alice", 10)
	l.register("bob", 20)
	l.head()
	v = testVerifier()
	v.Policy = must(ParsePolicy(1, testWitnesses(t)[:1]))
	before := new(State)
	known := mustAsk(t, l, v, before, Query{Username: "alice"}).Person.Known()
	older := l.size()
	alice.publish()
	l.revoke(public(testKey(12)), pb.Authority_IDENTITY, alice.identity)
	l.rotate(3, 1)
	l.opaque(20)
	l.head()
	l.opaque(3)
	l.head()
	newest := new(State)
	// A replayed head, a minute older, is stale.
	v.Freshness = 30 * time.Second
	mustAsk(t, l, v, newest, Query{})
	for _, c := range []struct {
		name  string
		state State
		query Query
		size  uint64
	}{
		{"a revocation", *before, Query{RevokedKey: public(testKey(12)), Owner: alice.key()}, l.size()},
		{"no revocation", *before, Query{RevokedKey: alice.key()}, l.size()},
		{"nobody", *before, Query{Username: "carol"}, l.size()},
		{"first contact", State{}, Query{RevokedKey: alice.key()}, l.size()},
		{"an older cosigned head", *newest, Query{RevokedKey: alice.key(), Cosigned: true}, older},
		{"a known person", *before, Query{Username: "alice", Known: known}, l.size()},
		{"an identity", *before, Query{IdentityKey: alice.key()}, l.size()},
		{"a person at first contact", State{}, Query{Username: "alice", Cosigned: true}, l.size()},
	} {
		q := c.state.Ask(c.query)
		p := l.answer(q, c.size)
		if c.query.Cosigned {
			p.Head.Note = append(p.Head.Note, must(Cosign(p.Head.Note, "w1", testKey(5), 1))...)
		}
		all = append(all, answered{c.name, c.state, q, p, must(ParseLeaf(p.Head.HeadLeaf)).Head.TimeMS})
	}
	for _, query := range []Query{{Username: "alice"}, {Username: "bob"}, {RevokedKey: alice.key()}} {
		for _, index := range l.heads {
			q := new(State).Ask(query)
			others = append(others, l.answer(q, index+1))
		}
	}
	return v, all, others
}

// TestNoMutantIsAccepted changes one thing in a right answer, again and again.
// What is not checked, because nothing proves it, is VersionProof.index. Most
// answers are of one label, so that a mutant costs two signatures at most; what
// ends them is counted, and every check that a change of bytes can reach must end
// some.
func TestNoMutantIsAccepted(t *testing.T) {
	v, all, others := answeredQuestions(t)
	n := scaled(100_000, 1_000_000, 1_000_000)
	workers := runtime.GOMAXPROCS(0)
	ended := make([]map[string]int, workers)
	t.Run("mutants", func(t *testing.T) {
		for worker := range workers {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				ended[worker] = map[string]int{}
				for i := worker; i < n; i += workers {
					random := rand.New(rand.NewPCG(uint64(n), uint64(i)))
					how, text := tryMutant(random, v, all, others)
					if text != "" {
						t.Fatalf("mutant %d: %s", i, text)
					}
					ended[worker][how]++
				}
			})
		}
	})
	sum := map[string]int{}
	for _, counts := range ended {
		for how, count := range counts {
			sum[how] += count
		}
	}
	t.Logf("%d mutants: %v", n, sum)
	for _, how := range []string{"note", "malformed", "config", "head", "consistency", "heads", "commitment", "map", "vrf"} {
		if sum[how] < n/1000 {
			t.Errorf("%d of %d mutants ended by %s", sum[how], n, how)
		}
	}
	for _, a := range all {
		state := a.state
		if _, err := v.Verify(&state, a.q, a.p, a.nowMS); err != nil {
			t.Errorf("%s: the right answer: %v", a.name, err)
		}
		for _, other := range others {
			state := a.state
			swapped := proto.Clone(a.p).(*pb.KeyProof)
			swapped.Histories, swapped.Map = other.Histories, other.Map
			if _, err := v.Verify(&state, a.q, swapped, a.nowMS); err == nil && !proto.Equal(swapped, a.p) {
				t.Errorf("%s: the answer to another question passed", a.name)
			}
			swapped = proto.Clone(a.p).(*pb.KeyProof)
			if swapped.Head = other.Head; proto.Equal(swapped, a.p) {
				continue
			}
			if _, err := v.Verify(&state, a.q, swapped, a.nowMS); err == nil {
				t.Errorf("%s: under another head it passed", a.name)
			}
		}
	}
}

// tryMutant makes one mutant and says what ended it, or what is wrong if nothing
// did.
func tryMutant(random *rand.Rand, v *Verifier, all []answered, others []*pb.KeyProof) (how, wrong string) {
	a := all[random.IntN(len(all))]
	if random.IntN(12) > 0 { // of one label, each of which costs a signature
		a = all[random.IntN(5)]
	}
	mutant := proto.Clone(a.p).(*pb.KeyProof)
	what := ""
	for what == "" || proto.Equal(mutant, a.p) {
		// A copy: what the mutant takes from it, it may change later.
		other := proto.Clone(others[random.IntN(len(others))]).(*pb.KeyProof)
		what = mutate(random, mutant, other)
	}
	state := a.state
	_, err := v.Verify(&state, a.q, mutant, a.nowMS)
	if err == nil {
		return "", fmt.Sprintf("a mutant of %s passed: %s\n%v", a.name, what, mutant)
	}
	return checkOf(err), ""
}

// checkOf names the check that an error of Verify is from.
func checkOf(err error) string {
	var e *EvidenceError
	if errors.As(err, &e) {
		return string(e.Step)
	}
	for name, kind := range map[string]error{
		"note": ErrNote, "malformed": ErrMalformed, "older": ErrOlder, "incomplete": ErrIncomplete, "stale": ErrStale,
		"policy": ErrPolicy, "format": ErrFormat, "log key": ErrLogKey,
	} {
		if errors.Is(err, kind) {
			return name
		}
	}
	return err.Error()
}

// place is one field of one message of a proof.
type place struct {
	message protoreflect.Message
	field   protoreflect.FieldDescriptor
}

// places lists all fields that are set, and those that could be.
func places(m protoreflect.Message, found []place) []place {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.Name() == "index" && m.Descriptor().Name() == "VersionProof" {
			continue
		}
		found = append(found, place{m, field})
		switch {
		case !m.Has(field) || field.Message() == nil:
		case field.IsList():
			for j := range m.Get(field).List().Len() {
				found = places(m.Get(field).List().Get(j).Message(), found)
			}
		default:
			found = places(m.Get(field).Message(), found)
		}
	}
	return found
}

// mutate changes one field of p, perhaps to what other has there, and says which.
func mutate(random *rand.Rand, p, other *pb.KeyProof) string {
	all := places(p.ProtoReflect(), nil)
	at := all[random.IntN(len(all))]
	from := at.message
	for _, same := range places(other.ProtoReflect(), nil) {
		if same.field == at.field && same.message.Has(same.field) && random.IntN(3) == 0 {
			from = same.message
			break
		}
	}
	what := string(at.field.FullName())
	switch {
	case at.field.IsList():
		mutateList(random, at, from)
	case at.field.Message() != nil:
		if from != at.message {
			at.message.Set(at.field, from.Get(at.field))
		} else {
			at.message.Clear(at.field)
		}
	case at.field.Kind() == protoreflect.BytesKind:
		at.message.Set(at.field, protoreflect.ValueOfBytes(mutateBytes(random, at.message.Get(at.field).Bytes(), from.Get(at.field).Bytes())))
	case at.field.Kind() == protoreflect.EnumKind:
		at.message.Set(at.field, protoreflect.ValueOfEnum(protoreflect.EnumNumber(random.IntN(4))))
	case at.field.Kind() == protoreflect.Uint32Kind:
		at.message.Set(at.field, protoreflect.ValueOfUint32(uint32(at.message.Get(at.field).Uint())^1<<random.IntN(32)))
	default:
		at.message.Set(at.field, protoreflect.ValueOfUint64(at.message.Get(at.field).Uint()^1<<random.IntN(64)))
	}
	return what
}

func mutateBytes(random *rand.Rand, b, other []byte) []byte {
	b = bytes.Clone(b)
	switch random.IntN(8) {
	case 0:
		return other
	case 1:
		return b[:random.IntN(len(b)+1)]
	case 2:
		return append(b, byte(random.Uint32()))
	case 3:
		return slices.Insert(b, random.IntN(len(b)+1), byte(random.Uint32()))
	}
	if len(b) > 0 {
		b[random.IntN(len(b))] ^= 1 << random.IntN(8)
	}
	return b
}

// mutateList drops, repeats, swaps, replaces or changes an element.
func mutateList(random *rand.Rand, at place, from protoreflect.Message) {
	list := at.message.Mutable(at.field).List()
	n := list.Len()
	var values []protoreflect.Value
	for i := range n {
		values = append(values, list.Get(i))
	}
	list.Truncate(0)
	switch change := random.IntN(5); {
	case n == 0:
		if theirs := from.Get(at.field).List(); theirs.Len() > 0 {
			values = append(values, theirs.Get(0))
		} else if at.field.Message() == nil {
			values = append(values, protoreflect.ValueOfBytes(make([]byte, 32)))
		} else {
			values = append(values, list.NewElement())
		}
	case change == 0:
		i := random.IntN(n)
		values = slices.Delete(values, i, i+1)
	case change == 1:
		i := random.IntN(n)
		values = slices.Insert(values, i, values[i])
	case change == 2:
		i, j := random.IntN(n), random.IntN(n)
		values[i], values[j] = values[j], values[i]
	case at.field.Message() == nil:
		i := random.IntN(n)
		values[i] = protoreflect.ValueOfBytes(mutateBytes(random, values[i].Bytes(), values[random.IntN(n)].Bytes()))
	case from.Get(at.field).List().Len() > 0:
		theirs := from.Get(at.field).List()
		values[random.IntN(n)] = theirs.Get(random.IntN(theirs.Len()))
	}
	for _, value := range values {
		list.Append(value)
	}
}
