package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"

	"github.com/thomas-vilte/mls-go/ciphersuite"
	"github.com/thomas-vilte/mls-go/credentials"
	"github.com/thomas-vilte/mls-go/framing"
	"github.com/thomas-vilte/mls-go/group"
	"github.com/thomas-vilte/mls-go/keypackages"
	"github.com/thomas-vilte/mls-go/treesync"

	pb "quicprochat/proto/qpcv1"
)

// mlsMember is a person whose device is a member of an MLS group. The MLS is an
// independent implementation's; what it needs of a Delivery Service is this
// server's: KeyPackages, and one order of all commits. A commit goes to every
// member in one decision, to its own sender too, so that all see the commits of an
// epoch in the same order: the first one counts.
type mlsMember struct {
	*person
	t          *testing.T
	suite      ciphersuite.CipherSuite
	credential *credentials.CredentialWithKey
	signer     *ciphersuite.SignaturePrivateKey
	waiting    []waitingPackage // KeyPackages that nobody used yet
	group      *group.Group
	// staged is the group as it will be if the commit that was sent wins.
	staged *group.Group
	commit []byte

	seen     uint64   // queue number
	read     []string // messages of others
	won, old int      // own commits that counted, and commits that came too late
}

type waitingPackage struct {
	public  *keypackages.KeyPackage
	private *keypackages.KeyPackagePrivateKeys
}

// newMember makes a person's device an MLS client: its signature key is the
// device's key.
func newMember(t *testing.T, p *person, suite ciphersuite.CipherSuite) *mlsMember {
	return &mlsMember{person: p, t: t, suite: suite, signer: ciphersuite.NewEd25519SignaturePrivateKey(p.device),
		credential: &credentials.CredentialWithKey{
			Credential: credentials.NewBasicCredential([]byte(p.name)), Ed25519PrivateKey: p.device,
			SignatureKeyBytes: p.device.Public().(ed25519.PublicKey),
		}}
}

func (m *mlsMember) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatalf("%s: %v", m.name, err)
	}
}

// newPackage makes a KeyPackage; for one's own group it is not published.
func (m *mlsMember) newPackage(options ...keypackages.GenerateOption) waitingPackage {
	m.t.Helper()
	public, private, err := keypackages.Generate(m.credential, m.suite, options...)
	m.check(err)
	return waitingPackage{public, private}
}

// publish uploads KeyPackages, every second one in an MLSMessage.
func (m *mlsMember) publish(ctx context.Context, n int) {
	m.t.Helper()
	var packages [][]byte
	for i := range n {
		p := m.newPackage()
		m.waiting = append(m.waiting, p)
		data := p.public.Marshal()
		if i%2 == 1 {
			data = append([]byte{0, 1, 0, 5}, data...)
		}
		packages = append(packages, data)
	}
	resp, err := m.client.UploadKeyPackages(ctx, packages...)
	m.check(err)
	for _, count := range resp.GetCounts() {
		if count.GetCipherSuite() == uint32(m.suite) && int(count.GetSingleUse()) != n {
			m.t.Errorf("%s has %v, published %d", m.name, count, n)
		}
	}
}

// take takes a KeyPackage of somebody else and checks whose it is.
func (m *mlsMember) take(ctx context.Context, of *person) *keypackages.KeyPackage {
	m.t.Helper()
	resp, err := m.client.FetchKeyPackage(ctx, &pb.FetchKeyPackageRequest{IdentityKey: of.public(), CipherSuite: uint32(m.suite)})
	m.check(err)
	if len(resp.GetPackages()) != 1 {
		m.t.Fatalf("%s got %d packages of %s", m.name, len(resp.GetPackages()), of.name)
	}
	taken, err := keypackages.UnmarshalKeyPackage(resp.GetPackages()[0].GetKeyPackage())
	m.check(err)
	if device := of.device.Public().(ed25519.PublicKey); !bytes.Equal(taken.LeafNode.SignatureKeyBytes, device) || !bytes.Equal(resp.GetPackages()[0].GetDeviceKey(), device) {
		m.t.Errorf("%s got a package of another key than %s's device", m.name, of.name)
	}
	m.check(errors.Join(taken.Validate(), taken.Verify(m.suite)))
	return taken
}

// found begins a group.
func (m *mlsMember) found() {
	m.t.Helper()
	id, err := group.NewGroupIDRandom()
	m.check(err)
	own := m.newPackage()
	m.group, err = group.NewGroup(id, m.suite, own.public, own.private)
	m.check(err)
}

// stage makes a commit in a copy of the group, and the Welcome of those whom it
// adds; without changes it renews the member's own keys.
func (m *mlsMember) stage(add []*keypackages.KeyPackage, remove ...*mlsMember) (commit, welcome []byte) {
	m.t.Helper()
	state, err := m.group.MarshalState()
	m.check(err)
	g, err := group.UnmarshalGroupState(state)
	m.check(err)
	for _, kp := range add {
		_, err := g.AddMember(kp)
		m.check(err)
	}
	for _, gone := range remove {
		leaf, found := g.FindMemberBySigKey(gone.credential.SignatureKeyBytes)
		if !found {
			m.t.Fatalf("%s is no member", gone.name)
		}
		_, err := g.RemoveMember(leaf)
		m.check(err)
	}
	staged, err := g.Commit(m.signer, m.signer.PublicKey(), nil)
	m.check(err)
	joiner := staged.JoinerSecret()
	m.check(g.MergeCommit(staged))
	content := staged.AuthenticatedContent()
	commit = framing.NewMLSMessagePublic(&framing.PublicMessage{
		Content: content.Content, Auth: content.Auth, MembershipTag: staged.MembershipTag(),
	}).Marshal()
	if len(add) > 0 {
		w, err := g.CreateWelcomeWithOpts(add, m.signer, group.WithJoinerSecret(joiner), group.WithPSKIDs(staged.PskIDs()),
			group.WithPSKSecret(staged.RawPskSecret()), group.WithStagedCommit(staged))
		m.check(err)
		message := framing.MLSMessage{Welcome: w.Marshal()}
		welcome = message.Marshal()
	}
	m.staged, m.commit = g, commit
	return commit, welcome
}

