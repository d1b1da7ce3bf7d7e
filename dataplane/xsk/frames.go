package xsk

import "fmt"

// holder says who holds a frame: 0 is the user (or the free stack), otherwise
// 1 + 2×id for the receive side of a socket (fill and rx rings), 2 + 2×id for
// its sending side (tx and completion rings). It costs one store a hand-over
// and lets Close give back exactly what a socket held, while other sockets on
// the same UMEM go on.
type holder uint16

const (
	heldByUser holder = 0
	heldBack   holder = 1<<16 - 1 // kept from reuse after a close, until Reset
	maxSockets        = 1<<15 - 1
)

func rxHolder(id int) holder { return holder(1 + 2*id) }
func txHolder(id int) holder { return holder(2 + 2*id) }

// Alloc moves up to len(dst) free frames into dst and returns how many. The
// frame freed last comes first back: its bytes are the warmest.
func (u *UMEM) Alloc(dst []uint64) int {
	n := min(len(dst), len(u.free))
	top := len(u.free) - n
	copy(dst, u.free[top:])
	u.free = u.free[:top]
	return n
}

// Free gives frames back. Any address in a frame stands for it, so the
// addresses of received descriptors will do. Each frame may be given back
// once; freeing more frames than there are panics.
func (u *UMEM) Free(addrs []uint64) {
	base := u.grow(len(addrs))
	for i, a := range addrs {
		u.free[base+i] = a & u.base
	}
}

// FreeDescs gives back the frames of descriptors, as Free does.
func (u *UMEM) FreeDescs(descs []Desc) {
	base := u.grow(len(descs))
	for i := range descs {
		u.free[base+i] = descs[i].Addr & u.base
	}
}

// grow makes room for n frames on the free stack and returns where.
func (u *UMEM) grow(n int) int {
	base := len(u.free)
	if n > cap(u.free)-base {
		panic(fmt.Sprintf("xsk: %d frames freed with %d of %d free: a frame was freed twice", n, base, u.cfg.Frames))
	}
	u.free = u.free[:base+n]
	return base
}

// Available returns the number of free frames.
func (u *UMEM) Available() int { return len(u.free) }

// Held returns the number of frames that sockets hold, among them those that
// closed sockets have kept back.
func (u *UMEM) Held() int {
	n := 0
	for _, h := range u.holder {
		if h != heldByUser {
			n++
		}
	}
	return n
}

// Kept returns the number of frames that closed sockets have kept back. They are
// lost to the sockets that are open.
func (u *UMEM) Kept() int { return u.kept }

// Reset makes every frame free, also those that closed sockets have kept. The
// caller vouches that it holds none. It reports false, and does nothing, while
// a socket is open.
func (u *UMEM) Reset() bool {
	if u.openSockets() > 0 {
		return false
	}
	u.free = u.free[:u.cfg.Frames]
	for i := range u.free {
		// Descending, so that frame 0 is on top.
		u.free[i] = uint64(u.cfg.Frames-1-i) << u.shift
	}
	clear(u.holder)
	u.kept = 0
	return true
}

// hand notes that the frames of addrs went to h.
func (u *UMEM) hand(addrs []uint64, h holder) {
	owner, shift := u.holder, u.shift&63
	for _, a := range addrs {
		// The bound holds for addresses of the kernel; one that a caller
		// made up is refused by the kernel itself.
		if f := a >> shift; f < uint64(len(owner)) {
			owner[f] = h
		}
	}
}

// handDescs notes that the frames of descs went to h.
func (u *UMEM) handDescs(descs []Desc, h holder) {
	owner, shift := u.holder, u.shift&63
	for i := range descs {
		if f := descs[i].Addr >> shift; f < uint64(len(owner)) {
			owner[f] = h
		}
	}
}

// pass notes that the frame of addr went from one holder to another, if it was
// with the one.
func (u *UMEM) pass(addr uint64, from, to holder) {
	if f := addr >> u.shift; f < uint64(len(u.holder)) && u.holder[f] == from {
		u.holder[f] = to
	}
}

// reclaim frees every frame that h holds, or keeps them back.
func (u *UMEM) reclaim(h holder, keep bool) {
	for f, by := range u.holder {
		switch {
		case by != h:
		case keep:
			u.holder[f] = heldBack
			u.kept++
		default:
			u.holder[f] = heldByUser
			u.Free([]uint64{uint64(f) << u.shift})
		}
	}
}
