package xsk

import "golang.org/x/sys/unix"

// Wait blocks until there are frames to receive, for up to timeoutMs, or
// without end if that is negative. It returns OK, Idle, Down or Dead. A device
// that is deleted doesn't end the wait, only its timeout finds that out, so a
// negative one is for sockets that something else watches.
//
// The scheduler is told, so that the goroutine's place is taken by another.
// In copy mode the kernel also sends what is pending.
func (s *Socket) Wait(timeoutMs int) Status {
	if s.fd < 0 {
		return Dead
	}
	n, errno := pollFor(s.poll[:], &s.tmo, timeoutMs)
	return s.polled(n, errno)
}

// polled makes a Status of what poll said.
func (s *Socket) polled(n int, errno unix.Errno) Status {
	switch {
	case errno != 0:
		return s.note(errno)
	case n > 0 && s.poll[0].Revents&unix.POLLIN != 0:
		return OK
	case n > 0:
		return s.note(unix.EBADF) // POLLNVAL, POLLERR or POLLHUP
	}
	if st := s.Probe(); st != OK {
		return st
	}
	return Idle
}

// pollFor is poll(2) that isn't cut short by signals: ppoll(2), as a system
// call, leaves what remains of the time in tmo.
func pollFor(fds []unix.PollFd, tmo *unix.Timespec, timeoutMs int) (int, unix.Errno) {
	until := tmo
	if timeoutMs < 0 {
		until = nil
	} else {
		*tmo = unix.NsecToTimespec(int64(timeoutMs) * 1e6)
	}
	for {
		n, err := unix.Ppoll(fds, until, nil)
		if err == nil {
			return n, 0
		}
		errno, ok := err.(unix.Errno)
		if !ok {
			return 0, unix.EIO
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}
