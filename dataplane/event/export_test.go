package event

// StartAt makes an empty ring's indices start at n.
func StartAt(r *Ring, n uint32) {
	r.next, r.flushed = n, n
	r.tail.Store(n)
	r.head.Store(n)
}
