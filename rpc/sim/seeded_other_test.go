//go:build !linux

package sim

import "os/exec"

// startSeeded starts a program. Here its runtime's own randomness has no seed.
func startSeeded(cmd *exec.Cmd, _ uint64) error { return cmd.Start() }
