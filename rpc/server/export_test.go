package server

import "time"

// Suspend puts the node back into the state before the engine has caught up;
// the result ends it.
func (n *Node) Suspend() (resume func()) {
	service := n.server.service.Swap(nil)
	return func() { n.server.service.Store(service) }
}

// Caps for tests of floods.
const (
	MaxPrefixStrangers = maxPrefixStrangers
	MaxStreams         = maxStreams
)

// LimitFanout makes the budget of posts small; the result ends it.
func LimitFanout(burst int) (restore func()) {
	before := fanoutRate
	fanoutRate.burst, fanoutRate.interval = burst, time.Hour
	return func() { fanoutRate = before }
}

// Connections is how many connections the node has.
func (n *Node) Connections() int { return n.server.census.size() }

// Waiting is how many calls of FetchWait wait.
func (n *Node) Waiting() int { return n.server.service.Load().hub.Waiting() }

// IdleStrangers is how many connections would be swept.
func (n *Node) IdleStrangers() int { return len(n.server.idleStrangers()) }
