// Package admin is the way in for whoever runs the server: methods of the
// schema's AdminService (auth LOCAL), on a unix socket in the data directory or
// on the data directory of a stopped server.
//
//	quicprochat-server admin … ─► Call ─► admin.sock ─► Server ─┐
//	                          └─► stopped directory ────────────┴─► Service ─► commands.Engine
//
// A connection carries one exchange, as a QUIC stream does: a request frame and
// its end, a response frame and its end (package rpc). Who may open the socket,
// which has mode 0600, may everything: there are no sessions and no rates. What
// is done here stands in the log with its way (Actor_SOCKET or
// Actor_DIRECTORY).
package admin
