// Package sim runs whole servers in a world where network, disk and time obey a
// seed, and checks what they promised. Only tests import it.
//
//	            ┌────────────────────── one synctest bubble, virtual time ─────────────────────┐
//	Person ─────┤ client.Client ── simnet ── Network ── simnet ── server.Node ── Disk ── MemFS │
//	Person ─────┤      (SDK)         loss, delay,                  (engine,     slow, failing, │
//	  …         │                    reordering, …                  log, views) lying          │
//	            └──────────────────────────────────────────────────────────────────────────────┘
//	                 │ what each call was told                            │ what survived
//	                 ▼                                                    ▼
//	               Model ───────────────────────────────────────────── Checker
//
// A World draws a plan from its seed: who lives in it, what they do, how the
// network behaves, when the server is killed or loses power, when its wall clock
// is set wrong. Everything else is
// the real thing: QUIC, TLS, OPAQUE (with a cheap KSF), engine, Pebble.
//
// A world runs in a process of its own with GOMAXPROCS=1 and
// GODEBUG=asyncpreemptoff=1, and on Linux the randomness of the Go runtime (the
// order of select and of maps) is seeded too. Then plan, faults and most of the
// order of things repeat from the seed, until goroutines that are ready at the
// same instant run in another order than before: the runtime draws per thread, and
// collects garbage and ends time slices by the machine's clock. From there on two
// lives of one seed differ in packets, so that a rare failure may want several
// replays.
//
// TestControls takes promises out of the server one at a time, and expects the
// worlds to miss each.
//
// A Liar is a server of another kind: on real sockets, it lies about keys from a
// FalseLog, to a client, an auditor or a witness who must find it out.
package sim
