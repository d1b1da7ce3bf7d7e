package xsk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Socket is an AF_XDP socket bound to one queue of a device. All its methods
// but Stats belong to one goroutine, the owner of its UMEM.
type Socket struct {
	u    *UMEM
	fd   int // -1 once closed
	id   int // index in UMEM.sockets
	cfg  Config
	mode Mode
	rxBy holder // holder of the frames in fill and rx
	txBy holder // holder of the frames in tx and completion

	rx   consumer[Desc]
	tx   producer[Desc]
	fill producer[uint64]
	comp consumer[uint64]

	maps   [4][]byte // the mappings under the rings
	poll   [1]unix.PollFd
	tmo    unix.Timespec
	pushes bool // Kick and Wake make their system call even if no flag asks for it
	closed bool
	errno  unix.Errno // of the last Status worse than OK
}

// Open opens a socket for a queue of a device. The first one registers the
// UMEM with the kernel, later ones share it, each with rings of its own;
// two sockets on the same queue aren't supported. It may wait for up to
// Config.BindTimeout. Frames are the socket's only after Refill or Fill.
//
// The network namespace is that of the calling thread, and the process needs
// CAP_NET_RAW, or CAP_NET_ADMIN besides for busy polling.
func (u *UMEM) Open(cfg Config) (*Socket, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure socket: %w", err)
	}
	if u.mem == nil {
		return nil, errors.New("open socket: umem is closed")
	}
	s := &Socket{u: u, fd: -1, cfg: cfg.settled()}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open socket on ifindex %d queue %d: %w", cfg.Ifindex, cfg.Queue, err)
	}
	return s, nil
}

func (s *Socket) open() (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.unmap(), s.closeFD())
		}
	}()
	if s.fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("create socket: %w", err)
	}
	if err := s.setOptions(); err != nil {
		return err
	}
	if err := s.mapRings(); err != nil {
		return err
	}
	if err := s.bind(); err != nil {
		return err
	}
	if s.mode, err = s.boundMode(); err != nil {
		return err
	}
	if err := s.u.adopt(s); err != nil {
		return err
	}
	s.rxBy, s.txBy = rxHolder(s.id), txHolder(s.id)
	s.poll[0] = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN}
	s.pushes = s.mode == Copy || !s.cfg.NeedWakeup || s.cfg.BusyPollUs > 0
	return nil
}

// setOptions sizes the rings and sets what must be set before bind.
func (s *Socket) setOptions() error {
	set := func(name string, level, option, value int) error {
		if err := unix.SetsockoptInt(s.fd, level, option, value); err != nil {
			return fmt.Errorf("set %s to %d: %w", name, value, err)
		}
		return nil
	}
	if s.cfg.RxSize > 0 {
		if err := set("XDP_RX_RING", unix.SOL_XDP, unix.XDP_RX_RING, int(s.cfg.RxSize)); err != nil {
			return err
		}
	}
	if s.cfg.TxSize > 0 {
		if err := set("XDP_TX_RING", unix.SOL_XDP, unix.XDP_TX_RING, int(s.cfg.TxSize)); err != nil {
			return err
		}
		s.setTxBudget()
	}
	if err := set("XDP_UMEM_FILL_RING", unix.SOL_XDP, unix.XDP_UMEM_FILL_RING, int(s.cfg.FillSize)); err != nil {
		return err
	}
	if err := set("XDP_UMEM_COMPLETION_RING", unix.SOL_XDP, unix.XDP_UMEM_COMPLETION_RING, int(s.cfg.CompletionSize)); err != nil {
		return err
	}
	if s.cfg.BusyPollUs == 0 {
		return nil
	}
	if err := set("SO_PREFER_BUSY_POLL", unix.SOL_SOCKET, unix.SO_PREFER_BUSY_POLL, 1); err != nil {
		return err
	}
	if err := set("SO_BUSY_POLL", unix.SOL_SOCKET, unix.SO_BUSY_POLL, s.cfg.BusyPollUs); err != nil {
		return err
	}
	return set("SO_BUSY_POLL_BUDGET", unix.SOL_SOCKET, unix.SO_BUSY_POLL_BUDGET, s.cfg.BusyPollBudget)
}

// setTxBudget raises what the kernel sends in one system call. It is a matter
// of speed only, so a kernel that refuses leaves its default, and Config says
// so.
func (s *Socket) setTxBudget() {
	if s.cfg.TxBudget == minTxBudget {
		return
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, s.cfg.TxBudget); err != nil {
		s.cfg.TxBudget = minTxBudget
	}
}

