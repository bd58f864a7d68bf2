package pake

import (
	"bytes"
	"errors"
	"testing"
)

// Every message the server or the client takes, cut, grown and made into
// non-points.
func TestMalformedInputs(t *testing.T) {
	w := register(t, InsecureKSF())
	good := w.login(t, w.server, w.record, w.id, password, InsecureKSF())
	parsed, err := w.server.ParseRecord(w.record)
	if err != nil {
		t.Fatal(err)
	}
	_, request, err := StartRegistration(password, InsecureKSF())
	if err != nil {
		t.Fatal(err)
	}
	response, err := w.server.RegistrationResponse(request, w.id)
	if err != nil {
		t.Fatal(err)
	}
	takers := []struct {
		name   string
		good   []byte
		points []int // offsets of group elements
		take   func(b []byte) error
	}{
		{"registration request", request, []int{0}, func(b []byte) error {
			_, err := w.server.RegistrationResponse(b, w.id)
			return err
		}},
		{"registration response", response, []int{0, 32}, func(b []byte) error {
			client, _, err := StartRegistration(password, InsecureKSF())
			if err != nil {
				t.Fatal(err)
			}
			record, export, err := client.Finish(b)
			if err != nil && (record != nil || export != nil) {
				t.Error("results beside an error")
			}
			return err
		}},
		{"record", w.record, []int{0}, func(b []byte) error {
			_, err := w.server.ParseRecord(b)
			return err
		}},
		{"KE1", good.ke1, []int{0, 64}, func(b []byte) error {
			_, _, err := w.server.LoginStart(b, parsed, w.id)
			return err
		}},
		{"KE2", good.ke2, []int{0, 224}, func(b []byte) error {
			client, _, err := StartLogin(password, InsecureKSF())
			if err != nil {
				t.Fatal(err)
			}
			_, _, _, err = client.Finish(b)
			return err
		}},
		{"KE3", good.ke3, nil, func(b []byte) error {
			_, err := w.server.LoginFinish(good.state, b)
			return err
		}},
	}
	for _, taker := range takers {
		inputs := map[string][]byte{
			"nil": nil, "empty": {}, "one byte": {1},
			"short":    taker.good[:len(taker.good)-1],
			"long":     append(bytes.Clone(taker.good), 0),
			"all zero": make([]byte, len(taker.good)),
			"1 MiB":    make([]byte, 1<<20),
		}
		for _, at := range taker.points {
			for name, point := range map[string][]byte{
				"identity": make([]byte, 32), "not canonical": bytes.Repeat([]byte{0xff}, 32), "negative": {0: 1, 31: 0},
			} {
				b := bytes.Clone(taker.good)
				copy(b[at:at+32], point)
				inputs[name] = b
				if err := taker.take(b); !errors.Is(err, ErrMalformed) {
					t.Errorf("%s with a point at %d that is %s: %v", taker.name, at, name, err)
				}
			}
		}
		for name, b := range inputs {
			if err := taker.take(b); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s, %s: %v, want ErrMalformed", taker.name, name, err)
			}
		}
	}
	for _, size := range []int{0, 31, 33} {
		if _, err := w.server.RegistrationResponse(request, make([]byte, size)); !errors.Is(err, ErrMalformed) {
			t.Errorf("registration with a credential identifier of %d bytes: %v", size, err)
		}
		if _, _, err := w.server.LoginStart(good.ke1, parsed, make([]byte, size)); !errors.Is(err, ErrMalformed) {
			t.Errorf("login with a credential identifier of %d bytes: %v", size, err)
		}
	}
}

// The library accepts an empty MAC for an empty expectation.
func TestLoginFinishNeedsARealState(t *testing.T) {
	w := register(t, InsecureKSF())
	good := w.login(t, w.server, w.record, w.id, password, InsecureKSF())
	for name, state := range map[string]*LoginState{"nil": nil, "zero": {}} {
		for _, ke3 := range [][]byte{good.ke3, make([]byte, KE3Size), nil} {
			if key, err := w.server.LoginFinish(state, ke3); err == nil || key != nil {
				t.Errorf("%s state, KE3 %x: %x, %v", name, ke3, key, err)
			}
		}
	}
	for i := range good.ke3 {
		bad := bytes.Clone(good.ke3)
		bad[i] ^= 1
		if _, err := w.server.LoginFinish(good.state, bad); !errors.Is(err, ErrAuthentication) {
			t.Fatalf("KE3 with byte %d changed: %v", i, err)
		}
	}
}
