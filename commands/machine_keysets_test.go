package commands_test

import (
	"bytes"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// rotationDue tells that a device left which had the hybrid key of the newest KeySet.
func (a *modelAccount) rotationDue() bool {
	return a.keySet().GetKemId() != 0 && slices.ContainsFunc(a.keySet().GetDeviceKeys(), func(key []byte) bool {
		return !slices.Contains(a.devices, projections.Key(key))
	})
}

// stands tells that a KeySet is or was one of the identity that is.
func (a *modelAccount) stands(next *pb.KeySet) bool {
	return projections.Key(next.GetIdentityKey()) == a.identity && int(next.GetVersion()) < len(a.keySets) &&
		proto.Equal(a.keySets[next.GetVersion()], next)
}

// follows is what is asked of a person's next KeySet: it must list devices, and with
// renew carry another hybrid key than before.
func (m *serverModel) follows(a *modelAccount, next *pb.KeySet, devices []projections.Key, renew bool) prediction {
	before := a.keySet()
	hash := statement.KeySetHash(serverName, before)
	switch {
	case projections.Key(next.GetIdentityKey()) != a.identity:
		return forbidden(pb.Reason_WRONG_ACCOUNT)
	case m.keys[a.identity].revoked != nil:
		return badRequest(pb.Reason_KEY_REVOKED)
	case next.GetVersion() != before.GetVersion()+1, !bytes.Equal(next.GetPreviousHash(), hash[:]):
		return badRequest(pb.Reason_KEYSET_VERSION)
	}
	if p := m.lists(next, devices); p.status != pb.Status_Ok {
		return p
	}
	same := bytes.Equal(next.GetHybridKey(), before.GetHybridKey())
	if before.GetKemId() != 0 && (next.GetKemId() == 0 || same && (renew || a.rotationDue())) {
		return badRequest(pb.Reason_KEYSET_INVALID)
	}
	return prediction{}
}

// lists holds a KeySet against the devices that it must list.
func (m *serverModel) lists(next *pb.KeySet, devices []projections.Key) prediction {
	listed := next.GetDeviceKeys()
	if slices.EqualFunc(devices, listed, func(a projections.Key, b []byte) bool { return bytes.Equal(a[:], b) }) {
		return prediction{}
	}
	for _, key := range listed {
		if m.keys[projections.Key(key)].revoked != nil {
			return badRequest(pb.Reason_KEY_REVOKED)
		}
	}
	return badRequest(pb.Reason_KEYSET_INVALID)
}

// addKeySet takes a KeySet in: a key-transparency event bears no receipt.
func (m *serverModel) addKeySet(a *modelAccount, next *pb.KeySet) {
	a.keySets = append(a.keySets[:len(a.keySets):len(a.keySets)], next)
	m.events++
}

func (m *serverModel) uploadHybridKey(req *pb.UploadHybridKeyRequest, s *modelSession, now uint64) prediction {
	a, next := m.accounts[s.account], req.GetKeyset()
	if p := m.follows(a, next, a.devices, false); p.status != pb.Status_Ok {
		return p
	}
	m.addKeySet(a, next)
	m.events++ // the receipt
	m.seal(now)
	return prediction{answer: &pb.UploadHybridKeyResponse{Version: next.GetVersion(), ServerTimeMs: now}}
}

func (m *serverModel) fetchHybridKey(req *pb.FetchHybridKeyRequest) prediction {
	if m.keys[projections.Key(req.GetIdentityKey())].revoked != nil {
		return refused(pb.Status_NotFound, pb.Reason_KEY_REVOKED)
	}
	if a := m.accounts[m.person(req.GetIdentityKey())]; a != nil && a.keySet().GetKemId() != 0 {
		return prediction{answer: &pb.FetchHybridKeyResponse{Keyset: a.keySet(), HybridRotationDue: a.rotationDue()}}
	}
	return refused(pb.Status_NotFound, pb.Reason_NO_SUCH_KEY)
}

func (m *serverModel) resolve(req *pb.ResolveUserRequest, now uint64) prediction {
	a := m.accounts[req.GetUsername()]
	switch {
	case a == nil, m.banned(a.name, now):
		return refused(pb.Status_NotFound, pb.Reason_NO_SUCH_USER)
	case m.keys[a.identity].revoked != nil:
		return refused(pb.Status_NotFound, pb.Reason_KEY_REVOKED)
	}
	return prediction{answer: &pb.ResolveUserResponse{IdentityKey: a.identity[:], Username: a.name, Version: a.binding}}
}

// identity names the identity key that a person has now.
func (m *machine) identity(name string) string {
	if a := m.model.accounts[name]; a != nil {
		return m.names[string(a.identity[:])]
	}
	return name
}

// active are the keys of a person's devices.
func (m *machine) active(name string) (keys [][]byte) {
	if a := m.model.accounts[name]; a != nil {
		for _, device := range a.devices {
			keys = append(keys, device[:])
		}
	}
	return keys
}

// deviceOf names the device of a session, also of one that ended.
func (m *machine) deviceOf(token []byte) string {
	for _, s := range m.model.sessions {
		if bytes.Equal(s.token, token) && s.isDevice() {
			return m.names[string(s.device[:])]
		}
	}
	return m.personOf(token) + "/1"
}

// drawDevice names a device of a person: mostly an active one.
func (m *machine) drawDevice(t *rapid.T, name string) string {
	if active := m.active(name); len(active) > 0 && rapid.IntRange(0, 5).Draw(t, "any device") > 0 {
		return m.names[string(rapid.SampledFrom(active).Draw(t, "active device"))]
	}
	return fmt.Sprint(name, "/", rapid.IntRange(1, 3).Draw(t, "device number"))
}

// fresh names the first key of a person that nobody has or had: mostly, else one of
// the first few.
func (m *machine) fresh(t *rapid.T, prefix string) string {
	if rapid.IntRange(0, 7).Draw(t, "known key") == 0 {
		return fmt.Sprint(prefix, rapid.IntRange(1, 3).Draw(t, "number"))
	}
	for n := 2; ; n++ {
		name := fmt.Sprint(prefix, n)
		if _, used := m.model.keys[projections.Key(m.public(name))]; !used {
			return name
		}
	}
}

// nextKeySet is the KeySet that follows a person's newest, rarely an older one's.
// What hybrid key it carries, and the signature, are left to do.
func (m *machine) nextKeySet(t *rapid.T, name string, devices [][]byte) *pb.KeySet {
	next := &pb.KeySet{
		IdentityKey: m.public(m.identity(name)), Version: 1, PreviousHash: make([]byte, 32), DeviceKeys: devices, TimeMs: m.now(),
	}
	if a := m.model.accounts[name]; a != nil {
		behind := rapid.SampledFrom([]int{0, 0, 0, 0, 0, 1}).Draw(t, "behind")
		before := a.keySets[max(0, len(a.keySets)-1-behind)]
		hash := statement.KeySetHash(serverName, before)
		next.Version, next.PreviousHash = before.GetVersion()+1, hash[:]
		next.KemId, next.HybridKey = before.GetKemId(), before.GetHybridKey()
	}
	return next
}

// renew draws another hybrid key for a KeySet that carries one; rarely it stays, or
// there is none.
func (m *machine) renew(t *rapid.T, next *pb.KeySet) {
	switch n := rapid.IntRange(0, 9).Draw(t, "hybrid key"); {
	case n == 0:
	case n == 1:
		next.KemId, next.HybridKey = 0, nil
	case next.GetKemId() != 0 || n == 2:
		next.KemId, next.HybridKey = statement.KEMXWing, m.hybridKey(fmt.Sprint("hybrid ", n))
	}
}

// twist draws whether a KeySet is one that can't follow, though its signature is right.
func (m *machine) twist(t *rapid.T, next *pb.KeySet) {
	switch rapid.IntRange(0, 15).Draw(t, "twist") {
	case 0:
		next.Version++
	case 1:
		next.PreviousHash = make([]byte, 32)
	case 2:
		next.DeviceKeys = append(next.DeviceKeys[:len(next.DeviceKeys):len(next.DeviceKeys)], m.public("stranger/1"))
	}
}
