// Package keypackage reads MLS KeyPackages (RFC 9420, section 10) as a server
// must: it finds out who made one, for which cipher suite, until when it may be
// used, and whether it keeps the rules that whoever fetches it will hold it
// against. It is pure: bytes in, facts or a fault out; no clock, no storage, and
// no more memory than a small multiple of the input.
//
//	KeyPackage
//	┌──────────┬──────────────┬───────────┬───────────┬──────────────┬─────────────┐
//	│ version  │ cipher_suite │ init_key  │ leaf_node │ extensions   │ signature   │
//	│ u16 = 1  │ u16          │ opaque<V> │           │ Extension<V> │ opaque<V>   │
//	└──────────┴──────────────┴───────────┴─────┬─────┴──────────────┴─────────────┘
//	 ◀──────── signed as "KeyPackageTBS" ───────┼──────────────────▶
//	                                            │
//	leaf_node (source key_package)              ▼
//	┌────────────────┬───────────────┬────────────┬──────────────┬───────────┬
//	│ encryption_key │ signature_key │ credential │ capabilities │ source    │
//	│ opaque<V>      │ opaque<V>     │ u16, …     │ 5 × u16<V>   │ u8 = 1    │
//	└────────────────┴───────────────┴────────────┴──────────────┴───────────┴
//	 ┬───────────────────────────────┬──────────────┬───────────┐
//	 │ lifetime                      │ extensions   │ signature │
//	 │ not_before u64, not_after u64 │ Extension<V> │ opaque<V> │
//	 └───────────────────────────────┴──────────────┴───────────┘
//	 signed as "LeafNodeTBS": everything before its signature
//
// Integers are big-endian; x<V> is a vector behind its length in bytes, which
// takes 1, 2 or 4 bytes and always as few as possible (section 2.1.2).
//
// A KeyPackage may come bare or as an MLSMessage (section 6), which puts its
// version (1) and wire format (5, mls_key_package) before it. The two are told
// apart by the fifth byte: of a bare one it is the first of the length of
// init_key, which is never 0 there, of an MLSMessage it is the upper half of the
// version, which is 0.
package keypackage
