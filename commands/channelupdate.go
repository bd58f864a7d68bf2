package commands

import (
	"cmp"
	"fmt"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// channelFields is the mask of an UpdateGroupMetadata.
type channelFields uint32

func (f channelFields) has(field pb.ChannelField) bool { return f&(1<<field) != 0 }

// any reports whether the mask has one of some fields.
func (f channelFields) any(fields ...pb.ChannelField) bool {
	for _, field := range fields {
		if f.has(field) {
			return true
		}
	}
	return false
}

// PreparedUpdate is an UpdateGroupMetadataRequest, checked outside the writer.
// Only PrepareUpdate makes one.
type PreparedUpdate struct {
	req    *pb.UpdateGroupMetadataRequest
	fields channelFields
}

// PrepareUpdate checks a request as far as that needs no view. Refusals, all
// BadRequest: MISSING_FIELD, INVALID_FIELD, KEY_INVALID, TOO_MANY_ITEMS.
func PrepareUpdate(req *pb.UpdateGroupMetadataRequest) (*PreparedUpdate, error) {
	p := &PreparedUpdate{req: req}
	for _, field := range req.GetFields() {
		if _, known := pb.ChannelField_name[int32(field)]; !known || field == 0 {
			return nil, invalid("field %d is unknown", field)
		}
		p.fields |= 1 << field
	}
	if p.fields == 0 {
		return nil, missing("fields")
	}
	if err := checkChannelText(req.GetName(), req.GetDescription()); err != nil {
		return nil, err
	}
	if err := checkChannelSettings(req.GetSettings()); err != nil {
		return nil, err
	}
	if p.fields.has(pb.ChannelField_CHANNEL_SETTINGS) && req.GetSettings() == nil {
		return nil, missing("settings")
	}
	if err := checkMemberKeys("add_members", req.GetAddMembers(), nil); err != nil {
		return nil, err
	}
	if n := len(req.GetRoles()); n > MaxRoleChanges {
		return nil, tooMany("roles", n, MaxRoleChanges)
	}
	if p.fields.has(pb.ChannelField_CHANNEL_ROLES) && len(req.GetRoles()) == 0 {
		return nil, missing("roles")
	}
	for i, change := range req.GetRoles() {
		if _, err := keyOf(fmt.Sprintf("roles[%d].identity_key", i), change.GetIdentityKey()); err != nil {
			return nil, err
		}
		if _, known := pb.ChannelRole_name[int32(change.GetRole())]; !known || change.GetRole() == 0 {
			return nil, invalid("roles[%d].role %d is unknown", i, change.GetRole())
		}
	}
	return p, nil
}

// UpdateGroupMetadata decides what the mask names, all or nothing. Refusals: those
// of seatOf; Forbidden CHANNEL_ROLE_TOO_LOW, NOT_JOINED (accept in the same call
// joins first); BadRequest VERSION_CONFLICT, LAST_OWNER, CHANNEL_FULL; NotFound
// NO_SUCH_MEMBER, NO_SUCH_USER.
func UpdateGroupMetadata(tx *Tx, p *PreparedUpdate) (*pb.UpdateGroupMetadataResponse, error) {
	s, err := seatOf(tx.View(), p.req.GetChannelId(), tx.Caller())
	if err != nil {
		return nil, err
	}
	own := s.ownFlags(p)
	if err := s.mayUpdate(p); err != nil {
		return nil, err
	}
	update, err := s.update(tx, p)
	if err != nil {
		return nil, err
	}
	var added [][]byte
	if p.fields.has(pb.ChannelField_ADD_MEMBERS) {
		if added, err = newcomers(tx, &s.channel, s.member.Account, p.req.GetAddMembers()); err != nil {
			return nil, err
		}
	}
	response := &pb.UpdateGroupMetadataResponse{
		Version: s.channel.Version, Epoch: s.channel.Epoch, Added: uint32(len(added)), ServerTimeMs: tx.Now(),
	}
	if own != nil {
		if err := tx.Emit(&pb.Event{Body: &pb.Event_ChannelMemberUpdated{ChannelMemberUpdated: own}}); err != nil {
			return nil, err
		}
	}
	if update != nil {
		response.Version = update.GetVersion()
		if err := tx.Emit(&pb.Event{Body: &pb.Event_ChannelUpdated{ChannelUpdated: update}}); err != nil {
			return nil, err
		}
	}
	if len(added) > 0 {
		if err := emitMembers(tx, s.channel.ID, &pb.ChannelMembersChanged{Added: added}); err != nil {
			return nil, err
		}
	}
	if epoch := p.req.GetSetEpoch(); p.fields.has(pb.ChannelField_SET_EPOCH) && epoch != s.channel.Epoch {
		response.Epoch = epoch
		err = tx.Emit(&pb.Event{Body: &pb.Event_ChannelEpochSet{ChannelEpochSet: &pb.ChannelEpochSet{
			ChannelId: s.channel.ID[:], ActorId: s.member.Account[:], Epoch: epoch,
		}}})
	}
	return response, err
}

// ownFlags are the changes of the caller's own flags, nil when there are none. The
// seat has them afterwards.
func (s *seat) ownFlags(p *PreparedUpdate) *pb.ChannelMemberUpdated {
	own := &pb.ChannelMemberUpdated{ChannelId: s.channel.ID[:], AccountId: s.member.Account[:]}
	if p.fields.has(pb.ChannelField_ACCEPT) && s.member.State != pb.MemberState_JOINED {
		own.Joined, s.member.State = true, pb.MemberState_JOINED
	}
	if presence := p.req.GetPresence(); p.fields.has(pb.ChannelField_SHARE_PRESENCE) && s.member.Presence != presence {
		own.Presence = &presence
	}
	if !own.GetJoined() && own.Presence == nil {
		return nil
	}
	return own
}

// mayUpdate says which fields are whose.
func (s *seat) mayUpdate(p *PreparedUpdate) error {
	f := p.fields
	if f.any(pb.ChannelField_CHANNEL_ROLES, pb.ChannelField_SET_EPOCH) {
		if err := cmp.Or(s.require(pb.ChannelRole_CHANNEL_OWNER), s.requireJoined()); err != nil {
			return err
		}
	}
	if f.any(pb.ChannelField_CHANNEL_NAME, pb.ChannelField_CHANNEL_DESCRIPTION, pb.ChannelField_CHANNEL_SETTINGS, pb.ChannelField_ADD_MEMBERS) {
		return cmp.Or(s.require(pb.ChannelRole_CHANNEL_ADMIN), s.requireJoined())
	}
	return nil
}

// update is the change of metadata and roles that the mask names, nil when it
// names none.
func (s *seat) update(tx *Tx, p *PreparedUpdate) (*pb.ChannelUpdated, error) {
	f := p.fields
	if !f.any(pb.ChannelField_CHANNEL_NAME, pb.ChannelField_CHANNEL_DESCRIPTION, pb.ChannelField_CHANNEL_SETTINGS, pb.ChannelField_CHANNEL_ROLES) {
		return nil, nil
	}
	if p.req.GetExpectedVersion() != s.channel.Version {
		return nil, Refuse(pb.Status_BadRequest, pb.Reason_VERSION_CONFLICT,
			"the channel has version %d, not %d", s.channel.Version, p.req.GetExpectedVersion())
	}
	update := &pb.ChannelUpdated{ChannelId: s.channel.ID[:], ActorId: s.member.Account[:], Version: s.channel.Version + 1}
	if f.has(pb.ChannelField_CHANNEL_NAME) {
		update.Name = present(p.req.GetName())
	}
	if f.has(pb.ChannelField_CHANNEL_DESCRIPTION) {
		update.Description = present(p.req.GetDescription())
	}
	if f.has(pb.ChannelField_CHANNEL_SETTINGS) {
		update.Settings = p.req.GetSettings()
	}
	if !f.has(pb.ChannelField_CHANNEL_ROLES) {
		return update, nil
	}
	var err error
	update.Roles, err = s.roles(tx.View(), p.req.GetRoles())
	return update, err
}

// present keeps an empty value apart from none.
func present(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// roles turns role changes into those that change something. Refusals: NotFound
// NO_SUCH_MEMBER; BadRequest LAST_OWNER, INVALID_FIELD for a person named twice.
func (s *seat) roles(view projections.Reader, changes []*pb.UpdateGroupMetadataRequest_RoleChange) ([]*pb.ChannelUpdated_Role, error) {
	var roles []*pb.ChannelUpdated_Role
	owners := int(s.channel.Owners)
	seen := map[projections.ID]bool{}
	for _, change := range changes {
		m, err := s.memberByKey(view, change.GetIdentityKey())
		if err != nil {
			return nil, err
		}
		if seen[m.Account] {
			return nil, invalid("roles names a person twice")
		}
		seen[m.Account] = true
		if m.Role == change.GetRole() {
			continue
		}
		if m.Role == pb.ChannelRole_CHANNEL_OWNER {
			owners--
		}
		if change.GetRole() == pb.ChannelRole_CHANNEL_OWNER {
			owners++
		}
		roles = append(roles, &pb.ChannelUpdated_Role{AccountId: m.Account[:], Role: change.GetRole()})
	}
	if owners == 0 {
		return nil, Refuse(pb.Status_BadRequest, pb.Reason_LAST_OWNER, "a channel keeps at least one owner")
	}
	return roles, nil
}

// NewUpdateGroupMetadata makes the command of an UpdateGroupMetadata. Refusals are
// those of PrepareUpdate.
func NewUpdateGroupMetadata(rule *pb.Rule, req *pb.UpdateGroupMetadataRequest) (*Command, error) {
	p, err := PrepareUpdate(req)
	if err != nil {
		return nil, err
	}
	return NewCommand(rule, req, func(tx *Tx) (*pb.UpdateGroupMetadataResponse, error) { return UpdateGroupMetadata(tx, p) })
}
