package server

import "time"

// Times of a request.
const (
	// headerTimeout is how long a stream may take from its first byte to a
	// complete frame header.
	headerTimeout = 2 * time.Second
	// minBodyRate is the slowest body, in bytes per second; one that falls
	// bodySlack behind it is cut off.
	minBodyRate = 8 << 10
	bodySlack   = 2 * time.Second
	// requestTimeout is the deadline of a request once it was read.
	requestTimeout = 10 * time.Second
	// writeTimeout is how long a client may take to let its answer go.
	writeTimeout = 10 * time.Second
)

// Connections.
const (
	// maxStreams is how many requests of one connection are read and handled
	// at a time.
	maxStreams = 128
	// Windows of a connection without a session: what a stranger can make the
	// server hold. With a session the windows may grow to the larger ones.
	streamWindow        = 64 << 10
	connectionWindow    = 256 << 10
	maxStreamWindow     = 1 << 20
	maxConnectionWindow = 4 << 20
	// idleTimeout ends a connection that sends nothing, not even a PING.
	idleTimeout = 90 * time.Second
	// handshakeTimeout ends a handshake that does not go on.
	handshakeTimeout = 5 * time.Second
	// strangerTimeout ends a connection that has no session and made no
	// request for so long, whatever PINGs it sends.
	strangerTimeout = 2 * time.Minute
)

// Caps; none applies with LimitsOff but maxConnections.
const (
	// maxConnections of the whole server.
	maxConnections = 65_536
	// maxPrefixConnections of one address prefix.
	maxPrefixConnections = 4_096
	// maxPrefixStrangers is how many connections of one address prefix may be
	// without a session.
	maxPrefixStrangers = 256
	// maxPrefixRequests is how many requests of connections without a session
	// are read and handled at a time for one address prefix. It keeps slow
	// senders from holding all workers.
	maxPrefixRequests = 256
	// Above handshakeRate new connections per second (after handshakeBurst)
	// strangers must prove their address first (Retry, RFC 9000 section 8.1.2).
	handshakeRate  = 200
	handshakeBurst = 400
)

// Requests.
const (
	// maxWorkers is how many requests are read and handled at a time.
	maxWorkers = 4_096
	// initialBuffer is what a request is read into; it grows with the data
	// that came, never by the announced length.
	initialBuffer = 4 << 10
	// maxPooledBuffer is the largest buffer of a request that is kept for reuse.
	maxPooledBuffer = 64 << 10
	// maxPooledAnswer is the same for answers: a page of Fetch has 100 KiB and
	// more, and a new buffer of that size costs more than filling it.
	maxPooledAnswer = 256 << 10
	// smallAnswer is the largest answer, in bytes, that is queued on its
	// stream without waiting for the client to take it.
	smallAnswer = 16 << 10
)
