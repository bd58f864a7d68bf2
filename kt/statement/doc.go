// Package statement holds what people sign in quicprochat: the exact bytes of
// each statement, how to sign and how to verify it, the rules for public keys
// and KeySets, and the canonical form of a username. The server checks these
// statements before it acts; clients and auditors check them again, so that a
// server can not invent them.
//
// A statement is a label and a list of fields:
//
//	"qpc-login-v1" 00 │ len u32 │ server_name │ len u32 │ field │ len u32 │ field …
//	└── label ──────┘   └──────────── fields, in the order of the struct ────────┘
//
// The label separates the kinds of statements, the lengths separate the fields,
// and the first field is always the server's name, so a signature means one
// thing on one server. Numbers are big-endian fields of four or eight bytes; the
// list of device keys in a KeySet is its count, then one field per key. The
// signature is Ed25519 (RFC 8032) over these bytes.
//
// The package owns no state. Test vectors are in docs/formats/statements.md.
package statement
