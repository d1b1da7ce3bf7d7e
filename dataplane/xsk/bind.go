package xsk

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrMultiBuffer says that Config.MultiBuffer was asked for and can't be
	// had: from the kernel, or from the sockets that the UMEM is shared with.
	ErrMultiBuffer = errors.New("multi-buffer is not supported")

	// ErrZeroCopy says that ZeroCopy was asked for and can't be had.
	ErrZeroCopy = errors.New("zero-copy is not supported")
)

// bindRetryEvery is how often a busy queue is asked for again.
const bindRetryEvery = 2 * time.Millisecond

// bind binds the socket, on the UMEM that it shares or registers.
func (s *Socket) bind() error {
	for _, other := range s.u.sockets {
		if other == nil || s.cfg.Apart || other.cfg.Apart {
			continue
		}
		err := s.bindShared(other)
		if errors.Is(err, unix.EBADF) {
			// The other one has lost its device; there may be one that
			// hasn't.
			continue
		}
		return err
	}
	if err := registerUMEM(s.fd, s.u.mem, s.u.cfg); err != nil {
		return fmt.Errorf("register umem: %w", err)
	}
	sa := s.address()
	sa.Flags = bindFlags(s.cfg)
	err := s.bindTo(sa)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP) && s.cfg.Mode == ZeroCopy:
		return fmt.Errorf("bind: %w by this device and its driver: %w", ErrZeroCopy, err)
	case errors.Is(err, unix.EINVAL) && s.cfg.MultiBuffer && !KnowsMultiBuffer():
		return fmt.Errorf("bind: %w by this kernel: %w", ErrMultiBuffer, err)
	}
	return fmt.Errorf("bind: %w", err)
}

// bindShared binds the socket to the UMEM of another. The kernel copies what
// that one was bound with (xp_assign_dev_shared in net/xdp/xsk_buff_pool.c),
// so a difference is refused here.
func (s *Socket) bindShared(other *Socket) error {
	switch {
	case s.cfg.MultiBuffer && !other.cfg.MultiBuffer:
		return fmt.Errorf("share umem: %w by the socket that it was registered with", ErrMultiBuffer)
	case s.cfg.Mode == ZeroCopy && other.mode != ZeroCopy:
		return fmt.Errorf("share umem: %w by the socket that it was registered with", ErrZeroCopy)
	case s.cfg.Mode == Copy && other.mode != Copy,
		s.cfg.NeedWakeup != other.cfg.NeedWakeup,
		s.cfg.MultiBuffer != other.cfg.MultiBuffer:
		return fmt.Errorf("share umem: mode %v, need-wakeup %t and multi-buffer %t differ from the first socket's %v, %t and %t",
			s.cfg.Mode, s.cfg.NeedWakeup, s.cfg.MultiBuffer, other.mode, other.cfg.NeedWakeup, other.cfg.MultiBuffer)
	}
	sa := s.address()
	sa.Flags = unix.XDP_SHARED_UMEM
	sa.SharedUmemFD = uint32(other.fd)
	err := s.bindTo(sa)
	if errors.Is(err, unix.EOPNOTSUPP) && other.mode == ZeroCopy {
		return fmt.Errorf("bind to shared umem: %w by this device, but in use on the umem: %w", ErrZeroCopy, err)
	}
	if errors.Is(err, unix.EINVAL) && s.u.hasQueue(s.cfg.Ifindex, s.cfg.Queue) {
		return fmt.Errorf("bind to shared umem: another of its sockets has the queue: %w", err)
	}
	if err != nil {
		return fmt.Errorf("bind to shared umem: %w", err)
	}
	return nil
}

func (s *Socket) address() *unix.SockaddrXDP {
	return &unix.SockaddrXDP{Ifindex: uint32(s.cfg.Ifindex), QueueID: s.cfg.Queue}
}

// bindTo calls bind until the queue isn't busy any more or time is up: the
// kernel gives a closed socket's queue back from a work queue.
func (s *Socket) bindTo(sa *unix.SockaddrXDP) error {
	deadline := time.Now().Add(s.cfg.BindTimeout)
	for {
		err := unix.Bind(s.fd, sa)
		if !errors.Is(err, unix.EBUSY) || !time.Now().Before(deadline) {
			return err
		}
		time.Sleep(bindRetryEvery)
	}
}

func bindFlags(cfg Config) uint16 {
	var flags uint16
	switch cfg.Mode {
	case Copy:
		flags |= unix.XDP_COPY
	case ZeroCopy:
		flags |= unix.XDP_ZEROCOPY
	}
	if cfg.NeedWakeup {
		flags |= unix.XDP_USE_NEED_WAKEUP
	}
	if cfg.MultiBuffer {
		flags |= unix.XDP_USE_SG
	}
	return flags
}

// KnowsMultiBuffer reports whether the kernel has Config.MultiBuffer.
// It asks by a bind to no device: flags are checked first (EINVAL if unknown),
// then the device (ENODEV).
func KnowsMultiBuffer() bool {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true // nothing known; the error at hand says more
	}
	defer unix.Close(fd)
	err = unix.Bind(fd, &unix.SockaddrXDP{Flags: unix.XDP_USE_SG})
	return !errors.Is(err, unix.EINVAL)
}

// boundMode asks the kernel how frames travel.
func (s *Socket) boundMode() (Mode, error) {
	flags, err := unix.GetsockoptInt(s.fd, unix.SOL_XDP, unix.XDP_OPTIONS)
	if err != nil {
		return Auto, fmt.Errorf("get XDP_OPTIONS: %w", err)
	}
	if flags&unix.XDP_OPTIONS_ZEROCOPY != 0 {
		return ZeroCopy, nil
	}
	return Copy, nil
}
