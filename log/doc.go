// Package log is the append-only log of events: the truth from which everything else is folded.
package log
