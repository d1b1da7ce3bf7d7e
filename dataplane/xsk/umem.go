package xsk

import (
	"errors"
	"fmt"
	"math/bits"
	"os"

	"golang.org/x/sys/unix"
)

// UMEM is the memory that frames live in, registered with the kernel by the
// first socket opened on it and shared by the others. It has one owner, the
// same goroutine that owns its sockets.
type UMEM struct {
	mapping []byte // whole pages
	mem     []byte // its first Frames × FrameSize bytes, which the kernel knows
	cfg     UMEMConfig
	shift   uint   // log2 of the frame size
	base    uint64 // mask from an address to the first byte of its frame
	huge    bool

	free   []uint64 // stack of free frames; cap is Frames, so it can't overflow
	holder []holder // who holds each frame, by frame number
	kept   int      // frames that are heldBack

	sockets []*Socket // open ones, by id; nil where one was closed
}

const hugePage = 2 << 20

// NewUMEM maps the memory, all of whose frames are free. Close gives it back.
func NewUMEM(cfg UMEMConfig) (*UMEM, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure umem: %w", err)
	}
	u := &UMEM{
		cfg:    cfg,
		shift:  uint(bits.TrailingZeros(uint(cfg.FrameSize))),
		base:   ^uint64(cfg.FrameSize - 1),
		free:   make([]uint64, 0, cfg.Frames),
		holder: make([]holder, cfg.Frames),
	}
	size := cfg.Frames * cfg.FrameSize
	var err error
	if u.mapping, u.huge, err = mapPages(size, cfg.HugePages); err != nil {
		return nil, fmt.Errorf("map umem of %d bytes: %w", size, err)
	}
	u.mem = u.mapping[:size:size]
	u.Reset()
	return u, nil
}

// mapPages maps size bytes, rounded up to whole pages: huge ones if they are
// asked for and to be had.
func mapPages(size int, tryHuge bool) (mem []byte, huge bool, err error) {
	const prot = unix.PROT_READ | unix.PROT_WRITE
	const flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_POPULATE
	if tryHuge {
		mem, err = unix.Mmap(-1, 0, roundUp(size, hugePage), prot, flags|unix.MAP_HUGETLB|unix.MAP_HUGE_2MB)
		if err == nil {
			return mem, true, nil
		}
	}
	mem, err = unix.Mmap(-1, 0, roundUp(size, os.Getpagesize()), prot, flags)
	return mem, false, err
}

// roundUp rounds n up to a multiple of the power of two unit.
func roundUp(n, unit int) int { return (n + unit - 1) &^ (unit - 1) }

// Bytes returns n bytes of the UMEM from addr on, or nil if they aren't all in
// it. They are the caller's for as long as it owns the frame: until the frame
// goes to Free, Fill or Send. Appending stops at n.
func (u *UMEM) Bytes(addr uint64, n uint32) []byte {
	end := addr + uint64(n)
	if end > uint64(len(u.mem)) || addr > end {
		return nil
	}
	return u.mem[addr:end:end]
}

// Base returns the address of the first byte of the frame that addr is in.
func (u *UMEM) Base(addr uint64) uint64 { return addr & u.base }

// Frames returns the number of frames.
func (u *UMEM) Frames() int { return u.cfg.Frames }

// FrameSize returns the size of a frame in bytes.
func (u *UMEM) FrameSize() int { return u.cfg.FrameSize }

// HugePages reports whether the memory is of huge pages.
func (u *UMEM) HugePages() bool { return u.huge }

// Close unmaps the memory. It fails while a socket is open, whose device might
// still write into it.
func (u *UMEM) Close() error {
	if n := u.openSockets(); n > 0 {
		return fmt.Errorf("close umem: %d sockets are open", n)
	}
	if u.mapping == nil {
		return nil
	}
	mapping := u.mapping
	u.mapping, u.mem, u.free = nil, nil, u.free[:0]
	if err := unix.Munmap(mapping); err != nil {
		return fmt.Errorf("unmap umem: %w", err)
	}
	return nil
}

// openSockets counts the sockets that are open.
func (u *UMEM) openSockets() int {
	n := 0
	for _, s := range u.sockets {
		if s != nil {
			n++
		}
	}
	return n
}

// hasQueue reports whether one of the open sockets is bound to the queue.
func (u *UMEM) hasQueue(ifindex int, queue uint32) bool {
	for _, s := range u.sockets {
		if s != nil && s.cfg.Ifindex == ifindex && s.cfg.Queue == queue {
			return true
		}
	}
	return false
}

// errTooManySockets is out of the reach of any machine's queues.
var errTooManySockets = errors.New("too many sockets on one umem")

// adopt gives a socket its id, which says in UMEM.holder what it holds.
func (u *UMEM) adopt(s *Socket) error {
	for i, other := range u.sockets {
		if other == nil {
			u.sockets[i], s.id = s, i
			return nil
		}
	}
	if len(u.sockets) >= maxSockets {
		return errTooManySockets
	}
	s.id = len(u.sockets)
	u.sockets = append(u.sockets, s)
	return nil
}
