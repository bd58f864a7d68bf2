package server

import (
	"errors"
	"net"
	"testing"
)

func udp(ip string) net.Addr { return &net.UDPAddr{IP: net.ParseIP(ip), Port: 1} }

func TestPrefixOf(t *testing.T) {
	for ip, want := range map[string]string{
		"192.0.2.7":          "192.0.2.0/24",
		"192.0.2.250":        "192.0.2.0/24",
		"::ffff:192.0.2.7":   "192.0.2.0/24",
		"2001:db8:1:2:3::4":  "2001:db8:1::/48",
		"2001:db8:1:ffff::1": "2001:db8:1::/48",
		"::1":                "::/48",
	} {
		if got := prefixOf(udp(ip)).String(); got != want {
			t.Errorf("%s: %s, want %s", ip, got, want)
		}
	}
	if a, b := prefixOf(&net.UnixAddr{Name: "a"}), prefixOf(&net.UDPAddr{}); a != b || a.IsValid() {
		t.Errorf("addresses that are none: %v, %v", a, b)
	}
}

func join(t *testing.T, c *census, ip string) *admission {
	t.Helper()
	n, err := c.join(udp(ip))
	if err != nil {
		t.Fatal(err)
	}
	return &admission{census: c, neighbours: n}
}

func TestCensusCaps(t *testing.T) {
	c := newCensus(false)
	var strangers []*admission
	for range maxPrefixStrangers {
		strangers = append(strangers, join(t, c, "192.0.2.1"))
	}
	if _, err := c.join(udp("192.0.2.99")); !errors.Is(err, errPrefixFull) {
		t.Errorf("one stranger too many: %v", err)
	}
	join(t, c, "192.0.3.1").leave() // another prefix
	strangers[0].recognise()
	strangers[0].recognise() // counts once
	join(t, c, "192.0.2.2")
	if _, err := c.join(udp("192.0.2.3")); !errors.Is(err, errPrefixFull) {
		t.Errorf("recognising one made room for two: %v", err)
	}
	strangers[1].leave()
	strangers[1].leave()     // counts once
	strangers[1].recognise() // too late to count
	join(t, c, "192.0.2.4")
	if _, err := c.join(udp("192.0.2.5")); !errors.Is(err, errPrefixFull) {
		t.Errorf("leaving once made room for two: %v", err)
	}
	unlimited := newCensus(true)
	for range maxPrefixStrangers + 10 {
		join(t, unlimited, "192.0.2.1")
	}
}

func TestCensusForgets(t *testing.T) {
	c := newCensus(false)
	var all []*admission
	for range 10 {
		a := join(t, c, "192.0.2.1")
		a.recognise()
		all = append(all, a, join(t, c, "2001:db8::1"))
	}
	for _, a := range all {
		a.leave()
	}
	if c.size() != 0 || len(c.prefixes) != 0 {
		t.Errorf("left: %d connections, %d prefixes", c.size(), len(c.prefixes))
	}
}

func TestCensusTotal(t *testing.T) {
	c := newCensus(true)
	c.total = maxConnections
	if _, err := c.join(udp("192.0.2.1")); !errors.Is(err, errServerFull) {
		t.Errorf("over the total: %v", err)
	}
}
