package client

import (
	"bytes"
	"crypto/ed25519"
	"time"

	pb "quicprochat/proto/qpcv1"
)

// Session is what a login gives. Token and ExportKey are secrets.
type Session struct {
	// Username in canonical form.
	Username string
	// Token is the bearer token, 32 bytes.
	Token []byte
	// Scope is DEVICE for a full session, ENROLL_ONLY when the key that logged in
	// is not an active device of the account.
	Scope pb.SessionScope
	// IdentityKey is the account's identity key, as the server tells it.
	IdentityKey ed25519.PublicKey
	// DeviceKey is the key that logged in.
	DeviceKey ed25519.PublicKey
	// Expires is when the session ends at the latest, by the server's clock.
	Expires time.Time
	// IdleTimeout ends it earlier, after so long without use.
	IdleTimeout time.Duration
	// ExportKey comes from the password by OPAQUE, 64 bytes, the same at each
	// login; the server never has it.
	ExportKey []byte
}

// Session returns the session that calls are made with.
func (c *Client) Session() (Session, bool) {
	s := c.session.Load()
	if s == nil {
		return Session{}, false
	}
	return *s, true
}

// SetSession makes calls use a session of an earlier login: Token, Scope,
// IdentityKey and DeviceKey are needed. The zero Session takes it away.
func (c *Client) SetSession(s Session) {
	if len(s.Token) == 0 {
		c.swapSession(nil)
		return
	}
	c.swapSession(&s)
}

// swapSession changes the session. The server binds a connection to the first
// device that uses it: another one needs another connection.
func (c *Client) swapSession(s *Session) {
	old := c.session.Swap(s)
	if old != nil && (s == nil || !bytes.Equal(old.DeviceKey, s.DeviceKey) || old.Username != s.Username) {
		if conn := c.conn.Load(); conn != nil {
			closeConn(conn)
		}
	}
	if s != nil && c.pushes.any() {
		c.attach()
	}
}
