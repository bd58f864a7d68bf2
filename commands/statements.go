package commands

import (
	"errors"
	"fmt"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// refuseStatement turns what kt/statement found wrong into a refusal. what names
// the statement or field; the errors of that package repeat no names or keys,
// so their text may travel. Any other error stays internal.
func refuseStatement(what string, err error) error {
	var reason pb.Reason
	switch {
	case errors.Is(err, statement.ErrUsername):
		reason = pb.Reason_USERNAME_INVALID
	case errors.Is(err, statement.ErrKeySetVersion):
		reason = pb.Reason_KEYSET_VERSION
	case errors.Is(err, statement.ErrKeySet):
		reason = pb.Reason_KEYSET_INVALID
	case errors.Is(err, statement.ErrKey):
		reason = pb.Reason_KEY_INVALID
	case errors.Is(err, statement.ErrSignature):
		reason = pb.Reason_SIGNATURE_INVALID
	default:
		return fmt.Errorf("commands: %s: %w", what, err)
	}
	return Refuse(pb.Status_BadRequest, reason, "%s: %v", what, err)
}

// missing refuses a request whose field is empty.
func missing(field string) error {
	return Refuse(pb.Status_BadRequest, pb.Reason_MISSING_FIELD, "%s is required", field)
}

// notSupported refuses a form of a request that this server does not offer.
func notSupported(what string) error {
	return Refuse(pb.Status_BadRequest, pb.Reason_NOT_SUPPORTED, "%s not offered by this server", what)
}

// invalid refuses a field that is out of its range or shape.
func invalid(format string, args ...any) error {
	return Refuse(pb.Status_BadRequest, pb.Reason_INVALID_FIELD, format, args...)
}

// tooMany refuses a list over its limit.
func tooMany(field string, have, limit int) error {
	return &Refusal{
		Status:  pb.Status_BadRequest,
		Reason:  pb.Reason_TOO_MANY_ITEMS,
		Message: fmt.Sprintf("%d %s, at most %d are allowed", have, field, limit),
		Limit:   uint64(limit),
	}
}

// tooLarge refuses a payload, or the sum of a call's payloads.
func tooLarge(what string, have, limit int) error {
	return &Refusal{
		Status:  pb.Status_BadRequest,
		Reason:  pb.Reason_PAYLOAD_TOO_LARGE,
		Message: fmt.Sprintf("%s of %d bytes, at most %d are allowed", what, have, limit),
		Limit:   uint64(limit),
	}
}

// keyOf takes a key out of a request. Only its length is looked at: a key that
// is searched for needs no more, for none that is invalid was ever stored.
func keyOf(field string, key []byte) ([KeySize]byte, error) {
	switch len(key) {
	case KeySize:
		return [KeySize]byte(key), nil
	case 0:
		return [KeySize]byte{}, missing(field)
	}
	return [KeySize]byte{}, Refuse(pb.Status_BadRequest, pb.Reason_KEY_INVALID,
		"%s has %d bytes, not %d", field, len(key), KeySize)
}
