package datadir

import "errors"

// Kinds of refusals, for errors.Is.
var (
	// ErrLocked: another process holds the directory.
	ErrLocked = errors.New("data directory in use")
	// ErrNotFound: there is no server in the directory and NoCreate is set.
	ErrNotFound = errors.New("no server in the data directory")
	// ErrFormat: FORMAT is of a newer version, or not readable as one.
	ErrFormat = errors.New("format of the data directory")
	// ErrServerName: the stored server name is another one.
	ErrServerName = errors.New("server name differs")
	// ErrMode: a secret is readable or writable by others than its owner.
	ErrMode = errors.New("file mode of a secret")
	// ErrDamaged: a file that belongs to the directory is missing or broken.
	ErrDamaged = errors.New("data directory damaged")
)

// Refused is an error that an operator has to settle: starting again changes
// nothing.
type Refused struct {
	// Kind is one of the Err values of this package.
	Kind error
	// Cause says what was found, Remedy what to do about it.
	Cause, Remedy string
	// Err is the error underneath, if there is one; it is not shown.
	Err error
}

// Error is one sentence with cause and remedy.
func (r *Refused) Error() string { return r.Cause + ": " + r.Remedy }

// Unwrap gives Kind and the error underneath to errors.Is and errors.As.
func (r *Refused) Unwrap() []error {
	if r.Err == nil {
		return []error{r.Kind}
	}
	return []error{r.Kind, r.Err}
}
