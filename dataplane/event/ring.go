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
// different goroutines. Put copies the record (no atomic operation), Flush
// publishes what was put since the last one; a worker flushes once a burst.
//
//	Put, Flush         producer
//	Read, Arm          consumer
//	Lost, Written, Cap anyone
type Ring struct {
	buf  []Record
	mask uint32
	wake func()

	_ [line]byte
	// The producer's. tail and head count records and wrap; tail-head is at
	// most len(buf).
	next    uint32 // tail including what is not published yet
	flushed uint32 // what tail holds
	free    uint32 // slots known to be free from next on
	losing  uint64 // lost since the last Flush
	_       [line]byte

	tail    atomic.Uint32 // written by the producer
	lost    atomic.Uint64 // written by the producer
	written atomic.Uint64 // written by the producer
	_       [line]byte

	head  atomic.Uint32 // written by the consumer
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
		buf: make([]Record, records), mask: uint32(records - 1),
		free: uint32(records), wake: wake,
	}, nil
}

// Cap returns the number of records that fit.
func (r *Ring) Cap() int { return len(r.buf) }

// Put copies a record into the ring, or counts it as lost and returns false.
// It never blocks. The consumer sees the record after Flush, at the latest
// when 64 are held back or the ring is full.
func (r *Ring) Put(rec *Record) bool {
	if r.free == 0 && !r.reclaim() {
		r.losing++
		return false
	}
	r.buf[r.next&r.mask] = *rec
	r.next++
	r.free--
	if r.next-r.flushed >= autoFlush {
		r.Flush()
	}
	return true
}

// reclaim looks for slots that the consumer has freed.
func (r *Ring) reclaim() bool {
	r.free = uint32(len(r.buf)) - (r.next - r.head.Load())
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
	r.written.Store(r.written.Load() + uint64(r.next-r.flushed))
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
	r.head.Store(head + uint32(n))
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
func (r *Ring) Written() uint64 { return r.written.Load() }

// Lost returns how many records found no room, up to the last Flush.
func (r *Ring) Lost() uint64 { return r.lost.Load() }
