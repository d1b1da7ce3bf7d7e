package xsk

import "golang.org/x/sys/unix"

// Fill gives frames to the kernel to receive into, as many of addrs as the
// ring has room for, and returns how many. The others stay the caller's.
func (s *Socket) Fill(addrs []uint64) int {
	n := s.fill.put(addrs)
	s.u.hand(addrs[:n], s.rxBy)
	return n
}

// Refill gives the kernel as many free frames of the UMEM as the ring has room
// for and returns how many. A UMEM smaller than the fill rings on it is
// emptied by the first of them: use Fill to divide it.
func (s *Socket) Refill() int {
	u := s.u
	n := s.fill.reserve(len(u.free))
	top := len(u.free) - n
	s.Fill(u.free[top:])
	u.free = u.free[:top]
	return n
}

// Wake tells a driver that sleeps for want of frames that the fill ring has
// some, if it has asked for that. It makes no system call otherwise. With busy
// polling it always does, and runs the driver's receive loop.
func (s *Socket) Wake() Status {
	if !s.fill.needWakeup() && s.cfg.BusyPollUs == 0 {
		return OK
	}
	return s.Probe()
}

// Probe asks the kernel whether the socket still has its device, by recvfrom:
// OK, Down or Dead. A device that was deleted makes no other sign in Wait.
func (s *Socket) Probe() Status {
	_, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case unix.EAGAIN, unix.ENOBUFS:
		// Nothing to do now, or no rx ring: it has its device.
		return OK
	case unix.EOPNOTSUPP:
		// Before Linux 5.11 there was no recvfrom; poll wakes as well, but
		// has no word on the device.
		_, errno = pollFor(s.poll[:], &s.tmo, 0)
	}
	return s.note(errno)
}

// note keeps errno for Err and returns what it means.
func (s *Socket) note(errno unix.Errno) Status {
	if errno != 0 {
		s.errno = errno
	}
	return statusOf(errno)
}
