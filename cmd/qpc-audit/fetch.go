package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"quicprochat/kt"
)

const (
	// fetchers is how many resources are asked for at a time.
	fetchers = 8
	// deltaFetchers is how many deltas: they may be large.
	deltaFetchers = 2
)

// fetched is a resource, or why it did not come.
type fetched struct {
	path kt.TilePath
	body []byte
	err  error
}

// fetchAll asks for resources, atOnce at a time, and hands them to use in order.
// The first error ends it.
func fetchAll(ctx context.Context, src source, paths iter.Seq[kt.TilePath], atOnce int, use func(kt.TilePath, []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pipeline := make(chan chan fetched, atOnce-1)
	go func() {
		defer close(pipeline)
		for path := range paths {
			result := make(chan fetched, 1)
			select {
			case pipeline <- result:
			case <-ctx.Done():
				return
			}
			go func() {
				body, err := src.resource(ctx, path)
				result <- fetched{path, body, err}
			}()
		}
	}()
	var err error
	for result := range pipeline {
		got := <-result
		if err != nil {
			continue // what was begun is awaited
		}
		if err = got.err; err == nil {
			err = use(got.path, got.body)
		}
		if err != nil {
			cancel()
		}
	}
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// entries takes an entry bundle apart: exactly width leaves, each behind its
// length as a big-endian 16-bit number (C2SP tlog-tiles).
func entries(bundle []byte, width int) ([][]byte, error) {
	leaves := make([][]byte, 0, width)
	for rest := bundle; len(rest) > 0; {
		if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
			return nil, fmt.Errorf("an entry bundle ends inside entry %d", len(leaves))
		}
		n := 2 + int(binary.BigEndian.Uint16(rest))
		leaves = append(leaves, rest[2:n:n])
		rest = rest[n:]
	}
	if len(leaves) != width {
		return nil, fmt.Errorf("an entry bundle has %d entries, want %d", len(leaves), width)
	}
	return leaves, nil
}
