package commands_test

import (
	"bytes"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// serverModel is the whole server as maps and slices, written from the protocol
// and not from the code. Before each call it is asked for the answer, and does to
// itself what the call does. A new method is one more case of decide.
type serverModel struct {
	quotas   bool
	events   uint64                   // records that the log must have
	seals    []seal                   // which of them are HEADs
	accounts map[string]*modelAccount // by username
	sessions []*modelSession          // those that did not end
	queues   map[projections.Key]*deviceQueue
	receipts map[receiptName]*modelReceipt
	channels []*modelChannel                   // in the order they were made
	shelves  map[projections.Key]*packageShelf // KeyPackages by device
	keys     map[projections.Key]modelKey      // all that are or were somebody's
	bans     map[string]*modelBan              // from the server, by username
	reports  []*modelReport                    // in the order they came

	newestReport   uint64         // the last number that a report got
	expiredReports []*modelReport // those that were kept long enough
}

const (
	aSecond = 1000 // milliseconds
	aMinute = 60 * aSecond
	anHour  = 60 * aMinute
	aDay    = 24 * anHour
)

// seal is a HEAD that the log must have, of a moment, from one index on and before
// another. On the clock housekeeping may come first or after it, or be halfway
// through; any other HEAD has one place.
type seal struct{ at, from, before uint64 }

// seal is a HEAD that comes now, after all that was written before.
func (m *serverModel) seal(now uint64) {
	m.seals = append(m.seals, seal{at: now, from: m.events, before: m.events + 1})
	m.events++
}

// sealBetween is a HEAD on the clock, anywhere among the events since an index.
func (m *serverModel) sealBetween(from, now uint64) {
	m.events++
	m.seals = append(m.seals, seal{at: now, from: from, before: m.events})
}

// modelAccount is a person with what they registered.
type modelAccount struct {
	id           projections.ID // learned
	name         string
	identity     projections.Key
	devices      []projections.Key
	registration *pb.OpaqueRegisterFinishRequest
	upload       []byte // OPAQUE record of the newest password
	credential   [32]byte
	record       uint32       // its version
	keySets      []*pb.KeySet // all versions of the identity that is
	binding      uint32       // version of what binds the name to the identity
	handedOver   *pb.Successor
	role         pb.Role
}

func (a *modelAccount) keySet() *pb.KeySet { return a.keySets[len(a.keySets)-1] }

// modelSession is one login. device is zero for scope enroll.
type modelSession struct {
	token          []byte // learned
	account        string
	device         projections.Key
	began, expires uint64
	day            uint64 // of the last use, since 1970
}

func (s *modelSession) isDevice() bool { return s.device != projections.Key{} }

// over tells that nobody may use the session any more: 180 days are up, or it was
// not used for 30 days and the rest of one.
func (s *modelSession) over(now uint64) bool {
	return now >= s.expires || s.day < (now-30*aDay)/aDay
}

// receiptName says whose request it was.
type receiptName struct {
	device projections.Key
	method uint32
	id     projections.ID
}

type modelReceipt struct {
	body   proto.Message // without token and id
	answer proto.Message
	at     uint64
}

func newServerModel(quotas bool) *serverModel {
	return &serverModel{
		quotas: quotas, events: 1, accounts: map[string]*modelAccount{},
		queues: map[projections.Key]*deviceQueue{}, receipts: map[receiptName]*modelReceipt{},
		shelves: map[projections.Key]*packageShelf{}, keys: map[projections.Key]modelKey{}, bans: map[string]*modelBan{},
	}
}

// clone copies all that a call can change. Messages and receipts never change.
func (m *serverModel) clone() *serverModel {
	c := newServerModel(m.quotas)
	c.events, c.seals = m.events, slices.Clone(m.seals)
	c.keys, c.bans = maps.Clone(m.keys), maps.Clone(m.bans)
	c.newestReport, c.expiredReports = m.newestReport, slices.Clone(m.expiredReports)
	for _, r := range m.reports {
		report := *r
		c.reports = append(c.reports, &report)
	}
	for name, a := range m.accounts {
		account := *a
		c.accounts[name] = &account
	}
	for _, s := range m.sessions {
		session := *s
		c.sessions = append(c.sessions, &session)
	}
	for device, q := range m.queues {
		queue := *q
		queue.items, queue.drains = slices.Clone(q.items), slices.Clone(q.drains)
		c.queues[device] = &queue
	}
	for name, r := range m.receipts {
		c.receipts[name] = r
	}
	for _, channel := range m.channels {
		c.channels = append(c.channels, channel.clone())
	}
	for device, s := range m.shelves {
		c.shelves[device] = s.clone()
	}
	return c
}

// prediction is what a call must be answered with: a refusal, or a message in
// which learn fills in what the server drew.
type prediction struct {
	status pb.Status
	reason pb.Reason
	answer proto.Message
	learn  func(got proto.Message)
}

func refused(status pb.Status, reason pb.Reason) prediction {
	return prediction{status: status, reason: reason}
}

func badRequest(reason pb.Reason) prediction { return refused(pb.Status_BadRequest, reason) }

// level is who may make a request: a registration turns into a password change
// by its token.
func (r *request) level(method *rpc.Method) pb.Auth_Level {
	if finish, ok := r.Message.(*pb.OpaqueRegisterFinishRequest); ok && len(finish.GetSessionToken()) > 0 {
		return pb.Auth_FRESH
	}
	return method.Rule.GetAuth()
}

// predict is the whole way of a call: who, well-formed, seen before, decided.
func (m *serverModel) predict(r *request, now uint64) prediction {
	method := methodOf(r.Message)
	session, refusal := m.enter(r, now)
	switch {
	case refusal.status != pb.Status_Ok:
		return refusal
	case r.wrong != 0:
		return badRequest(r.wrong)
	case method.Rule.GetRetry() != pb.Retry_REQUEST_ID:
		return m.decide(r, session, now)
	}
	id, body := withoutID(r.Message)
	name := receiptName{session.device, uint32(method.ID), id}
	switch receipt, before := m.receipts[name], m.events; {
	case requestTime(id)+aDay < now || requestTime(id) > now+aDay:
		return badRequest(pb.Reason_REQUEST_ID_TIME)
	case receipt != nil && !proto.Equal(receipt.body, body):
		return badRequest(pb.Reason_REQUEST_ID_REUSED)
	case receipt != nil:
		return prediction{answer: m.stillThere(receipt.answer)}
	default:
		p := m.decide(r, session, now)
		if m.events > before {
			m.receipts[name] = &modelReceipt{body, p.answer, now}
		}
		return p
	}
}

// enter finds the session of a call and notes its use.
func (m *serverModel) enter(r *request, now uint64) (*modelSession, prediction) {
	method := methodOf(r.Message)
	session, refusal := m.authorize(tokenOf(r.Message), r.level(method), now)
	if session != nil && session.day < now/aDay {
		session.day = now / aDay
		m.events++
	}
	return session, refusal
}

func (m *serverModel) authorize(token []byte, level pb.Auth_Level, now uint64) (*modelSession, prediction) {
	if level == pb.Auth_NONE || level == pb.Auth_LOCAL || level == pb.Auth_OPTIONAL && len(token) == 0 {
		return nil, prediction{}
	}
	i := slices.IndexFunc(m.sessions, func(s *modelSession) bool { return bytes.Equal(s.token, token) })
	switch {
	case len(token) == 0:
		return nil, refused(pb.Status_Unauthorized, pb.Reason_TOKEN_MISSING)
	case i < 0 || m.sessions[i].over(now):
		return nil, refused(pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID)
	case level == pb.Auth_OPTIONAL, level == pb.Auth_ENROLL:
	case !m.sessions[i].isDevice():
		return nil, refused(pb.Status_Forbidden, pb.Reason_SCOPE)
	case level == pb.Auth_MODERATOR && m.accounts[m.sessions[i].account].role < pb.Role_MODERATOR:
		return nil, forbidden(pb.Reason_ROLE)
	case level == pb.Auth_FRESH && now-m.sessions[i].began >= 5*aMinute:
		return nil, refused(pb.Status_Forbidden, pb.Reason_REAUTH)
	}
	return m.sessions[i], prediction{}
}

// decide is what each method does.
func (m *serverModel) decide(r *request, s *modelSession, now uint64) prediction {
	switch req := r.Message.(type) {
	case *pb.OpaqueRegisterFinishRequest:
		if s != nil {
			return m.changePassword(r, req, s, now)
		}
		return m.register(r, req, now)
	case *pb.OpaqueLoginFinishRequest:
		return m.login(r, req, now)
	case *pb.UploadKeyPackageRequest:
		return m.uploadKeyPackages(r, req, s, now)
	case *pb.FetchKeyPackageRequest:
		return m.fetchKeyPackage(r, req, s, now)
	case *pb.UploadHybridKeyRequest:
		return m.uploadHybridKey(req, s, now)
	case *pb.FetchHybridKeyRequest:
		return m.fetchHybridKey(req)
	case *pb.ResolveUserRequest:
		return m.resolve(req, now)
	case *pb.EnqueueRequest:
		return m.enqueue(req, s, now)
	case *pb.BatchEnqueueRequest:
		if len(req.GetChannelId()) > 0 {
			return m.post(req, s, now)
		}
		return m.batch(req, s, now)
	case *pb.CreateChannelRequest:
		return m.createChannel(req, s, now)
	case *pb.AddMemberRequest:
		return m.addMember(req, s, now)
	case *pb.RemoveMemberRequest:
		return m.removeMember(req, s, now)
	case *pb.UpdateGroupMetadataRequest:
		return m.updateChannel(req, s, now)
	case *pb.ListGroupMembersRequest:
		return m.listMembers(req, s)
	case *pb.RotateKeysRequest:
		return m.rotateKeys(req, s, now)
	case *pb.FetchRequest:
		page, ok := m.read(s, req.AfterSeq, req.GetMaxItems(), now)
		return page.answer(ok, &pb.FetchResponse{Envelopes: page.envelopes, More: page.more, Gap: page.gap})
	case *pb.FetchWaitRequest:
		page, ok := m.read(s, req.AfterSeq, req.GetMaxItems(), now)
		return page.answer(ok, &pb.FetchWaitResponse{Envelopes: page.envelopes, More: page.more, Gap: page.gap})
	case *pb.PeekRequest:
		return m.peek(req, s, now)
	case *pb.AckRequest:
		return m.ack(req, s)
	case *pb.RevokeKeyRequest:
		return m.revokeKey(r, req, s, now)
	case *pb.RevokeAnyKeyRequest:
		return m.revokeAnyKey(req, now)
	case *pb.CheckRevocationRequest:
		return m.checkRevocation(req, now)
	case *pb.RegisterDeviceRequest:
		return m.registerDevice(r, req, s, now)
	case *pb.RevokeDeviceRequest:
		return m.revokeDevice(r, req, s, now)
	case *pb.ListDevicesRequest:
		return m.listDevices(s, now)
	case *pb.ReportMessageRequest:
		return m.report(r, req, s, now)
	case *pb.ResolveReportRequest:
		return m.resolveReport(req, s, now)
	case *pb.ListReportsRequest:
		return m.listReports(req)
	}
	return m.decideBans(r.Message, s, now)
}

// decideBans is what is done about people.
func (m *serverModel) decideBans(request proto.Message, s *modelSession, now uint64) prediction {
	switch req := request.(type) {
	case *pb.GrantRoleRequest:
		return m.changeRole(req.GetUsername(), req.GetRole(), &pb.GrantRoleResponse{Username: req.GetUsername(), ServerTimeMs: now})
	case *pb.RevokeRoleRequest:
		return m.changeRole(req.GetUsername(), pb.Role_USER, &pb.RevokeRoleResponse{Username: req.GetUsername(), ServerTimeMs: now})
	case *pb.BanUserRequest:
		return m.banUser(req, s, now)
	case *pb.UnbanUserRequest:
		return m.unbanUser(req, s, now)
	case *pb.BanAnyUserRequest:
		p := m.ban(req.GetUsername(), req.GetReason(), req.GetUntilMs(), &pb.Actor{Way: pb.Actor_SOCKET}, pb.Role_ADMIN+1, now)
		return p.or(&pb.BanAnyUserResponse{Username: req.GetUsername(), ServerTimeMs: now})
	case *pb.UnbanAnyUserRequest:
		return m.unban(req.GetUsername(), pb.Role_ADMIN+1, now).or(&pb.UnbanAnyUserResponse{Username: req.GetUsername(), ServerTimeMs: now})
	case *pb.ListBannedRequest:
		return m.listBanned(req, s, now)
	}
	panic("the model does not know this request")
}

func (m *serverModel) register(r *request, req *pb.OpaqueRegisterFinishRequest, now uint64) prediction {
	answer := &pb.OpaqueRegisterFinishResponse{IdentityKey: req.GetIdentityKey(), ServerTimeMs: now}
	if a := m.accounts[req.GetUsername()]; a != nil {
		if !proto.Equal(a.registration, req) {
			return badRequest(pb.Reason_USERNAME_TAKEN)
		}
		answer.IdentityKey, answer.KeysetVersion = a.identity[:], a.keySet().GetVersion()
		return prediction{answer: answer}
	}
	identity, device := projections.Key(req.GetIdentityKey()), projections.Key(req.GetDevice().GetDeviceKey())
	for _, reason := range []pb.Reason{pb.Reason_KEY_REVOKED, pb.Reason_KEY_IN_USE} {
		for _, key := range []projections.Key{identity, device} {
			if k, used := m.keys[key]; used && (k.revoked != nil || reason == pb.Reason_KEY_IN_USE) {
				return badRequest(reason)
			}
		}
	}
	m.keys[identity] = modelKey{account: req.GetUsername(), identity: true}
	m.keys[device] = modelKey{account: req.GetUsername(), added: now}
	m.accounts[req.GetUsername()] = &modelAccount{
		name: req.GetUsername(), identity: identity, devices: []projections.Key{device},
		registration: req, upload: req.GetUpload(), credential: r.challenge.CredentialID,
		keySets: []*pb.KeySet{req.GetKeyset()}, role: pb.Role_USER,
	}
	m.queues[device] = &deviceQueue{queueModel: queueModel{next: 1}, owner: req.GetUsername()}
	m.events += 3 // the account, and what key transparency says of name and identity
	m.seal(now)
	return prediction{answer: answer}
}

func (m *serverModel) login(r *request, req *pb.OpaqueLoginFinishRequest, now uint64) prediction {
	a := m.accounts[req.GetUsername()]
	if a == nil || a.record != r.attempt.RecordVersion {
		return badRequest(pb.Reason_LOGIN_FAILED)
	}
	if m.banned(a.name, now) {
		return forbidden(pb.Reason_BANNED)
	}
	s := &modelSession{account: a.name, began: now, expires: now + 180*aDay, day: now / aDay}
	answer := &pb.OpaqueLoginFinishResponse{
		Scope: pb.SessionScope_ENROLL_ONLY, IdentityKey: a.identity[:], ExpiresMs: s.expires,
		IdleTimeoutMs: 30 * aDay, ServerTimeMs: now,
	}
	if key := projections.Key(req.GetIdentityKey()); slices.Contains(a.devices, key) {
		s.device, answer.Scope = key, pb.SessionScope_DEVICE
	}
	m.sessions = append(m.sessions, s)
	m.events++
	return prediction{answer: answer, learn: func(got proto.Message) {
		s.token = got.(*pb.OpaqueLoginFinishResponse).GetSessionToken()
		answer.SessionToken = s.token
	}}
}

func (m *serverModel) changePassword(r *request, req *pb.OpaqueRegisterFinishRequest, s *modelSession, now uint64) prediction {
	a := m.accounts[s.account]
	if req.GetUsername() != a.name || projections.Key(req.GetIdentityKey()) != a.identity {
		return refused(pb.Status_Forbidden, pb.Reason_WRONG_ACCOUNT)
	}
	answer := &pb.OpaqueRegisterFinishResponse{
		IdentityKey: a.identity[:], KeysetVersion: a.keySet().GetVersion(), ServerTimeMs: now,
	}
	if bytes.Equal(a.upload, req.GetUpload()) && a.credential == r.challenge.CredentialID {
		return prediction{answer: answer} // decided before
	}
	a.upload, a.credential, a.record = req.GetUpload(), r.challenge.CredentialID, a.record+1
	m.sessions = slices.DeleteFunc(m.sessions, func(other *modelSession) bool { return other.account == a.name && other != s })
	m.events++
	return prediction{answer: answer}
}
