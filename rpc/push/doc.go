// Package push tells connected devices that something happened, and wakes the
// calls that wait for it.
//
//	acker ──Publish──▶ Hub ──▶ pending hints of each bound connection
//	                    │            │ worker: read payload, encode, send
//	                    │            ▼
//	                    │       Link.TryPush ──full──▶ one resync, later
//	                    ├──▶ Waiter (FetchWait) of the device
//	                    └──▶ Link.SessionEnded
//
// A push is a hint; the queue is the truth. So nothing here is stored, nothing
// is retried, and Publish never blocks: when a client does not take its pushes
// (its stream limit, its flow-control window, or more than MaxPending hints at
// once), they collapse into one PushNewMessage with resync set, which tells the
// client to fetch.
//
// The Hub owns which connection is bound to which device and which session it
// used last. A Binding owns the hints that its connection has not been sent.
package push
