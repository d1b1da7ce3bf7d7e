package event

// StartAt makes an empty ring's indices start at n.
func StartAt(r *Ring, n uint64) {
	r.next, r.flushed = n, n
	r.tail.Store(n)
	r.head.Store(n)
}

// Drain frees all places, as a reader would that took no time.
func Drain(r *Ring) { r.head.Store(r.tail.Load()) }
