// Package server serves the method table over QUIC, and puts the parts of a
// server together (Boot).
//
// # A request
//
//	socket ─ quic-go ─ admit: caps per address prefix, Retry
//	   │
//	connection ── accepts streams ──▶ pool of workers
//	   │ bound to a device by its        │ read frame (rpc.ReadRequest), in time
//	   │ first device session            │ decode (rpc.Method.UnmarshalRequest)
//	   │                                 │ guard: session, binding, rate
//	   │                                 │ handler (bindings.go): engine, view,
//	   │                                 │   ceremonies of package auth
//	   ▼                                 ▼
//	pushes (package push)             answer: frame with FIN
//
// A worker handles one stream from its first byte to its answer; FetchWait
// leaves its worker before it waits. Everything that a client can make the
// server hold has a bound: connections and strangers' requests per address
// prefix, streams per connection, receive windows, the time of a header, the
// pace of a body, the time of an answer. limits.go lists them.
//
// The guard refuses early, on the published view; the engine checks each
// mutation again, where it counts. A session that ends closes the connections
// that used it last, so a bound connection's session is believed for a second.
//
// Errors become statuses in one place (explain): a refusal says itself what the
// client sees, everything else is logged under an id and told as Internal.
//
// # Who owns what
//
// Node owns data directory, log, engine and endpoint, and closes them in the
// reverse order. The server (endpoint) owns the listener, the connections, the
// workers and the token buckets; it lives longer than the service behind it, so
// that callers are told STARTING and STOPPING. identity owns the certificate
// pair and the files it lies in: a leaf of the server's own CA is renewed, an
// operator's pair is only read.
package server
