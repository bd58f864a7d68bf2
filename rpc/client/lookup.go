package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// maxLookups bounds how often a look-up is asked: an answer may be older than
// what another one taught meanwhile.
const maxLookups = 4

// LookupUser finds the person behind a username and proves it: that the binding
// and the KeySets are in the log, that they are all there are and the newest, and
// whether one of the keys is revoked. A name that nobody has gives a Person that
// does not Exist. Errors: *kt.EvidenceError when the server was caught (EvidenceOf),
// kt.ErrStale, kt.ErrPolicy and the other errors of kt.Verifier, and those of Call.
func (c *Client) LookupUser(ctx context.Context, username string) (*kt.Person, error) {
	answer, err := c.ProveUser(ctx, username, false)
	if err != nil {
		return nil, err
	}
	return answer.Person, nil
}

// ProveUser is LookupUser with the answer as a whole: its Bundle is a proof to
// keep. With whole set it shows every version from 0 on, also those that this
// Client has seen.
func (c *Client) ProveUser(ctx context.Context, username string, whole bool) (*kt.Answer, error) {
	username, err := statement.CanonicalUsername(username)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	query := kt.Query{Username: username}
	if whole {
		c.trust.forget(query)
	}
	_, answer, err := c.resolve(ctx, query)
	return answer, err
}

// resolve asks for a username and checks the reply against its proof.
func (c *Client) resolve(ctx context.Context, query kt.Query) (*pb.ResolveUserResponse, *kt.Answer, error) {
	resp := new(pb.ResolveUserResponse)
	answer, err := c.lookup(ctx, query, func(p *pb.ProofRequest) (*pb.KeyProof, error) {
		proto.Reset(resp)
		err := c.Call(ctx, &pb.ResolveUserRequest{Username: query.Username, Proof: p}, resp)
		return resp.GetProof(), err
	})
	if err != nil {
		return nil, nil, err
	}
	person := answer.Person
	var key []byte
	if person.Exists() {
		key = person.Identity.Key
	}
	if !bytes.Equal(key, resp.GetIdentityKey()) {
		return nil, nil, fmt.Errorf("%w: ResolveUser: the reply names another identity key than its proof", ErrProtocol)
	}
	return resp, answer, nil
}

// LookupIdentity finds an identity's KeySets and proves them as LookupUser does.
// An unknown key gives an Identity without a KeySet.
func (c *Client) LookupIdentity(ctx context.Context, key []byte) (*kt.Identity, error) {
	answer, err := c.hybridKey(ctx, key, new(pb.FetchHybridKeyResponse))
	if err != nil {
		return nil, err
	}
	return answer.Identity, nil
}

// hybridKey asks for an identity and checks the reply against its proof.
func (c *Client) hybridKey(ctx context.Context, key []byte, resp *pb.FetchHybridKeyResponse) (*kt.Answer, error) {
	answer, err := c.lookup(ctx, kt.Query{IdentityKey: key}, func(p *pb.ProofRequest) (*pb.KeyProof, error) {
		proto.Reset(resp)
		err := c.Call(ctx, &pb.FetchHybridKeyRequest{IdentityKey: key, Proof: p}, resp)
		return resp.GetProof(), err
	})
	if err != nil {
		return nil, err
	}
	if shown := resp.GetKeyset(); shown != nil && !proto.Equal(shown, answer.Identity.KeySet) {
		return nil, fmt.Errorf("%w: FetchHybridKey: the reply holds another KeySet than its proof", ErrProtocol)
	}
	return answer, nil
}

// sealable is the KeySet of an identity that others may seal for, and
// whether a device that had its hybrid key is revoked.
func sealable(i *kt.Identity) (keySet *pb.KeySet, rotationDue bool) {
	if i.Revocation != nil || i.KeySet.GetKemId() == 0 {
		return nil, false
	}
	return i.KeySet, len(i.DeviceRevocations) > 0
}

// maxProvedKeys is how many identities one FetchHybridKeys with a proof may name.
const maxProvedKeys = 32

// hybridKeys asks for up to maxProvedKeys identities and answers with what the
// proof shows.
func (c *Client) hybridKeys(ctx context.Context, keys [][]byte) ([]*pb.FetchHybridKeysResponse_Entry, error) {
	resp := new(pb.FetchHybridKeysResponse)
	answer, err := c.lookup(ctx, kt.Query{IdentityKeys: keys}, func(p *pb.ProofRequest) (*pb.KeyProof, error) {
		proto.Reset(resp)
		err := c.Call(ctx, &pb.FetchHybridKeysRequest{IdentityKeys: keys, Proof: p}, resp)
		return resp.GetProof(), err
	})
	if err != nil {
		return nil, err
	}
	entries := make([]*pb.FetchHybridKeysResponse_Entry, len(keys))
	for i, identity := range answer.Identities {
		entries[i] = new(pb.FetchHybridKeysResponse_Entry)
		entries[i].Keyset, entries[i].HybridRotationDue = sealable(identity)
	}
	return entries, nil
}

// lookup asks for a proof until it answers the query as of what is known.
func (c *Client) lookup(ctx context.Context, query kt.Query, ask func(*pb.ProofRequest) (*pb.KeyProof, error)) (*kt.Answer, error) {
	for try := 1; ; try++ {
		asked, err := c.trust.ask(query)
		if err != nil {
			return nil, err
		}
		asked.Query.Cosigned = !c.cfg.Transparency.Policy.IsZero()
		request, err := asked.Request()
		if err != nil {
			return nil, err
		}
		p, err := ask(request)
		if ReasonOf(err) == pb.Reason_LOG_GENERATION {
			return nil, c.begunAnew(ctx)
		}
		if err != nil {
			return nil, err
		}
		answer, err := c.verifyAnswer(asked, p)
		if err == nil || try >= maxLookups || !(errors.Is(err, kt.ErrOlder) || errors.Is(err, kt.ErrIncomplete)) {
			return answer, err
		}
		if errors.Is(err, kt.ErrIncomplete) {
			c.trust.forget(query)
		}
	}
}

// begunAnew looks at a log that the server says it has begun anew, as somebody
// would who knows of the one before nothing but its first CONFIG. What is shown is
// not followed: the error is a *kt.NewGenerationError when it holds.
func (c *Client) begunAnew(ctx context.Context) error {
	state, err := c.trust.snapshot()
	if err != nil {
		return err
	}
	known, err := state.Generation()
	if err != nil {
		return err
	}
	state.Consent(known)
	asked := state.Ask(kt.Query{})
	request, err := asked.Request()
	if err != nil {
		return err
	}
	resp, err := c.AuditKeyTransparency(ctx, &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Head{}, Proof: request})
	if err != nil {
		return err
	}
	if err := c.trust.examine(&state, asked, resp.GetProof()); err != nil {
		return err
	}
	return fmt.Errorf("%w: the server says that its log was begun anew, and shows that it was not", ErrProtocol)
}

func (c *Client) verifyAnswer(asked *kt.Question, p *pb.KeyProof) (*kt.Answer, error) {
	if p == nil {
		return nil, fmt.Errorf("%w: a reply without the proof that was asked for", ErrProtocol)
	}
	return c.trust.verify(asked, p)
}

// TransparencyState is what was verified of the log so far.
func (c *Client) TransparencyState() (kt.State, error) { return c.trust.snapshot() }

// ConsentToGeneration goes on with a log whose operator began it anew after a
// loss, as a *kt.NewGenerationError told. It is the person's decision, never a
// program's.
func (c *Client) ConsentToGeneration(generation uint32) error { return c.trust.consent(generation) }
