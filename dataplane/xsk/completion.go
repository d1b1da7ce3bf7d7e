package xsk

// Complete takes up to len(dst) frames that have been sent and returns how
// many: the addresses of the frames' first bytes, whatever offset was sent.
// They are the caller's.
func (s *Socket) Complete(dst []uint64) int {
	n := s.comp.get(dst)
	u := s.u
	owner, shift := u.holder, u.shift&63
	for i, a := range dst[:n] {
		dst[i] = a & u.base
		if f := a >> shift; f < uint64(len(owner)) {
			owner[f] = heldByUser
		}
	}
	return n
}

// Reclaim frees all frames that have been sent and returns how many. It is
// Complete followed by UMEM.Free without a buffer between them.
func (s *Socket) Reclaim() int {
	u := s.u
	base := len(u.free)
	n := s.Complete(u.free[base:cap(u.free)])
	u.free = u.free[:base+n]
	return n
}
