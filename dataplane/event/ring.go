package event

import (
	"fmt"
	"sync/atomic"
)

// line is twice the cache line of amd64, whose prefetcher fetches pairs.
const line = 128

// autoFlush is how many records Put holds back at most.
const autoFlush = 64

// Ring is a queue of Records with one producer and one consumer, which may be
// different goroutines. Next hands out the record to write, Commit keeps it (no
// atomic operation), Flush publishes what was kept since the last one; a worker
// flushes once a burst.
//
// A record is written where it stays: some 10 ns while its lines are in the
// producer's cache, some 20 when the consumer has them, which reads behind it. A
// record that is made elsewhere and copied (Put) costs as much again, because the
// copy waits for what made it to reach the cache.
//
//	Next, Commit, Put, Flush producer
//	Read, Arm                consumer
//	Lost, Written, Cap       anyone
type Ring struct {
	buf  []Record
	mask uint64
	wake func()

	_ [line]byte
	// The producer's. tail and head count records; tail-head is at most len(buf).
	next    uint64 // tail including what is not published yet
	flushed uint64 // what tail holds
	free    uint64 // slots known to be free from next on
	losing  uint64 // lost since the last Flush
	_       [line]byte

	tail atomic.Uint64 // written by the producer
	lost atomic.Uint64 // written by the producer
	_    [line]byte

	head  atomic.Uint64 // written by the consumer
	armed atomic.Bool   // set by the consumer, cleared by the producer
	_     [line]byte
}

// SizeError reports a ring size that is not a power of two from 2 to 1<<30.
type SizeError struct{ Records int }

func (e *SizeError) Error() string {
	return fmt.Sprintf("event ring of %d records: want a power of two from 2 to %d", e.Records, 1<<30)
}

// NewRing returns a ring for a number of records that is a power of two. wake,
// if not nil, is called by Flush when a consumer that called Arm has something
// to read; it must not block (send on a buffered channel with a default).
func NewRing(records int, wake func()) (*Ring, error) {
	if records < 2 || records > 1<<30 || records&(records-1) != 0 {
		return nil, &SizeError{records}
	}
	return &Ring{
		buf: make([]Record, records), mask: uint64(records - 1),
		free: uint64(records), wake: wake,
	}, nil
}

// Cap returns the number of records that fit.
func (r *Ring) Cap() int { return len(r.buf) }

// Next returns the record to write next, or nil if there is no room, and counts
// that as a loss. It never blocks. The record holds what its place was used for
// before, and belongs to the producer until Commit; without that, the next call
// returns it again.
func (r *Ring) Next() *Record {
	if r.free == 0 && !r.reclaim() {
		r.losing++
		return nil
	}
	return &r.buf[r.next&r.mask]
}

// Commit keeps the record that Next returned. The consumer sees it after Flush, at
// the latest when 64 are held back or the ring is full.
func (r *Ring) Commit() {
	r.next++
	r.free--
	if r.next-r.flushed >= autoFlush {
		r.Flush()
	}
}

// Put copies a record into the ring, or counts it as lost and returns false.
func (r *Ring) Put(rec *Record) bool {
	at := r.Next()
	if at == nil {
		return false
	}
	*at = *rec
	r.Commit()
	return true
}

// reclaim looks for slots that the consumer has freed.
func (r *Ring) reclaim() bool {
	r.free = uint64(len(r.buf)) - (r.next - r.head.Load())
	if r.free == 0 {
		r.Flush()
	}
	return r.free > 0
}

// Flush publishes records and losses.
func (r *Ring) Flush() {
	if r.losing != 0 {
		r.lost.Store(r.lost.Load() + r.losing)
		r.losing = 0
	}
	if r.next == r.flushed {
		return
	}
	r.flushed = r.next
	r.tail.Store(r.next)
	// The store above and the load below are sequentially consistent, as are
	// their mirror images in Arm: one of both sides sees the other.
	if r.wake != nil && r.armed.Load() && r.armed.CompareAndSwap(true, false) {
		r.wake()
	}
}

// Read moves up to len(dst) published records into dst and returns how many.
func (r *Ring) Read(dst []Record) int {
	head := r.head.Load()
	n := min(int(r.tail.Load()-head), len(dst))
	if n == 0 {
		return 0
	}
	first := r.buf[head&r.mask:]
	k := copy(dst[:n], first)
	copy(dst[k:n], r.buf)
	r.head.Store(head + uint64(n))
	return n
}

// Arm asks for one call of wake at the next Flush that publishes records. It
// returns false, and asks for nothing, if there is something to read already.
func (r *Ring) Arm() bool {
	r.armed.Store(true)
	if r.tail.Load() == r.head.Load() {
		return true
	}
	r.armed.Store(false)
	return false
}

// Written returns how many records were published. Together with Lost it is
// what Put was called for, up to the last Flush.
func (r *Ring) Written() uint64 { return r.tail.Load() }

// Lost returns how many records found no room, up to the last Flush.
func (r *Ring) Lost() uint64 { return r.lost.Load() }
