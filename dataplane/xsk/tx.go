package xsk

import "golang.org/x/sys/unix"

// Send puts as many of src on the ring as it has room for and returns how
// many; those frames are the kernel's until Complete returns them, the rest
// stay the caller's. Nothing leaves before Kick. A packet of several
// descriptors may be split between calls; the kernel waits for its end.
func (s *Socket) Send(src []Desc) int {
	n := s.tx.put(src)
	s.u.handDescs(src[:n], s.txBy)
	return n
}

// Pending returns how many descriptors the kernel has not taken.
func (s *Socket) Pending() int { return s.tx.pending() }

// Unsent returns how many descriptors were sent and have not come back by
// Complete or Reclaim: pending, on their way, or completed. Descriptors that
// the kernel finds invalid (Stats.TxInvalid) never come back.
func (s *Socket) Unsent() int { return int(s.tx.next - s.comp.next) }

// Kick has the kernel send what is on the ring, if that needs a system call:
// in copy mode whenever something is pending, in zero-copy mode when the
// driver has asked for it. It makes one call, which in copy mode sends up to
// Config.TxBudget packets in the calling thread. Again means that something
// is left: the caller should Reclaim and Kick once more, now or with its next
// burst.
func (s *Socket) Kick() Status {
	if s.tx.pending() == 0 || !s.pushes && !s.tx.needWakeup() {
		return OK
	}
	// It never waits, so the Go runtime need not know: told of each call, it takes
	// the worker's turn away when one lasts longer than 20 µs, as a full burst's does.
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	if s.mode == Copy && (errno == 0 || errno == unix.EAGAIN) {
		// The budget may end with the ring (EAGAIN); a tx queue that the
		// device doesn't have takes nothing and says nothing (0).
		if s.tx.pending() == 0 {
			return OK
		}
		errno = unix.EAGAIN
	}
	return s.note(errno)
}
