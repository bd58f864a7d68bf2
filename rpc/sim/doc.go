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
// network behaves, when the server is killed or loses power. Everything else is
// the real thing: QUIC, TLS, OPAQUE (with a cheap KSF), engine, Pebble.
//
// A world runs in a process of its own with GOMAXPROCS=1 and
// GODEBUG=asyncpreemptoff=1, and on Linux the randomness of the Go runtime (the
// order of select and of maps) is seeded too. Then plan, faults and most of the
// order of things repeat from the seed; what the scheduler takes from the
// machine's own clock does not, so that a rare failure may want several replays.
package sim
