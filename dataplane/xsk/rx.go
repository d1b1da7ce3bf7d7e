package xsk

// Recv takes up to len(dst) received descriptors and returns how many. Their
// frames are the caller's. A packet may have several of them only with
// Config.MultiBuffer: all but its last carry PktContd.
func (s *Socket) Recv(dst []Desc) int {
	n := s.rx.get(dst)
	s.u.handDescs(dst[:n], heldByUser)
	return n
}
