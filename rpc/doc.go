// Package rpc is the wire of quicprochat: the frames that travel on QUIC
// streams, the method table that is read from the proto descriptors, and the
// strict decoding of request bodies. Servers and clients share it. It knows
// bytes, no sockets: who opens, reads and closes streams are rpc/server and
// rpc/client.
//
// One call is one bidirectional stream that the client opens; it carries one
// frame each way and each side ends its direction (FIN) behind its frame. A
// push is one frame on a unidirectional stream that the server opens. All
// integers are big-endian.
//
//	request   ┌───────────┬────────────┬─────────┬──────────────┐ FIN
//	          │ method u16│ req_id u32 │ len u32 │ protobuf ... │
//	          └───────────┴────────────┴─────────┴──────────────┘
//	response  ┌───────────┬────────────┬─────────┬──────────────┐ FIN
//	          │ status u8 │ req_id u32 │ len u32 │ protobuf ... │
//	          └───────────┴────────────┴─────────┴──────────────┘
//	push      ┌───────────┬─────────┬──────────────┐ FIN
//	          │ type  u16 │ len u32 │ protobuf ... │
//	          └───────────┴─────────┴──────────────┘
//
// A frame is exact: a stream that ends inside it (ErrTruncated), bytes behind it
// (ErrTrailing) and an announced length over the method's limit (ErrTooLarge)
// are errors of that stream only; the connection lives on. Readers never
// allocate by the announced length: buffers grow with the bytes that arrived.
//
// docs/formats/wire.md is the long form for authors of clients in other
// languages; docs/methods.md is the method table.
package rpc
