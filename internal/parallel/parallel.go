// Package parallel spreads independent pieces of work over the goroutines of one
// bounded pool. What the pieces are never depends on the number of goroutines,
// so that results do not either.
package parallel

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// Workers is n, or GOMAXPROCS where n is not positive.
func Workers(n int) int {
	if n <= 0 {
		return runtime.GOMAXPROCS(0)
	}
	return n
}

// For calls f(i) once for each i in [0, n) and returns when all calls have
// returned. The caller's goroutine and at most workers-1 helpers take indices in
// increasing order, one at a time; workers ≤ 0 means GOMAXPROCS. Calls may nest:
// the helpers are bounded by the number of processors for the whole process, a
// call takes those that are idle, and the caller never waits for one that has
// not begun, so nesting cannot deadlock. A panic in f reaches the caller once
// the other goroutines have stopped; indices not yet begun are then skipped.
func For(workers, n int, f func(i int)) {
	workers = min(Workers(workers), n)
	if workers <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	t := tasks.Get().(*task)
	t.f, t.n = f, int64(n)
	t.next.Store(0)
	t.done.Store(0)
	pool.run(t, workers-1)
	if p := t.panicked.Swap(nil); p != nil {
		panic(*p)
	}
	t.f = nil
	tasks.Put(t)
}

// task is one running call of For.
type task struct {
	f        func(i int)
	n        int64
	next     atomic.Int64 // the next index to take
	done     atomic.Int64 // helpers that have begun and ended
	idle     chan struct{}
	panicked atomic.Pointer[any]
	helpers  []*helper // those asked, kept for its memory
}

var tasks = sync.Pool{New: func() any { return &task{idle: make(chan struct{}, 1)} }}

// work takes indices until none is left.
func (t *task) work() {
	defer func() {
		if p := recover(); p != nil {
			t.panicked.CompareAndSwap(nil, &p)
			t.next.Store(t.n)
		}
	}()
	for {
		i := t.next.Add(1) - 1
		if i >= t.n {
			return
		}
		t.f(int(i))
	}
}

// helper is a goroutine that works for others. Its slot is nil while it waits, a
// task that it has been asked to join, or busy.
type helper struct {
	slot   atomic.Pointer[task]
	asleep atomic.Bool
	wake   chan struct{}
}

var busy = new(task)

// helperPool holds the process's helpers, one for each processor but the
// caller's, started when first wanted.
type helperPool struct {
	mu   sync.Mutex
	list atomic.Pointer[[]*helper]
}

var pool helperPool

// atLeast returns the helpers, having started more if there are fewer than n and
// fewer than processors allow.
func (p *helperPool) atLeast(n int) []*helper {
	if list := p.list.Load(); list != nil && len(*list) >= n {
		return *list
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*helper
	if old := p.list.Load(); old != nil {
		list = *old
	}
	n = min(n, runtime.GOMAXPROCS(0)-1)
	if len(list) < n {
		list = append([]*helper(nil), list...)
		for len(list) < n {
			h := &helper{wake: make(chan struct{}, 1)}
			go h.loop()
			list = append(list, h)
		}
		p.list.Store(&list)
	}
	return list
}

// run works on t with at most n helpers.
func (p *helperPool) run(t *task, n int) {
	asked := t.helpers[:0]
	for _, h := range p.atLeast(n) {
		if len(asked) == n {
			break
		}
		if h.slot.Load() == nil && h.slot.CompareAndSwap(nil, t) {
			asked = append(asked, h)
			if h.asleep.Load() {
				select {
				case h.wake <- struct{}{}:
				default:
				}
			}
		}
	}
	t.helpers = asked
	t.work()

	// Whoever has not begun by now need not.
	begun := int64(0)
	for i, h := range asked {
		if !h.slot.CompareAndSwap(t, nil) {
			begun++
		}
		asked[i] = nil
	}
	if begun == 0 {
		return
	}
	for range spins {
		if t.done.Load() == begun {
			return
		}
		runtime.Gosched()
	}
	// done counts down from here by the difference, and the helper that brings
	// it to nought sends the word.
	if t.done.Add(-begun-waiting) != -waiting {
		<-t.idle
	}
}

// waiting marks a done count whose owner sleeps.
const waiting = 1 << 32

// spins is how many times a goroutine yields in hope of work or of an end
// before it sleeps: some tens of microseconds, about what waking costs.
const spins = 200

func (h *helper) loop() {
	for {
		t := h.next()
		if !h.slot.CompareAndSwap(t, busy) {
			continue // the caller has taken the request back
		}
		t.work()
		h.slot.Store(nil)
		if t.done.Add(1) == -waiting {
			t.idle <- struct{}{}
		}
	}
}

// next waits for a request.
func (h *helper) next() *task {
	for {
		for range spins {
			if t := h.slot.Load(); t != nil {
				return t
			}
			runtime.Gosched()
		}
		h.asleep.Store(true)
		if h.slot.Load() == nil {
			<-h.wake
		}
		h.asleep.Store(false)
	}
}
