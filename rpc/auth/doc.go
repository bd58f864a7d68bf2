// Package auth runs the OPAQUE ceremonies of registration and login.
package auth
