package main

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// memoryShare of the machine (or container) is where collecting becomes eager, in
// per cent; the rest is for the page cache and other processes.
const memoryShare = 60

// tuneMemory sets the garbage collector, except for what the operator set by
// GOGC or GOMEMLIMIT. A rare collector needs a limit: where the size of the
// memory is unknown, Go's own settings stay.
func tuneMemory(environ []string) {
	env := newEnvironment(environ)
	if env["GOMEMLIMIT"] == "" {
		total := memoryTotal()
		if total == 0 {
			return
		}
		debug.SetMemoryLimit(total / 100 * memoryShare)
	}
	if env["GOGC"] == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// memoryTotal is the machine's memory in bytes, or the limit of the container
// (cgroup v2, v1) when that is lower; 0 when neither can be told.
func memoryTotal() int64 {
	total := int64(0)
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		total = parseMemInfo(string(info))
	}
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err == nil && limit > 0 && (total == 0 || limit < total) {
			total = limit
		}
	}
	return total
}

// parseMemInfo reads the line "MemTotal:  16316412 kB"; 0 when there is none.
func parseMemInfo(info string) int64 {
	for line := range strings.Lines(info) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "MemTotal:" && fields[2] == "kB" {
			if n, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				return n << 10
			}
		}
	}
	return 0
}
