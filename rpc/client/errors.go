package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quic-go/quic-go"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

var (
	// ErrClosed: the Client was closed.
	ErrClosed = errors.New("client closed")
	// ErrOutcomeUnknown: the call may or may not have been performed. The error
	// is an *OutcomeError.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrLoginFailed: name and password do not open an account here. Which of
	// them is wrong is not told.
	ErrLoginFailed = errors.New("login failed: wrong username or password")
	// ErrProtocol: the server's reply is not what the protocol says.
	ErrProtocol = errors.New("protocol error")
)

// StatusError is a reply with a status other than Ok.
type StatusError struct {
	// Method is the name of the call, "Enqueue".
	Method string
	Status pb.Status
	Reason pb.Reason
	// Detail is the reply's body, never nil.
	Detail *pb.ErrorDetail
}

func (e *StatusError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Method, rpc.StatusName(e.Status))
	if e.Reason != pb.Reason_REASON_UNSPECIFIED {
		fmt.Fprintf(&b, " %s", rpc.ReasonName(e.Reason))
	}
	if e.Detail.GetMessage() != "" {
		fmt.Fprintf(&b, ": %s", e.Detail.GetMessage())
	}
	if limit := e.Detail.GetLimit(); limit > 0 {
		fmt.Fprintf(&b, " (limit %d)", limit)
	}
	if wait := e.RetryAfter(); wait > 0 {
		fmt.Fprintf(&b, " (try again in %s)", wait.Round(time.Millisecond))
	}
	if id := e.Detail.GetErrorId(); id != "" {
		fmt.Fprintf(&b, " (the server's log has it as %s)", id)
	}
	return b.String()
}

// RetryAfter is how long the server asks to wait; 0 when it did not say.
func (e *StatusError) RetryAfter() time.Duration {
	const longest = 365 * 24 * time.Hour
	ms := e.Detail.GetRetryAfterMs()
	if ms > uint64(longest/time.Millisecond) {
		return longest
	}
	return time.Duration(ms) * time.Millisecond
}

// ReasonOf returns the reason of the StatusError in err's chain, else
// REASON_UNSPECIFIED.
func ReasonOf(err error) pb.Reason {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Reason
	}
	return pb.Reason_REASON_UNSPECIFIED
}

// OutcomeError says that a call that may have had an effect got no answer.
// errors.Is finds ErrOutcomeUnknown and the cause.
type OutcomeError struct {
	// Method is the name of the call.
	Method string
	// RequestID is the id it was sent under; nil for methods without. The same
	// request with this id set asks for its outcome, within 24 h.
	RequestID []byte
	// Cause is the last failure.
	Cause error
}

func (e *OutcomeError) Error() string {
	return fmt.Sprintf("%s: outcome unknown: %v", e.Method, e.Cause)
}

// Unwrap lets errors.Is find both.
func (e *OutcomeError) Unwrap() []error { return []error{ErrOutcomeUnknown, e.Cause} }

// ServerNameError says that the server calls itself other than the client was
// told to call it. Signed statements would not verify.
type ServerNameError struct {
	Configured, Reported string
}

func (e *ServerNameError) Error() string {
	return fmt.Sprintf("the server is named %q, but this client was configured for %q", e.Reported, e.Configured)
}

// ConnectError says why no connection came about.
type ConnectError struct {
	Addr string
	// Permanent: trying again does not help (wrong CA, wrong name, no such
	// protocol).
	Permanent bool
	Cause     error
}

func (e *ConnectError) Error() string {
	var cert *tls.CertificateVerificationError
	if errors.As(e.Cause, &cert) {
		return fmt.Sprintf("connect to %s: the server's certificate does not fit the pinned CA and server name: %v", e.Addr, cert.Err)
	}
	return fmt.Sprintf("connect to %s: %v", e.Addr, e.Cause)
}

func (e *ConnectError) Unwrap() error { return e.Cause }

// isPermanent tells handshake failures, which will fail again, from silence.
func isPermanent(err error) bool {
	var cert *tls.CertificateVerificationError
	var transport *quic.TransportError
	var version *quic.VersionNegotiationError
	switch {
	case errors.As(err, &cert), errors.As(err, &version):
		return true
	case errors.As(err, &transport):
		return transport.ErrorCode.IsCryptoError()
	}
	return false
}
