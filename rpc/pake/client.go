package pake

import (
	"errors"
	"fmt"

	"github.com/bytemare/opaque"
)

// ClientRegistration is a registration under way in the client. It holds the
// password and serves one Finish. It is not safe for concurrent use.
type ClientRegistration struct {
	inner *opaque.Client
	ksf   KSF
}

// StartRegistration begins a registration and returns the RegistrationRequest
// (32 bytes).
func StartRegistration(password []byte, ksf KSF) (*ClientRegistration, []byte, error) {
	inner, err := opaque.NewClient(profile())
	if err != nil {
		return nil, nil, fmt.Errorf("OPAQUE profile: %w", err)
	}
	request, err := inner.RegistrationInit(password)
	if err != nil {
		return nil, nil, fmt.Errorf("OPAQUE registration: %w", err)
	}
	return &ClientRegistration{inner: inner, ksf: ksf}, request.Serialize(), nil
}

// Finish takes the RegistrationResponse (64 bytes) and returns the
// RegistrationRecord (192 bytes) for the server and the export key (64 bytes),
// which stays with the client. It runs the KSF: some 0.2 s with the profile's
// parameters. The state is erased, whatever happens. Errors: ErrMalformed,
// ErrUsed.
func (r *ClientRegistration) Finish(response []byte) (record, exportKey []byte, err error) {
	inner := r.inner
	if inner == nil {
		return nil, nil, ErrUsed
	}
	r.inner = nil
	defer inner.ClearState()
	if err := checkSize("registration response", response, RegistrationResponseSize); err != nil {
		return nil, nil, err
	}
	m, err := inner.Deserialize.RegistrationResponse(response)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: registration response: %w", ErrMalformed, err)
	}
	upload, exportKey, err := inner.RegistrationFinalize(m, nil, nil, r.ksf.options())
	if err != nil {
		return nil, nil, fmt.Errorf("%w: registration response: %w", ErrMalformed, err)
	}
	return upload.Serialize(), exportKey, nil
}

// ClientLogin is a login under way in the client. It holds the password and
// serves one Finish. It is not safe for concurrent use.
type ClientLogin struct {
	inner *opaque.Client
	ksf   KSF
}

// StartLogin begins a login and returns KE1 (96 bytes).
func StartLogin(password []byte, ksf KSF) (*ClientLogin, []byte, error) {
	inner, err := opaque.NewClient(profile())
	if err != nil {
		return nil, nil, fmt.Errorf("OPAQUE profile: %w", err)
	}
	ke1, err := inner.GenerateKE1(password)
	if err != nil {
		return nil, nil, fmt.Errorf("OPAQUE login: %w", err)
	}
	return &ClientLogin{inner: inner, ksf: ksf}, ke1.Serialize(), nil
}

// Finish takes KE2 (320 bytes) and returns KE3 (64 bytes) for the server, the
// session key and the export key (64 bytes each). It runs the KSF: some 0.2 s
// with the profile's parameters. The state is erased, whatever happens. Errors:
// ErrMalformed, ErrUsed, and ErrAuthentication for a wrong password, an unknown
// name and a server that does not hold the registered key.
func (l *ClientLogin) Finish(ke2 []byte) (ke3, sessionKey, exportKey []byte, err error) {
	inner := l.inner
	if inner == nil {
		return nil, nil, nil, ErrUsed
	}
	l.inner = nil
	defer inner.ClearState()
	if err := checkSize("KE2", ke2, KE2Size); err != nil {
		return nil, nil, nil, err
	}
	m, err := inner.Deserialize.KE2(ke2)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%w: KE2: %w", ErrMalformed, err)
	}
	final, sessionKey, exportKey, err := inner.GenerateKE3(m, nil, nil, l.ksf.options())
	if errors.Is(err, opaque.ErrAuthentication) {
		return nil, nil, nil, ErrAuthentication
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%w: KE2: %w", ErrMalformed, err)
	}
	return final.Serialize(), sessionKey, exportKey, nil
}
