package xsk

// Recv takes up to len(dst) received descriptors and returns how many. Their
// frames are the caller's. A packet may have several of them only with
// Config.MultiBuffer: all but its last carry PktContd.
func (s *Socket) Recv(dst []Desc) int {
	n := s.rx.get(dst)
	s.u.handDescs(dst[:n], heldByUser)
	return n
}

// Prefetch asks the processor for the first cache line of what was received, which
// the core that the kernel copied it on has in its cache: many misses at once, in
// place of one for each packet when it is looked at.
func (u *UMEM) Prefetch(descs []Desc) {
	if len(descs) > 0 {
		prefetch(&u.mem[0], &descs[0], len(descs))
	}
}
