package sim

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
)

// startSeeded starts a Go program whose runtime draws its randomness (order of
// select, of maps, math/rand) from a seed. The runtime takes it from 16 bytes
// that the kernel puts on the new process's stack; they are replaced before the
// program's first instruction, the way a debugger would.
func startSeeded(cmd *exec.Cmd, seed uint64) error {
	// The thread that starts a traced process is its tracer.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
		return err
	}
	err := plantSeed(pid, seed)
	return errors.Join(err, syscall.PtraceDetach(pid))
}

func plantSeed(pid int, seed uint64) error {
	auxv, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/auxv")
	if err != nil {
		return err
	}
	const atRandom = 25
	const word = 8
	for i := 0; i+2*word <= len(auxv); i += 2 * word {
		if binary.NativeEndian.Uint64(auxv[i:]) == atRandom {
			var bytes [16]byte
			binary.NativeEndian.PutUint64(bytes[:], seed)
			binary.NativeEndian.PutUint64(bytes[8:], ^seed)
			_, err := syscall.PtracePokeData(pid, uintptr(binary.NativeEndian.Uint64(auxv[i+word:])), bytes[:])
			return err
		}
	}
	return errors.New("the kernel gave no random bytes")
}
