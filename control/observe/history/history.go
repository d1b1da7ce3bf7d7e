// Package history is a ring of the last events of a node, with one writer and
// any number of readers. The writer never waits: a reader that falls behind by
// more than the ring holds finds out how far. A reader costs nothing but its
// position, however slow it is.
//
// Append costs a lock and a copy an event; readers copy in batches under a read
// lock.
package history

import (
	"context"
	"sync"
)

// Ring holds the last events. Events have numbers: 0 is the first one ever.
type Ring[T any] struct {
	mu      sync.RWMutex
	buf     []T
	next    uint64 // number of the next event
	wake    chan struct{}
	waiting bool // someone holds wake
}

// New returns a ring of size events, 1 or more.
func New[T any](size int) *Ring[T] {
	return &Ring[T]{buf: make([]T, max(size, 1)), wake: make(chan struct{})}
}

// Cap returns how many events the ring holds at most.
func (r *Ring[T]) Cap() int { return len(r.buf) }

// Append adds events and wakes those who wait. Only one goroutine may call it.
func (r *Ring[T]) Append(events ...T) {
	if len(events) == 0 {
		return
	}
	r.mu.Lock()
	for len(events) > 0 {
		n := copy(r.buf[r.next%uint64(len(r.buf)):], events)
		events = events[n:]
		r.next += uint64(n)
	}
	if r.waiting {
		close(r.wake)
		r.wake, r.waiting = make(chan struct{}), false
	}
	r.mu.Unlock()
}

// Bounds returns the numbers of the oldest event held and of the next one to
// come.
func (r *Ring[T]) Bounds() (oldest, next uint64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.oldest(), r.next
}

func (r *Ring[T]) oldest() uint64 {
	if r.next <= uint64(len(r.buf)) {
		return 0
	}
	return r.next - uint64(len(r.buf))
}

// Read copies events from number from on into dst: start is the number of the
// first of them, greater than from where events have gone since, and n how many
// there are.
func (r *Ring[T]) Read(from uint64, dst []T) (start uint64, n int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	start = max(from, r.oldest())
	if start >= r.next {
		return start, 0
	}
	n = min(len(dst), int(r.next-start))
	at := start % uint64(len(r.buf))
	k := copy(dst[:n], r.buf[at:])
	copy(dst[k:n], r.buf)
	return start, n
}

// Wait returns when there is an event of number from or later, or ctx ends.
func (r *Ring[T]) Wait(ctx context.Context, from uint64) error {
	for {
		r.mu.Lock()
		if r.next > from {
			r.mu.Unlock()
			return nil
		}
		wake := r.wake
		r.waiting = true
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		}
	}
}
