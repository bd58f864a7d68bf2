package server

import "sync"

// pool runs tasks on a bounded number of goroutines and keeps idle ones, whose
// stacks have grown to what a request needs.
type pool struct {
	slots   chan struct{}
	tasks   chan func()
	running sync.WaitGroup
}

func newPool(size int) *pool {
	return &pool{slots: make(chan struct{}, size), tasks: make(chan func())}
}

// maxIdle is how many goroutines wait for a task when there is none.
const maxIdle = 256

// run hands a task to an idle worker or starts one; when all are busy it waits.
// It must not be called after close.
func (p *pool) run(task func()) {
	select {
	case p.tasks <- task:
		return
	default:
	}
	select {
	case p.tasks <- task:
	case p.slots <- struct{}{}:
		p.running.Go(func() { p.work(task) })
	}
}

func (p *pool) work(task func()) {
	defer func() { <-p.slots }()
	for {
		task()
		if len(p.slots) > maxIdle {
			// Others are enough; but take what waits already.
			select {
			case next, ok := <-p.tasks:
				if !ok {
					return
				}
				task = next
				continue
			default:
				return
			}
		}
		next, ok := <-p.tasks
		if !ok {
			return
		}
		task = next
	}
}

// close waits for the tasks that run and ends the workers.
func (p *pool) close() {
	close(p.tasks)
	p.running.Wait()
}
