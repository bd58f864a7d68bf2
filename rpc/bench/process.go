package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Usage is what the kernel counted for a process.
type Usage struct {
	// CPU is the time that all its threads ran, in steps of 10 ms.
	CPU time.Duration
	// Resident is the memory that it holds, in bytes.
	Resident int64
}

// clockTick is the unit of times in /proc, the same on every Linux.
const clockTick = 10 * time.Millisecond

// UsageOf reads /proc/PID/stat (proc_pid_stat(5)), so it works on Linux, for
// processes of any user.
func UsageOf(pid int) (Usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, fmt.Errorf("what process %d used can't be read, which needs Linux and a process that runs: %w", pid, err)
	}
	return parseStat(stat)
}

// parseStat reads user and system time (fields 14 and 15) and resident pages
// (24). The name in field 2 may hold anything; it ends at the last parenthesis.
func parseStat(stat []byte) (Usage, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const state = 3 // number of the first field behind the name
	if len(fields) <= 24-state {
		return Usage{}, errors.New("/proc: a stat line with too few fields")
	}
	var numbers [3]int64
	for i, field := range []int{14, 15, 24} {
		n, err := strconv.ParseInt(string(fields[field-state]), 10, 64)
		if err != nil {
			return Usage{}, fmt.Errorf("/proc: field %d of a stat line: %w", field, err)
		}
		numbers[i] = n
	}
	return Usage{
		CPU:      time.Duration(numbers[0]+numbers[1]) * clockTick,
		Resident: numbers[2] * int64(os.Getpagesize()),
	}, nil
}
