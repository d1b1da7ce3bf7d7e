package xsk_test

import (
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/sluice-net/sluice/dataplane/xsk"
)

// ringMemory returns zeroed memory for size slots of slotBytes, aligned as the
// kernel's.
func ringMemory(size uint32, slotBytes int) []byte {
	words := make([]uint64, (int(xsk.Offsets.Desc)+int(size)*slotBytes)/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)
}

// side is the kernel's view of a ring: written after the kernel's documentation
// of the rings (Documentation/networking/af_xdp.rst), not after the package.
type side[T any] struct {
	producer, consumer, flags *uint32
	slots                     []T
}

func viewOf[T any](mem []byte, size uint32) side[T] {
	base := unsafe.Pointer(unsafe.SliceData(mem))
	return side[T]{
		producer: (*uint32)(unsafe.Add(base, xsk.Offsets.Producer)),
		consumer: (*uint32)(unsafe.Add(base, xsk.Offsets.Consumer)),
		flags:    (*uint32)(unsafe.Add(base, xsk.Offsets.Flags)),
		slots:    unsafe.Slice((*T)(unsafe.Add(base, xsk.Offsets.Desc)), size),
	}
}

// take consumes one slot.
func (r side[T]) take() (T, bool) {
	var v T
	c := atomic.LoadUint32(r.consumer)
	if atomic.LoadUint32(r.producer) == c {
		return v, false
	}
	v = r.slots[c%uint32(len(r.slots))]
	atomic.StoreUint32(r.consumer, c+1)
	return v, true
}

// give produces one slot.
func (r side[T]) give(v T) bool {
	p := atomic.LoadUint32(r.producer)
	if p-atomic.LoadUint32(r.consumer) >= uint32(len(r.slots)) {
		return false
	}
	r.slots[p%uint32(len(r.slots))] = v
	atomic.StoreUint32(r.producer, p+1)
	return true
}

// count returns how many slots are full.
func (r side[T]) count() uint32 {
	return atomic.LoadUint32(r.producer) - atomic.LoadUint32(r.consumer)
}

func (r side[T]) room() bool { return r.count() < uint32(len(r.slots)) }

// start sets both indices.
func (r side[T]) start(at uint32) { *r.producer, *r.consumer = at, at }

// kernel is the other side of a socket's rings.
type kernel struct {
	rx, tx     side[xsk.Desc]
	fill, comp side[uint64]
}

// newFake returns a socket with rings of size slots whose indices start at
// start, and the kernel behind it.
func newFake(tb testing.TB, u *xsk.UMEM, size, start uint32) (*xsk.Socket, *kernel) {
	tb.Helper()
	return newFakeMode(tb, u, xsk.Copy, size, start)
}

// newFakeMode is newFake for a socket in the given mode.
func newFakeMode(tb testing.TB, u *xsk.UMEM, mode xsk.Mode, size, start uint32) (*xsk.Socket, *kernel) {
	tb.Helper()
	mem := [4][]byte{ringMemory(size, 16), ringMemory(size, 16), ringMemory(size, 8), ringMemory(size, 8)}
	k := &kernel{
		rx: viewOf[xsk.Desc](mem[0], size), tx: viewOf[xsk.Desc](mem[1], size),
		fill: viewOf[uint64](mem[2], size), comp: viewOf[uint64](mem[3], size),
	}
	k.rx.start(start)
	k.tx.start(start)
	k.fill.start(start)
	k.comp.start(start)
	s, err := xsk.OverMemory(u, mode, [4]uint32{size, size, size, size}, mem)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s, k
}

// receive moves a frame from the fill ring to the rx ring, as a device does
// with a packet of n bytes.
func (k *kernel) receive(n uint32) (addr uint64, ok bool) {
	if !k.rx.room() {
		return 0, false
	}
	if addr, ok = k.fill.take(); !ok {
		return 0, false
	}
	addr += 256 // XDP_PACKET_HEADROOM
	return addr, k.rx.give(xsk.Desc{Addr: addr, Len: n})
}

// transmit moves a frame from the tx ring to the completion ring.
func (k *kernel) transmit() (d xsk.Desc, ok bool) {
	if !k.comp.room() {
		return d, false
	}
	if d, ok = k.tx.take(); !ok {
		return d, false
	}
	return d, k.comp.give(d.Addr)
}

// advance produces n slots as they are.
func (r side[T]) advance(n uint32) { atomic.AddUint32(r.producer, n) }

// swallow consumes n slots unseen.
func (r side[T]) swallow(n uint32) { atomic.AddUint32(r.consumer, n) }
