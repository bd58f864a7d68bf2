package server

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// prefixOf is what address limits count: an IPv4 /24 or an IPv6 /48, which is
// what one customer of a network commonly has. Addresses of other kinds (of a
// simulated network) are all one prefix.
func prefixOf(a net.Addr) netip.Prefix {
	udp, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip, ok := netip.AddrFromSlice(udp.IP)
	if !ok {
		return netip.Prefix{}
	}
	ip = ip.Unmap().WithZone("")
	bits := 48
	if ip.Is4() {
		bits = 24
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

var (
	errServerFull = errors.New("the server has as many connections as it takes")
	errPrefixFull = errors.New("the address prefix has as many connections as it may have")
)

// neighbours are the connections of one address prefix.
type neighbours struct {
	prefix      netip.Prefix
	connections int // guarded by census.mu
	strangers   int // without a session; guarded by census.mu
	// requests holds one token per request of a stranger that is being read or
	// handled; nil when there is no cap.
	requests chan struct{}
}

// census counts the connections per address prefix.
type census struct {
	unlimited bool

	mu       sync.Mutex
	total    int
	prefixes map[netip.Prefix]*neighbours
}

func newCensus(unlimited bool) *census {
	return &census{unlimited: unlimited, prefixes: make(map[netip.Prefix]*neighbours)}
}

// join counts a new connection, a stranger at first.
func (c *census) join(a net.Addr) (*neighbours, error) {
	prefix := prefixOf(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total >= maxConnections {
		return nil, errServerFull
	}
	n := c.prefixes[prefix]
	if n == nil {
		n = &neighbours{prefix: prefix}
		if !c.unlimited {
			n.requests = make(chan struct{}, maxPrefixRequests)
		}
		c.prefixes[prefix] = n
	} else if !c.unlimited && (n.connections >= maxPrefixConnections || n.strangers >= maxPrefixStrangers) {
		return nil, errPrefixFull
	}
	c.total++
	n.connections++
	n.strangers++
	return n, nil
}

// admission is the place of one connection in the census.
type admission struct {
	census     *census
	neighbours *neighbours
	recognised atomic.Bool // it has or had a session
	left       bool        // guarded by census.mu
}

// recognise notes that the connection is no stranger any more.
func (a *admission) recognise() {
	a.census.mu.Lock()
	defer a.census.mu.Unlock()
	if !a.left && !a.recognised.Load() {
		a.recognised.Store(true)
		a.neighbours.strangers--
	}
}

// leave counts the connection out.
func (a *admission) leave() {
	c, n := a.census, a.neighbours
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.left {
		return
	}
	a.left = true
	c.total--
	n.connections--
	if !a.recognised.Load() {
		n.strangers--
	}
	if n.connections == 0 {
		delete(c.prefixes, n.prefix)
	}
}

// size is the number of connections.
func (c *census) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}
