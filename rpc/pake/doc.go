// Package pake is the fixed OPAQUE profile (RFC 9807) of quicprochat, for both
// ends. The profile can't be negotiated, so that independently written clients
// work:
//
//	group and hash   ristretto255, SHA-512 everywhere (OPRF, AKE, KDF, MAC)
//	context          none, no identities (the public keys stand for them)
//	KSF              Argon2id, t = 3, m = 64 MiB, p = 4, salt 16 zero bytes,
//	                 64 bytes out; runs in the client only
//	sizes (bytes)    RegistrationRequest 32, RegistrationResponse 64,
//	                 RegistrationRecord 192, KE1 96, KE2 320, KE3 64
//
// Messages travel in their serialized form:
//
//	client                                    server
//	StartRegistration ── request ──────────►  Server.RegistrationResponse
//	Finish            ◄─ response ──────────
//	                  ── record ───────────►  ParseRecord, stored
//
//	StartLogin        ── KE1 ──────────────►  Server.LoginStart(record)
//	Finish            ◄─ KE2 ──────────────
//	                  ── KE3 ──────────────►  Server.LoginFinish
//
// The server's secrets are a Material; callers own its storage, and that of the
// records and of the one fake record that stands in for unknown names. A
// password's record is bound to the Material and the credential identifier it
// was made with: neither can change without a new registration.
//
// Every input is checked for its exact size before any curve arithmetic.
package pake
