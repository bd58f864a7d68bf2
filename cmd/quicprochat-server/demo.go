package main

import (
	"context"
	"errors"
)

// run tells the demonstration's story.
func (c *demoCommand) run(ctx context.Context, p *process) error { return errors.New("not built") }
