package sim

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"quicprochat/kt"
)

// headChecker makes every HEAD of a log again by its own means: counters, a map
// in memory and the heads tree of x/mod/sumdb/tlog.
type headChecker struct {
	next     kt.Head
	keys     kt.Map
	heads    leafHashes
	unsealed int // KT leaves since the newest HEAD
}

// add takes the next leaf with the time of its event.
func (c *headChecker) add(index uint64, raw []byte, timeMS uint64) error {
	leaf, err := kt.ParseLeaf(raw)
	if err != nil {
		return err
	}
	switch leaf.Class {
	case kt.ClassConfig:
		c.next.Config = index
	case kt.ClassKT:
		c.next.KTCount++
		c.unsealed++
		return c.keys.Insert(leaf.Label, leaf.Commitment)
	case kt.ClassHead:
		return c.head(index, raw, leaf.Head, timeMS)
	}
	return nil
}

func (c *headChecker) head(index uint64, raw []byte, got kt.Head, timeMS uint64) error {
	root, err := tlog.TreeHash(c.heads.n, &c.heads)
	if err != nil {
		return err
	}
	c.next.TimeMS, c.next.MapRoot, c.next.HeadsRoot = timeMS, c.keys.Root(), kt.Hash(root)
	if got != c.next {
		return fmt.Errorf("HEAD at index %d is %+v, not %+v", index, got, c.next)
	}
	c.next.Epoch++
	c.next.PrevHead = index
	c.unsealed = 0
	return c.heads.add(raw)
}

// end checks the end of the log: no key event is left without a HEAD.
func (c *headChecker) end() error {
	if c.unsealed > 0 {
		return fmt.Errorf("%d key events at the end of the log have no HEAD", c.unsealed)
	}
	return nil
}
