package xsk

import "golang.org/x/sys/unix"

// What the external tests need of the inside: sockets over plain memory, the
// kernel's side of which a test plays.

// Offsets is where the tests' rings keep their parts: each index on a cache
// line of its own, as in the kernel.
var Offsets = unix.XDPRingOffset{Producer: 0, Consumer: 64, Flags: 128, Desc: 192}

// OverMemory returns a socket on u whose rings lie over mem (rx, tx, fill,
// completion; nil for none). It has no descriptor: every system call finds
// EBADF.
func OverMemory(u *UMEM, mode Mode, sizes [4]uint32, mem [4][]byte) (*Socket, error) {
	s := &Socket{u: u, fd: -1, mode: mode}
	rx, err := overMemory[Desc](mem[0], sizes[0])
	if err != nil {
		return nil, err
	}
	tx, err := overMemory[Desc](mem[1], sizes[1])
	if err != nil {
		return nil, err
	}
	fill, err := overMemory[uint64](mem[2], sizes[2])
	if err != nil {
		return nil, err
	}
	comp, err := overMemory[uint64](mem[3], sizes[3])
	if err != nil {
		return nil, err
	}
	s.lay(rx, tx, fill, comp)
	if err := u.adopt(s); err != nil {
		return nil, err
	}
	s.rxBy, s.txBy = rxHolder(s.id), txHolder(s.id)
	return s, nil
}

func overMemory[T slot](mem []byte, size uint32) (ring[T], error) {
	if mem == nil {
		return ring[T]{}, nil
	}
	return overlay[T](mem, Offsets, size)
}

// HeldBy returns which frames the receive and the sending side of s hold.
func HeldBy(s *Socket) (rx, tx []uint64) {
	for f, h := range s.u.holder {
		switch h {
		case s.rxBy:
			rx = append(rx, uint64(f)<<s.u.shift)
		case s.txBy:
			tx = append(tx, uint64(f)<<s.u.shift)
		}
	}
	return rx, tx
}

// FreeFrames returns the free stack.
func FreeFrames(u *UMEM) []uint64 { return u.free }

// StatusOf is statusOf.
var StatusOf = statusOf
