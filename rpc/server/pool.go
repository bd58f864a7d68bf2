package server

import "sync"

// maxIdle is how many workers wait when there is nothing to do.
const maxIdle = 256

// pool handles tasks on a bounded number of goroutines and keeps idle ones,
// whose stacks have grown to what a request needs.
type pool[T any] struct {
	handle  func(T)
	slots   chan struct{}
	tasks   chan T
	running sync.WaitGroup
}

func newPool[T any](size int, handle func(T)) *pool[T] {
	return &pool[T]{handle: handle, slots: make(chan struct{}, size), tasks: make(chan T)}
}

// run hands a task to an idle worker or starts one; when all are busy it waits.
// It must not be called after close.
func (p *pool[T]) run(task T) {
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

func (p *pool[T]) work(task T) {
	defer func() { <-p.slots }()
	for ok := true; ok; task, ok = p.next() {
		p.handle(task)
	}
}

// next waits for a task; a worker of many takes only one that waits already.
func (p *pool[T]) next() (T, bool) {
	if len(p.slots) <= maxIdle {
		task, ok := <-p.tasks
		return task, ok
	}
	select {
	case task, ok := <-p.tasks:
		return task, ok
	default:
		var none T
		return none, false
	}
}

// close waits for the tasks that run and ends the workers.
func (p *pool[T]) close() {
	close(p.tasks)
	p.running.Wait()
}
