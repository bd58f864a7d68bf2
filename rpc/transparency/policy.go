package transparency

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"quicprochat/kt"
)

// Witness is one witness that the server submits its checkpoints to.
type Witness struct {
	// URL is the submission prefix, without a slash at its end.
	URL string
	// Key checks its cosignatures.
	Key *kt.Witness
}

// WitnessPolicy is whom the server asks for cosignatures, and how many make a
// note count as cosigned.
type WitnessPolicy struct {
	Witnesses []Witness
	// Quorum is how many of them, 1 to len(Witnesses).
	Quorum int
}

// maxWitnesses keeps a note with all cosignatures within what clients read.
const maxWitnesses = 32

// ParseWitnessPolicy reads the file of --witness. Each line is a witness, its
// URL and its verifier key, or the word quorum and a number; # begins a comment:
//
//	https://witness.example.net/log  witness.example.net+0a1b2c3d+BAab…
//	https://other.example.org        other.example.org/w+99887766+BCde…
//	quorum 1
//
// Without a quorum more than half of the witnesses make one.
func ParseWitnessPolicy(text string) (WitnessPolicy, error) {
	var p WitnessPolicy
	number := 0
	for line := range strings.Lines(text) {
		number++
		content, _, _ := strings.Cut(line, "#")
		fields := strings.Fields(content)
		if len(fields) == 0 {
			continue
		}
		if err := p.add(fields); err != nil {
			return WitnessPolicy{}, fmt.Errorf("line %d: %w", number, err)
		}
	}
	switch n := len(p.Witnesses); {
	case n == 0:
		return WitnessPolicy{}, errors.New("no witness in it: write one a line, its URL and its verifier key")
	case n > maxWitnesses:
		return WitnessPolicy{}, fmt.Errorf("%d witnesses, at most %d are asked", n, maxWitnesses)
	case p.Quorum == 0:
		p.Quorum = n/2 + 1
	case p.Quorum > n:
		return WitnessPolicy{}, fmt.Errorf("a quorum of %d out of %d witnesses", p.Quorum, n)
	}
	return p, nil
}

func (p *WitnessPolicy) add(fields []string) error {
	if len(fields) != 2 {
		return errors.New("want URL and verifier key, or quorum and a number")
	}
	if fields[0] == "quorum" {
		n, err := strconv.ParseUint(fields[1], 10, 8)
		if err != nil || n == 0 || p.Quorum != 0 {
			return fmt.Errorf("quorum %q: give one number from 1 on", fields[1])
		}
		p.Quorum = int(n)
		return nil
	}
	u, err := url.Parse(fields[0])
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q is no submission URL (https://host/prefix)", fields[0])
	}
	key, err := kt.ParseWitness(fields[1])
	if err != nil {
		return err
	}
	for _, other := range p.Witnesses {
		if other.Key.Name() == key.Name() || other.Key.String() == key.String() {
			return fmt.Errorf("witness %s stands there twice", key.Name())
		}
	}
	p.Witnesses = append(p.Witnesses, Witness{URL: strings.TrimRight(fields[0], "/"), Key: key})
	return nil
}
