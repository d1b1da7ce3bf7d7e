package xsk

import "golang.org/x/sys/unix"

// Poller waits for several sockets of one owner at once, and for a descriptor
// that others write to in order to end the wait, such as an eventfd.
type Poller struct {
	socks []*Socket
	fds   []unix.PollFd // the sockets' descriptors, then the other one
	tmo   unix.Timespec
}

// NewPoller returns a Poller for socks. wake is -1 if nothing else ends the
// wait; it stays the caller's, who also empties it. A closed socket is left
// out of the wait but reported Dead.
func NewPoller(wake int, socks ...*Socket) *Poller {
	p := &Poller{socks: socks, fds: make([]unix.PollFd, len(socks)+1)}
	p.fds[len(socks)] = unix.PollFd{Fd: int32(wake), Events: unix.POLLIN}
	return p
}

// Wait blocks until a socket has frames to receive or wake is readable (OK),
// for up to timeoutMs, or without end if that is negative. When the time runs
// out it probes the sockets: Idle if all are in order, else the worst of what
// they said, which Probe on each tells apart.
func (p *Poller) Wait(timeoutMs int) Status {
	for i, s := range p.socks {
		p.fds[i] = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN}
	}
	n, errno := pollFor(p.fds, &p.tmo, timeoutMs)
	if errno != 0 {
		return Dead
	}
	if n > 0 && p.readable() {
		return OK
	}
	worst := Idle
	for _, s := range p.socks {
		worst = max(worst, s.Probe())
	}
	return worst
}

// Woken reports whether the last Wait found wake readable.
func (p *Poller) Woken() bool { return p.fds[len(p.socks)].Revents&unix.POLLIN != 0 }

// Ready reports whether the last Wait found frames at the i-th socket.
func (p *Poller) Ready(i int) bool { return p.fds[i].Revents&unix.POLLIN != 0 }

func (p *Poller) readable() bool {
	for i := range p.fds {
		if p.fds[i].Revents&unix.POLLIN != 0 {
			return true
		}
	}
	return false
}
