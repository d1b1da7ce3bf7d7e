package traffic

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Blocking calls return at least this often to look whether they should end.
const lookUp = 100 * time.Millisecond

// A connection that takes longer is none.
const connectPatience = 3 * time.Second

// listen opens a blocking TCP listener in the calling thread's namespace.
func (e End) listen(at netip.AddrPort) (fd int, err error) {
	fd, err = unix.Socket(family(at.Addr()), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, fmt.Errorf("set SO_REUSEADDR: %w", err)
	}
	// What is accepted inherits the congestion control.
	if err := errors.Join(setCongestion(fd, e.Congestion), setTimeouts(fd, lookUp)); err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, sockaddr(at)); err != nil {
		return -1, fmt.Errorf("bind %v: %w", at, err)
	}
	if err := unix.Listen(fd, 1024); err != nil {
		return -1, fmt.Errorf("listen at %v: %w", at, err)
	}
	return fd, nil
}

// accept takes one connection, unless stop says that none is wanted any more.
func accept(listener int, stop func() bool) (fd int, err error) {
	for !stop() {
		fd, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			return fd, errors.Join(setTimeouts(fd, lookUp), noDelay(fd))
		case !again(err) && err != unix.ECONNABORTED:
			return -1, fmt.Errorf("accept: %w", err)
		}
	}
	return -1, nil
}

// dial connects a blocking TCP socket in the calling thread's namespace.
func (e End) dial(to netip.AddrPort) (fd int, err error) {
	fd, err = unix.Socket(family(to.Addr()), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	if err := errors.Join(setCongestion(fd, e.Congestion), setTimeouts(fd, connectPatience)); err != nil {
		return fd, err
	}
	for {
		err = unix.Connect(fd, sockaddr(to))
		if err != unix.EINTR {
			break
		}
	}
	if err != nil && err != unix.EISCONN {
		return fd, fmt.Errorf("connect to %v: %w", to, err)
	}
	return fd, errors.Join(setTimeouts(fd, lookUp), noDelay(fd))
}

func setTimeouts(fd int, d time.Duration) error {
	tv := unix.NsecToTimeval(d.Nanoseconds())
	for _, opt := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, opt, &tv); err != nil {
			return fmt.Errorf("set timeout of socket: %w", err)
		}
	}
	return nil
}

// HasCongestion reports whether the kernel has a congestion control of that name,
// loading its module if need be.
func HasCongestion(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	return setCongestion(fd, name)
}

func setCongestion(fd int, name string) error {
	if name == "" {
		return nil
	}
	err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
	if err == unix.ENOENT {
		return fmt.Errorf("congestion control %q: the kernel has none of that name", name)
	}
	if err != nil {
		return fmt.Errorf("set congestion control %q: %w", name, err)
	}
	return nil
}

func noDelay(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("set TCP_NODELAY: %w", err)
	}
	return nil
}

// again reports whether a blocking call only timed out or was interrupted.
func again(err error) bool {
	return err == unix.EAGAIN || err == unix.EINTR
}

// closed reports whether the other end has gone.
func closed(err error) bool {
	return err == unix.ECONNRESET || err == unix.EPIPE
}
