package sim

import (
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"
)

// Weather is how the network treats packets. Chances are per packet, 0 to 1.
type Weather struct {
	Loss      float64       // a packet disappears
	Duplicate float64       // it arrives twice
	Reorder   float64       // it is held back by up to Holdback
	Delay     time.Duration // of every packet
	Jitter    time.Duration // added to Delay, uniform
	Holdback  time.Duration
}

// Network carries packets between simulated sockets. It is the only part of this
// module that knows quic-go's simnet.
type Network struct {
	mu      sync.Mutex
	rng     *rand.Rand
	weather Weather
	cut     map[string]bool // addresses that nothing reaches or leaves
	nodes   map[string]simnet.PacketReceiver
	carried int
	lost    int
	trace   hash.Hash64 // over time, addresses and size of each packet sent
}

// NewNetwork returns a network that is perfect until SetWeather.
func NewNetwork(rng *rand.Rand) *Network {
	return &Network{rng: rng, cut: map[string]bool{}, nodes: map[string]simnet.PacketReceiver{}, trace: fnv.New64a()}
}

// Listen opens a socket with an address of its own. Opening the address of a
// socket again takes its packets over, as after a restart.
func (n *Network) Listen(addr *net.UDPAddr) net.PacketConn {
	return &socket{SimConn: simnet.NewSimConn(addr, (*router)(n)), network: n, addr: addr}
}

// socket takes itself off the network when it is closed.
type socket struct {
	*simnet.SimConn
	network *Network
	addr    *net.UDPAddr
}

func (s *socket) Close() error {
	s.network.mu.Lock()
	if s.network.nodes[s.addr.String()] == s.SimConn {
		delete(s.network.nodes, s.addr.String())
	}
	s.network.mu.Unlock()
	return s.SimConn.Close()
}

// SetWeather changes how packets are treated from now on.
func (n *Network) SetWeather(w Weather) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.weather = w
}

// Cut separates an address from all others, or joins it again. Packets under way
// are lost too.
func (n *Network) Cut(addr net.Addr, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if cut {
		n.cut[addr.String()] = true
	} else {
		delete(n.cut, addr.String())
	}
}

// Vanish takes whatever socket has the address off the network for good: its
// process is dead. A new one may Listen there at once.
func (n *Network) Vanish(addr net.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if gone, ok := n.nodes[addr.String()].(*simnet.SimConn); ok {
		// What it sends from now on is not seen either.
		defer gone.Close()
	}
	delete(n.nodes, addr.String())
}

// Counts tells how many packets were carried and how many were lost, and a hash
// over all that were sent: two runs with the same hash went the same way.
func (n *Network) Counts() (carried, lost int, trace uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.carried, n.lost, n.trace.Sum64()
}

// router is the side of a Network that sockets see.
type router Network

var errNoRoute = errors.New("sim: socket is off the network")

// AddNode is called by a new socket.
func (r *router) AddNode(addr net.Addr, receiver simnet.PacketReceiver) {
	n := (*Network)(r)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[addr.String()] = receiver
}

// SendPacket decides the fate of one packet. A lost one is no error: senders of
// datagrams are not told.
func (r *router) SendPacket(p simnet.Packet) error {
	n := (*Network)(r)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes[p.From.String()] == nil {
		return errNoRoute
	}
	fmt.Fprintln(n.trace, time.Now().UnixNano(), p.From, p.To, len(p.Data))
	w := n.weather
	copies := 1
	if n.rng.Float64() < w.Duplicate {
		copies = 2
	}
	for range copies {
		if n.cut[p.From.String()] || n.cut[p.To.String()] || n.rng.Float64() < w.Loss {
			n.lost++
			continue
		}
		after := w.Delay
		if w.Jitter > 0 {
			after += time.Duration(n.rng.Int64N(int64(w.Jitter)))
		}
		if w.Holdback > 0 && n.rng.Float64() < w.Reorder {
			after += time.Duration(n.rng.Int64N(int64(w.Holdback)))
		}
		n.carried++
		time.AfterFunc(after, func() { n.arrive(p) })
	}
	return nil
}

// arrive hands a packet to whoever has the address now.
func (n *Network) arrive(p simnet.Packet) {
	n.mu.Lock()
	to := n.nodes[p.To.String()]
	if n.cut[p.From.String()] || n.cut[p.To.String()] {
		to = nil
	}
	n.mu.Unlock()
	if to != nil {
		to.RecvPacket(p)
	}
}
