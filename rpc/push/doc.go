// Package push tells connected devices that something happened, and wakes the
// calls that wait for it.
//
//	acker ──Publish──▶ Hub ──▶ Binding: what its connection was not told yet
//	                    │            │ worker: read payload, encode, send
//	                    │            ▼
//	                    │       Link.TryPush ──full──▶ one resync, later
//	                    ├──▶ Waiter (FetchWait) of the device
//	                    └──▶ Link.SessionEnded
//
// A push is a hint; the queue is the truth. So nothing here is stored, nothing
// is retried, and Publish never blocks. One new message is told with its number
// and, when it is small, its payload. Several that came before a worker got to
// them, and those that a client's stream limit or flow-control window leaves no
// room for, are one PushNewMessage with resync set, which tells the client to
// fetch: the more there is to do, the fewer pushes are sent. That few KeyPackages
// are left is told with the next push, or with one that tells nothing else.
//
// What is not in a queue (typing, presence, who joined a channel) is a word of its
// own, sent as it is; those that a client has no room for are dropped, and a dropped
// membership becomes a resync.
//
// The Hub owns which connection is bound to which device and which session it
// used last.
package push
