package statement

import (
	"errors"
	"fmt"

	"golang.org/x/text/secure/precis"
)

// ErrUsername is in the chain of errors about a username. The errors say what is
// wrong without repeating the name.
var ErrUsername = errors.New("invalid username")

// Bounds of a canonical username, in characters.
const (
	MinUsernameLength = 2
	MaxUsernameLength = 32
	// maxRawUsername bounds the input in bytes before any mapping: no character of
	// a canonical name comes from more than four bytes.
	maxRawUsername = 4 * MaxUsernameLength
)

// CanonicalUsername is the one spelling of a name under which an account is
// registered, found and written into statements: PRECIS UsernameCaseMapped
// (RFC 8265 section 3.3: width and case mapped, NFC), then 2 to 32 characters of
// a–z, 0–9, '.', '_', '-', the first a letter or digit. Applied to its own result
// it changes nothing. Errors wrap ErrUsername.
func CanonicalUsername(raw string) (string, error) {
	if raw == "" {
		return "", fmt.Errorf("%w: empty", ErrUsername)
	}
	if len(raw) > maxRawUsername {
		return "", fmt.Errorf("%w: longer than %d characters", ErrUsername, MaxUsernameLength)
	}
	name, err := precis.UsernameCaseMapped.String(raw)
	if err != nil {
		// The library's error may quote the input; its text stays out.
		return "", fmt.Errorf("%w: it holds a character that no username may have", ErrUsername)
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		case i == 0 && (c == '.' || c == '_' || c == '-'):
			return "", fmt.Errorf("%w: the first character must be a letter or digit", ErrUsername)
		default:
			return "", fmt.Errorf("%w: only a-z, 0-9, '.', '_' and '-' are allowed", ErrUsername)
		}
	}
	if len(name) < MinUsernameLength || len(name) > MaxUsernameLength {
		return "", fmt.Errorf("%w: %d characters, want %d to %d", ErrUsername, len(name), MinUsernameLength, MaxUsernameLength)
	}
	return name, nil
}
