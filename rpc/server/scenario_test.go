package server_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata/*.txt")

// TestScenarios plays testdata/*.txt against a node. A file is a conversation
// in blocks: commands, a line "----", and what they answered, one line each.
//
//	join NAME                    register and log in; $NAME is the token
//	call CONNECTION METHOD JSON  one request; a connection is opened at its first use
//	frame CONNECTION HEX         bytes on a stream of their own, then FIN
//	suspend, resume              as before the engine has caught up
//	stop                         graceful shutdown
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := &scenario{world: boot(t, nil), conns: make(map[string]*conn), tokens: make(map[string]string)}
			got := s.play(string(content))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(content) {
				t.Errorf("%s went otherwise (-update rewrites it); now:\n%s", file, got)
			}
		})
	}
}

type scenario struct {
	*world
	conns  map[string]*conn
	tokens map[string]string
	resume func()
}

// play runs a file and returns it with the answers of this run.
func (s *scenario) play(content string) string {
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimRight(content, "\n"), "\n\n") {
		if i > 0 {
			out.WriteString("\n")
		}
		commands, _, _ := strings.Cut(block, "\n----")
		out.WriteString(commands + "\n")
		var answers []string
		for line := range strings.Lines(commands) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				answers = append(answers, s.command(line))
			}
		}
		if len(answers) > 0 {
			out.WriteString("----\n" + strings.Join(answers, "\n") + "\n")
		}
	}
	return out.String()
}

func (s *scenario) command(line string) string {
	s.t.Helper()
	words := strings.SplitN(line, " ", 4)
	switch words[0] {
	case "join":
		p, c := s.join(words[1])
		s.tokens["$"+p.name] = base64.StdEncoding.EncodeToString(p.token)
		s.conns[p.name] = c
	case "suspend":
		s.resume = s.node.Suspend()
	case "resume":
		s.resume()
	case "stop":
		s.stop()
	case "call":
		return s.call(s.connection(words[1]), words[2], words[3])
	case "frame":
		frame, err := hex.DecodeString(strings.ReplaceAll(strings.Join(words[2:], ""), " ", ""))
		if err != nil {
			s.t.Fatalf("%s: %v", line, err)
		}
		return answerText(s.connection(words[1]).raw(frame))
	default:
		s.t.Fatalf("no command: %s", line)
	}
	return "ok"
}

func (s *scenario) connection(name string) *conn {
	if s.conns[name] == nil {
		s.conns[name] = s.dial()
	}
	return s.conns[name]
}

func (s *scenario) call(c *conn, name, text string) string {
	s.t.Helper()
	m, ok := rpc.MethodByName(name)
	if !ok {
		s.t.Fatalf("no method %s", name)
	}
	for token, value := range s.tokens {
		text = strings.ReplaceAll(text, token, value)
	}
	req := m.NewRequest()
	if err := protojson.Unmarshal([]byte(text), req); err != nil {
		s.t.Fatalf("%s: %v", text, err)
	}
	body, err := proto.Marshal(req)
	if err != nil {
		s.t.Fatal(err)
	}
	stream, err := c.OpenStreamSync(testContext(s.t))
	if err != nil {
		return answerText(reply{}, err)
	}
	stream.Write(rpc.AppendRequest(nil, m.ID, 1, body))
	stream.Close()
	r, err := c.answer(stream)
	if err != nil || r.status != pb.Status_Ok {
		return answerText(r, err)
	}
	resp := m.NewResponse()
	if err := proto.Unmarshal(r.body, resp); err != nil {
		s.t.Fatal(err)
	}
	return "Ok " + stable(resp)
}

// answerText is an answer in one line.
func answerText(r reply, err error) string {
	var reset *quic.StreamError
	var closed *quic.ApplicationError
	switch {
	case errors.As(err, &reset):
		return fmt.Sprintf("stream reset, code %d", reset.ErrorCode)
	case errors.As(err, &closed):
		return fmt.Sprintf("connection closed, code %d", closed.ErrorCode)
	case err != nil:
		return err.Error()
	case r.status != pb.Status_Ok:
		return r.status.String() + " " + stable(r.detail)
	}
	return fmt.Sprintf("Ok req_id=%d", r.id)
}

// stable is a message as JSON without what differs from run to run.
func stable(m proto.Message) string {
	fields := m.ProtoReflect().Descriptor().Fields()
	for _, name := range []string{"server_time_ms", "uptime_ms", "error_id", "checkpoint_size"} {
		if fd := fields.ByTextName(name); fd != nil {
			m.ProtoReflect().Clear(fd)
		}
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return err.Error()
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil { // protojson varies its spaces
		return err.Error()
	}
	return compact.String()
}
