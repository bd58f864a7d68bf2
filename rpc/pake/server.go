package pake

import (
	"bytes"
	"fmt"

	"github.com/bytemare/opaque"
)

// Server is the server's end. It is safe for concurrent use; calls cost some
// 100 to 400 µs of CPU, so callers bound how many run at once.
type Server struct {
	inner *opaque.Server
}

// NewServer checks the material (ErrMaterial) and returns a server with it.
func NewServer(m *Material) (*Server, error) {
	inner, err := opaque.NewServer(profile())
	if err != nil {
		return nil, fmt.Errorf("OPAQUE profile: %w", err)
	}
	material, err := m.library(inner.Deserialize)
	if err != nil {
		return nil, err
	}
	// Without key material the library's RegistrationResponse panics: a Server
	// never exists without it.
	if err := inner.SetKeyMaterial(material); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMaterial, err)
	}
	return &Server{inner: inner}, nil
}

// RegistrationResponse answers a RegistrationRequest (32 bytes) under a
// credential identifier of 32 bytes, which must be stored with the record. The
// response has 64 bytes. Errors are ErrMalformed.
func (s *Server) RegistrationResponse(request, credentialID []byte) ([]byte, error) {
	if err := checkSize("registration request", request, RegistrationRequestSize); err != nil {
		return nil, err
	}
	if err := checkSize("credential identifier", credentialID, CredentialIDSize); err != nil {
		return nil, err
	}
	m, err := s.inner.Deserialize.RegistrationRequest(request)
	if err != nil {
		return nil, fmt.Errorf("%w: registration request: %w", ErrMalformed, err)
	}
	response, err := s.inner.RegistrationResponse(m, credentialID, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: registration request: %w", ErrMalformed, err)
	}
	return response.Serialize(), nil
}

// Record is a decoded RegistrationRecord. It is read-only and may be used by
// several logins at once.
type Record struct {
	inner opaque.ClientRecord
}

// ParseRecord decodes a RegistrationRecord (192 bytes) as a client uploaded it or
// NewFakeRecord made it. Errors are ErrMalformed.
func (s *Server) ParseRecord(record []byte) (*Record, error) {
	if err := checkSize("registration record", record, RecordSize); err != nil {
		return nil, err
	}
	m, err := s.inner.Deserialize.RegistrationRecord(bytes.Clone(record))
	if err != nil {
		return nil, fmt.Errorf("%w: registration record: %w", ErrMalformed, err)
	}
	return &Record{inner: opaque.ClientRecord{RegistrationRecord: m}}, nil
}

// NewFakeRecord returns a record (192 bytes) that no password opens (RFC 9807
// §10.9). A server draws one when it is created and stores it: it stands in for
// every unknown name, together with a credential identifier derived from the
// name. A fresh one per call would be measurably slower than a real record.
func NewFakeRecord() ([]byte, error) {
	record, err := profile().GetFakeRecord(nil)
	if err != nil {
		return nil, fmt.Errorf("OPAQUE fake record: %w", err)
	}
	return record.Serialize(), nil
}

// LoginState is what the server keeps between KE2 and KE3. It holds a secret and
// must serve one LoginFinish only, which its owner ensures.
type LoginState struct {
	clientMAC  [KE3Size]byte
	sessionKey [SessionKeySize]byte
}

// LoginStart answers a KE1 (96 bytes) with a KE2 (320 bytes) for a record and
// the credential identifier it was registered under (32 bytes). It does the same
// work for real and fake records. Errors are ErrMalformed.
func (s *Server) LoginStart(ke1 []byte, record *Record, credentialID []byte) (ke2 []byte, state *LoginState, err error) {
	if err := checkSize("KE1", ke1, KE1Size); err != nil {
		return nil, nil, err
	}
	if err := checkSize("credential identifier", credentialID, CredentialIDSize); err != nil {
		return nil, nil, err
	}
	m, err := s.inner.Deserialize.KE1(ke1)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: KE1: %w", ErrMalformed, err)
	}
	client := record.inner // a copy: the identifier differs per call
	client.CredentialIdentifier = credentialID
	response, output, err := s.inner.GenerateKE2(m, &client)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: KE1: %w", ErrMalformed, err)
	}
	// The library takes any expected MAC, also an empty one, which an empty KE3
	// would match.
	if len(output.ClientMAC) != KE3Size || len(output.SessionSecret) != SessionKeySize {
		return nil, nil, fmt.Errorf("OPAQUE KE2: MAC of %d and key of %d bytes", len(output.ClientMAC), len(output.SessionSecret))
	}
	state = &LoginState{
		clientMAC:  [KE3Size]byte(output.ClientMAC),
		sessionKey: [SessionKeySize]byte(output.SessionSecret),
	}
	return response.Serialize(), state, nil
}

// LoginFinish checks a KE3 (64 bytes), in constant time. It returns the session
// key, or ErrMalformed, or ErrAuthentication for a wrong password and for a fake
// record.
func (s *Server) LoginFinish(state *LoginState, ke3 []byte) (sessionKey []byte, err error) {
	if err := checkSize("KE3", ke3, KE3Size); err != nil {
		return nil, err
	}
	if state == nil || state.clientMAC == ([KE3Size]byte{}) {
		return nil, ErrAuthentication
	}
	m, err := s.inner.Deserialize.KE3(ke3)
	if err != nil {
		return nil, fmt.Errorf("%w: KE3: %w", ErrMalformed, err)
	}
	if err := s.inner.LoginFinish(m, state.clientMAC[:]); err != nil {
		return nil, ErrAuthentication
	}
	return bytes.Clone(state.sessionKey[:]), nil
}
