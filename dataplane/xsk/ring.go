package xsk

import "sync/atomic"

// slot is what a ring carries: descriptors (rx, tx) or frame addresses (fill,
// completion).
type slot interface{ Desc | uint64 }

// ring is the memory that one ring shares with the kernel. Indices run freely
// and wrap at 2^32; a slot is index & mask. The zero ring is always empty and
// always full, so that a socket without one needs no special case.
type ring[T slot] struct {
	producer *uint32 // written by the side that produces, read by the other
	consumer *uint32 // written by the side that consumes, read by the other
	flags    *uint32 // written by the kernel, read by us
	slots    []T     // written by the side that produces; len is a power of two
	mask     uint32  // constant
}

// needWakeup reports whether the kernel waits for a system call before it
// looks at the ring again.
func (r *ring[T]) needWakeup() bool {
	return r.flags != nil && atomic.LoadUint32(r.flags)&ringNeedWakeup != 0
}

// producer is our side of a ring that we produce into: tx and fill. It belongs
// to the socket's owner.
type producer[T slot] struct {
	ring[T]
	next  uint32 // what we have published in *ring.producer
	limit uint32 // first index that may not be written yet: the kernel's consumer as last read, plus the size
}

func newProducer[T slot](r ring[T]) producer[T] {
	p := producer[T]{ring: r}
	if r.producer != nil {
		p.next = atomic.LoadUint32(r.producer)
		p.limit = p.next
	}
	return p
}

// reserve returns how many slots, at most n, may be written. It reads the
// kernel's index only if the window known from the last time is too small.
func (p *producer[T]) reserve(n int) int {
	free := p.limit - p.next
	if uint64(free) >= uint64(n) {
		return n
	}
	if p.consumer == nil {
		return 0
	}
	size := uint32(len(p.slots))
	p.limit = atomic.LoadUint32(p.consumer) + size
	if free = p.limit - p.next; free > size {
		// The consumer claims slots that were never produced. Nothing may
		// be written until it makes sense again.
		p.limit, free = p.next, 0
	}
	return min(n, int(free))
}

// put copies as much of src as fits and publishes it with one store.
func (p *producer[T]) put(src []T) int {
	n := p.reserve(len(src))
	if n == 0 {
		return 0
	}
	k := copy(p.slots[p.next&p.mask:], src[:n])
	copy(p.slots, src[k:n])
	p.next += uint32(n)
	atomic.StoreUint32(p.producer, p.next) // releases the slots to the kernel
	return n
}

// pending returns how many slots the kernel has not consumed.
func (p *producer[T]) pending() int {
	if p.consumer == nil {
		return 0
	}
	return int(min(p.next-atomic.LoadUint32(p.consumer), uint32(len(p.slots))))
}

// consumer is our side of a ring that we consume from: rx and completion. It
// belongs to the socket's owner.
type consumer[T slot] struct {
	ring[T]
	next  uint32 // what we have published in *ring.consumer
	limit uint32 // the kernel's producer as last read
}

func newConsumer[T slot](r ring[T]) consumer[T] {
	c := consumer[T]{ring: r}
	if r.consumer != nil {
		c.next = atomic.LoadUint32(r.consumer)
		c.limit = c.next
	}
	return c
}

// ready returns how many slots, at most n, may be read. It reads the kernel's
// index only if the window known from the last time is too small.
func (c *consumer[T]) ready(n int) int {
	avail := c.limit - c.next
	if uint64(avail) >= uint64(n) {
		return n
	}
	if c.producer == nil {
		return 0
	}
	c.limit = atomic.LoadUint32(c.producer) // acquires the slots
	if avail = c.limit - c.next; avail > uint32(len(c.slots)) {
		// The producer claims more slots than there are. Whatever they
		// hold isn't ours to believe.
		c.limit, avail = c.next, 0
	}
	return min(n, int(avail))
}

// get copies as much as there is into dst and gives the slots back with one
// store.
func (c *consumer[T]) get(dst []T) int {
	n := c.ready(len(dst))
	if n == 0 {
		return 0
	}
	k := copy(dst[:n], c.slots[c.next&c.mask:])
	copy(dst[k:n], c.slots)
	c.next += uint32(n)
	atomic.StoreUint32(c.consumer, c.next) // releases the slots to the kernel
	return n
}