// post sends a commit to all members and a Welcome to those who join, in one
// decision of the server.
func (m *mlsMember) post(ctx context.Context, commit, welcome []byte, members, joining []*mlsMember) error {
	req := &pb.BatchEnqueueRequest{Atomic: true}
	for _, to := range members {
		req.Items = append(req.Items, &pb.BatchEnqueueRequest_Item{
			Recipient: &pb.BatchEnqueueRequest_Item_RecipientKey{RecipientKey: to.public()}, Payload: commit,
		})
	}
	for _, to := range joining {
		req.Items = append(req.Items, &pb.BatchEnqueueRequest_Item{
			Recipient: &pb.BatchEnqueueRequest_Item_RecipientKey{RecipientKey: to.public()}, Payload: welcome,
		})
	}
	_, err := m.client.BatchEnqueue(ctx, req)
	return err
}

// say sends a message to the other members.
func (m *mlsMember) say(ctx context.Context, text string, members []*mlsMember) error {
	private, err := m.group.SendMessage([]byte(text), m.signer)
	if err != nil {
		return err
	}
	payload := framing.NewMLSMessagePrivate(private).Marshal()
	for _, to := range members {
		if to == m {
			continue
		}
		_, err := m.client.Enqueue(ctx, &pb.EnqueueRequest{
			Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: to.public()}, Payload: payload,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// catchUp reads the queue to its end.
func (m *mlsMember) catchUp(ctx context.Context) {
	m.t.Helper()
	for {
		page, err := m.client.Fetch(ctx, &pb.FetchRequest{AfterSeq: &m.seen})
		m.check(err)
		for _, e := range page.GetEnvelopes() {
			if err := m.receive(ctx, e.GetPayload()); err != nil {
				m.t.Fatalf("%s, message %d: %v", m.name, e.GetSeq(), err)
			}
			m.seen = e.GetSeq()
		}
		if len(page.GetEnvelopes()) == 0 {
			return
		}
	}
}

// receive does what an MLS client does with a message.
func (m *mlsMember) receive(ctx context.Context, payload []byte) error {
	message, err := framing.UnmarshalMLSMessage(payload)
	if err != nil {
		return err
	}
	if len(message.Welcome) > 0 {
		return m.join(ctx, message.Welcome)
	}
	if public, ok := message.AsPublic(); ok {
		return m.receiveCommit(public, payload)
	}
	private, ok := message.AsPrivate()
	if !ok {
		return errors.New("an MLSMessage of no kind that is sent here")
	}
	text, _, leaf, err := m.group.ReceiveApplicationMessage(private)
	if err != nil {
		return err
	}
	from, found := m.group.GetMember(group.LeafNodeIndex(leaf))
	if !found {
		return fmt.Errorf("a message of leaf %d, who is no member", leaf)
	}
	m.read = append(m.read, from.Credential.IdentityString()+": "+string(text))
	return nil
}

// join tries which of the waiting KeyPackages a Welcome is for.
func (m *mlsMember) join(ctx context.Context, data []byte) error {
	welcome, err := group.UnmarshalWelcome(data)
	if err != nil {
		return err
	}
	for i, p := range m.waiting {
		g, joinErr := group.JoinFromWelcomeWithContext(ctx, welcome, p.public, p.private, nil)
		if joinErr == nil {
			m.group, m.staged = g, nil
			m.waiting = append(m.waiting[:i:i], m.waiting[i+1:]...)
			return nil
		}
		err = joinErr
	}
	return fmt.Errorf("no waiting KeyPackage fits the Welcome: %w", err)
}

// receiveCommit goes to the next epoch with the first commit of this one; later
// ones are for an epoch that is over.
func (m *mlsMember) receiveCommit(public *framing.PublicMessage, payload []byte) error {
	epoch := m.group.Epoch().AsUint64()
	switch {
	case public.Content.Epoch < epoch:
		m.old++
		return nil
	case m.staged != nil && bytes.Equal(payload, m.commit):
		m.won++
		m.group, m.staged = m.staged, nil
		return nil
	}
	m.staged = nil
	context := m.group.GroupContext().Marshal()
	if err := public.VerifyMembershipTagWithContext(m.suite, m.group.EpochSecrets().MembershipKey, context); err != nil {
		return err
	}
	content := &framing.AuthenticatedContent{
		WireFormat: framing.WireFormatPublicMessage, Content: public.Content, Auth: public.Auth, GroupContext: context,
	}
	return m.group.ProcessReceivedCommit(content, treesync.LeafIndex(public.Content.Sender.LeafIndex), m.group.MyLeafEncryptionKey())
}