// mapRings maps the rings of the socket and lays our sides over them.
func (s *Socket) mapRings() error {
	var off unix.XDPMmapOffsets
	if err := getOption(s.fd, unix.XDP_MMAP_OFFSETS, &off); err != nil {
		return fmt.Errorf("get XDP_MMAP_OFFSETS: %w", err)
	}
	rx, err := mapRing[Desc](s, 0, unix.XDP_PGOFF_RX_RING, off.Rx, s.cfg.RxSize)
	if err != nil {
		return fmt.Errorf("map rx ring: %w", err)
	}
	tx, err := mapRing[Desc](s, 1, unix.XDP_PGOFF_TX_RING, off.Tx, s.cfg.TxSize)
	if err != nil {
		return fmt.Errorf("map tx ring: %w", err)
	}
	fill, err := mapRing[uint64](s, 2, unix.XDP_UMEM_PGOFF_FILL_RING, off.Fr, s.cfg.FillSize)
	if err != nil {
		return fmt.Errorf("map fill ring: %w", err)
	}
	comp, err := mapRing[uint64](s, 3, unix.XDP_UMEM_PGOFF_COMPLETION_RING, off.Cr, s.cfg.CompletionSize)
	if err != nil {
		return fmt.Errorf("map completion ring: %w", err)
	}
	s.lay(rx, tx, fill, comp)
	return nil
}

// lay makes the four rings the socket's.
func (s *Socket) lay(rx, tx ring[Desc], fill, comp ring[uint64]) {
	s.rx, s.tx = newConsumer(rx), newProducer(tx)
	s.fill, s.comp = newProducer(fill), newConsumer(comp)
}

// mapRing maps one ring into s.maps[i]. No slots, no ring.
func mapRing[T slot](s *Socket, i int, pgoff int64, off unix.XDPRingOffset, size uint32) (ring[T], error) {
	if size == 0 {
		return ring[T]{}, nil
	}
	length := int(off.Desc + uint64(size)*slotBytes[T]())
	mem, err := unix.Mmap(s.fd, pgoff, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return ring[T]{}, err
	}
	s.maps[i] = mem
	return overlay[T](mem, off, size)
}

// FD returns the file descriptor, for an XSKMAP or a poller; it stays the
// socket's. It is -1 once the socket is closed.
func (s *Socket) FD() int { return s.fd }

// Mode returns Copy or ZeroCopy: what is really in use (XDP_OPTIONS).
func (s *Socket) Mode() Mode { return s.mode }

// Config returns what the socket was opened with, zeros filled in, and with
// the TxBudget that the kernel has taken.
func (s *Socket) Config() Config { return s.cfg }

// UMEM returns the memory that the socket's frames live in.
func (s *Socket) UMEM() *UMEM { return s.u }

// Err returns what was behind the last Status that was Again, Down or Dead,
// for a log.
func (s *Socket) Err() error {
	if s.errno == 0 {
		return nil
	}
	return s.errno
}

// Close gives the queue back and frees the frames that the socket held, but
// for those that a device may still touch: all of a zero-copy socket, in copy
// mode the few that are on their way out. Those are free again after
// UMEM.Reset. The socket's other methods then find nothing to do.
func (s *Socket) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	// While mappings exist, closing the descriptor frees nothing: rings
	// first (xsk_mmap holds the file).
	s.harvest()
	err := errors.Join(s.unmap(), s.closeFD())
	s.u.reclaim(s.rxBy, s.mode == ZeroCopy)
	s.u.reclaim(s.txBy, true)
	s.u.sockets[s.id] = nil
	if err != nil {
		return fmt.Errorf("close socket on ifindex %d queue %d: %w", s.cfg.Ifindex, s.cfg.Queue, err)
	}
	return nil
}

// harvest frees what has come back from sending. In copy mode, where the kernel
// takes frames for sending only in our own system calls, it also counts those
// not taken among the received ones, which are safe to free after the close.
func (s *Socket) harvest() {
	for s.Reclaim() > 0 {
	}
	if s.mode == ZeroCopy {
		return
	}
	for n := s.tx.pending(); n > 0; n-- {
		d := s.tx.slots[(s.tx.next-uint32(n))&s.tx.mask]
		s.u.pass(d.Addr, s.txBy, s.rxBy)
	}
}

// unmap takes the rings away and unmaps them.
func (s *Socket) unmap() error {
	s.lay(ring[Desc]{}, ring[Desc]{}, ring[uint64]{}, ring[uint64]{})
	var errs []error
	for i, mem := range s.maps {
		if mem == nil {
			continue
		}
		s.maps[i] = nil
		if err := unix.Munmap(mem); err != nil {
			errs = append(errs, fmt.Errorf("unmap ring: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (s *Socket) closeFD() error {
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close descriptor: %w", err)
	}
	return nil
}
