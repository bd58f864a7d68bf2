package kt

import (
	"fmt"
	"strconv"
	"strings"
)

// FirstGeneration is the N of a new log's origin server_name/N. It rises only
// when an operator goes on after a loss of the log's end.
const FirstGeneration uint32 = 1

const (
	maxServerNameSize = 253
	maxOriginSize     = maxServerNameSize + 1 + 10
)

// Origin is the log's name, the first line of its checkpoints (C2SP
// tlog-checkpoint): server_name/N.
func Origin(serverName string, generation uint32) string {
	return serverName + "/" + strconv.FormatUint(uint64(generation), 10)
}

// ParseOrigin splits an origin. It accepts only what Origin makes of a valid
// server name and a generation of at least FirstGeneration.
func ParseOrigin(origin string) (serverName string, generation uint32, err error) {
	name, n, ok := strings.Cut(origin, "/")
	if !ok {
		return "", 0, fmt.Errorf("origin %q is not server_name/N", origin)
	}
	if err := ValidateServerName(name); err != nil {
		return "", 0, err
	}
	g, err := strconv.ParseUint(n, 10, 32)
	if err != nil || uint32(g) < FirstGeneration || strconv.FormatUint(g, 10) != n {
		return "", 0, fmt.Errorf("origin %q has no generation number", origin)
	}
	return name, uint32(g), nil
}

// ValidateServerName checks a server name, which stands in every signed
// statement and therefore has exactly one spelling: a host name (RFC 1123
// section 2.1) in lower case, without a trailing dot, at most 253 bytes; names
// in other scripts in their A-label form. An IP address is no name.
func ValidateServerName(name string) error {
	if name == "" || len(name) > maxServerNameSize {
		return fmt.Errorf("server name of %d bytes, want 1 to %d", len(name), maxServerNameSize)
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if !validDNSLabel(label) {
			return fmt.Errorf("server name %q is not a lower-case host name", name)
		}
		last = label
	}
	// As browsers decide it: a last label of digits only means an IPv4 address.
	if strings.Trim(last, "0123456789") == "" {
		return fmt.Errorf("server name %q is an address, not a name", name)
	}
	return nil
}

func validDNSLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		c := label[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
