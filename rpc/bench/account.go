package bench

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"

	"quicprochat/rpc/client"
)

// account is somebody that a load made up.
type account struct {
	name     string
	password []byte
	identity ed25519.PublicKey
	device   ed25519.PrivateKey
	client   *client.Client // its own connection, once it has one
}

// register makes an account under a random name over a connection that is not
// its own.
func register(ctx context.Context, c *client.Client) (*account, error) {
	random := make([]byte, 10)
	_, _ = rand.Read(random) // never fails, by its documentation
	a := &account{name: "bench-" + hex.EncodeToString(random), password: []byte(rand.Text())}
	public, identityKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	a.identity = public
	if _, a.device, err = ed25519.GenerateKey(nil); err != nil {
		return nil, err
	}
	_, err = c.Register(ctx, client.RegisterParams{Username: a.name, Password: a.password, IdentityKey: identityKey, DeviceKey: a.device})
	return a, err
}

// login opens the account's session on a connection.
func (a *account) login(ctx context.Context, c *client.Client) error {
	_, err := c.Login(ctx, a.name, a.password, a.device)
	return err
}

// connect gives the account a connection and a session of its own, if it has
// none yet.
func (a *account) connect(ctx context.Context, cfg client.Config) error {
	if a.client != nil {
		return nil
	}
	c, err := client.Dial(ctx, cfg)
	if err != nil {
		return err
	}
	a.client = c
	return a.login(ctx, c)
}
