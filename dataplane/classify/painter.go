package classify

import (
	"slices"

	"github.com/sluice-net/sluice/dataplane/packet"
)

// painter builds addresses, and changes them without disturbing the readers
// of what it has published: a block below its watermark is copied before it
// is changed, everything else is appended.
type painter[C uint16 | uint32] struct {
	addresses[C]
	capacity uint32 // classes that have reserved entries
	keys     int    // groups in the hash

	// Blocks that begin at or above these are not published yet.
	freshMid, freshLeaf, freshNodes uint32
	// What readers may hold of these has to be copied before it is written.
	sharedRoot, sharedParts bool
	sharedPart              []bool
}

// minCapacity makes the reserved entries of leaf at least as many as a group
// has addresses: a miss in the hash reads one of them, and ignores it.
const minCapacity = 256

// blockSize is how many entries a byte of an address chooses from.
const blockSize = 256

// newPainter returns a painter for which all addresses have class 0.
func newPainter[C uint16 | uint32](capacity uint32, seed [2]uint64, group uint8) *painter[C] {
	p := &painter[C]{capacity: capacity}
	p.seed, p.group = seed, group
	p.root = make([]uint32, 1<<16)
	p.leaf = make([]C, capacity)
	p.mid = make([]uint32, capacity)
	p.nodes = make([]uint32, capacity+1)
	for c := range capacity {
		p.leaf[c] = C(c)
		p.mid[c] = c << 1
		p.nodes[c] = c << 1
	}
	p.allot(1)
	return p
}

// publish returns what readers may use from now on, and freezes it.
func (p *painter[C]) publish() addresses[C] {
	p.freshMid, p.freshLeaf, p.freshNodes = uint32(len(p.mid)), uint32(len(p.leaf)), uint32(len(p.nodes))
	p.sharedRoot, p.sharedParts = true, true
	for i := range p.sharedPart {
		p.sharedPart[i] = true
	}
	p.top = p.nodes[p.capacity]
	return p.addresses
}

// range4 gives the IPv4 addresses first to last a class.
func (p *painter[C]) range4(first, last, class uint32) {
	for first>>16 != last>>16 {
		p.range16(first, first|0xffff, class)
		first = first&^0xffff + 1<<16
	}
	p.range16(first, last, class)
}

// range16 is range4 within one block of the root.
func (p *painter[C]) range16(first, last, class uint32) {
	if first&0xffff == 0 && last&0xffff == 0xffff {
		p.setRoot(first, class<<1)
		return
	}
	for first>>8 != last>>8 {
		p.range8(first, first|0xff, class)
		first = first&^0xff + 1<<8
	}
	p.range8(first, last, class)
}

func (p *painter[C]) setRoot(addr, entry uint32) {
	if p.sharedRoot {
		p.root, p.sharedRoot = slices.Clone(p.root), false
	}
	p.root[addr>>16] = entry
}

// range8 is range4 within one block of mid.
func (p *painter[C]) range8(first, last, class uint32) {
	if first&0xff == 0 && last&0xff == 0xff {
		p.mid[p.midBlock(first)+first>>8&0xff] = class << 1
		return
	}
	leaf := p.leafBlock(first)
	for i := first & 0xff; i <= last&0xff; i++ {
		p.leaf[leaf+i] = C(class)
	}
}

// set4 gives one IPv4 address a class.
func (p *painter[C]) set4(addr, class uint32) {
	p.leaf[p.leafBlock(addr)+addr&0xff] = C(class)
}

// midBlock returns the block of an address's upper 16 bits, to be written.
func (p *painter[C]) midBlock(addr uint32) uint32 {
	e := p.root[addr>>16]
	if e&full != 0 && e>>1 >= p.freshMid {
		return e >> 1
	}
	at := uint32(len(p.mid))
	if e&full != 0 {
		p.mid = append(p.mid, p.mid[e>>1:e>>1+blockSize]...)
	} else {
		p.mid = appendRepeat(p.mid, p.mid[e>>1], blockSize)
	}
	p.setRoot(addr, at<<1|full)
	return at
}

// leafBlock returns the block of an address's upper 24 bits, to be written.
func (p *painter[C]) leafBlock(addr uint32) uint32 {
	at := p.midBlock(addr) + addr>>8&0xff
	e := p.mid[at]
	if e&full != 0 && e>>1 >= p.freshLeaf {
		return e >> 1
	}
	leaf := uint32(len(p.leaf))
	if e&full != 0 {
		p.leaf = append(p.leaf, p.leaf[e>>1:e>>1+blockSize]...)
	} else {
		p.leaf = appendRepeat(p.leaf, p.leaf[e>>1], blockSize)
	}
	p.mid[at] = leaf<<1 | full
	return leaf
}

// range6 gives the addresses first to last a class in the trie.
func (p *painter[C]) range6(first, last packet.Addr, class uint32) {
	p.level(p.capacity, 0, first, last, class)
}

// level is range6 within the entry at index at, whose prefix has depth bytes.
func (p *painter[C]) level(at uint32, depth int, first, last packet.Addr, class uint32) {
	if zeroFrom(first, depth) && onesFrom(last, depth) {
		p.nodes[at] = class << 1
		return
	}
	p.depth = max(p.depth, depth+1)
	block := p.nodeBlock(at)
	from, to := byteOf(first, depth), byteOf(last, depth)
	for b := from; b <= to; b++ {
		lo, hi := first, last
		if b > from {
			lo = packet.Addr{}
		}
		if b < to {
			hi = packet.Addr{Hi: ^uint64(0), Lo: ^uint64(0)}
		}
		p.level(block+b, depth+1, lo, hi, class)
	}
}

func (p *painter[C]) nodeBlock(at uint32) uint32 {
	e := p.nodes[at]
	if e&full != 0 && e>>1 >= p.freshNodes {
		return e >> 1
	}
	block := uint32(len(p.nodes))
	if e&full != 0 {
		p.nodes = append(p.nodes, p.nodes[e>>1:e>>1+blockSize]...)
	} else {
		p.nodes = appendRepeat(p.nodes, e, blockSize)
	}
	p.nodes[at] = block<<1 | full
	return block
}

func appendRepeat[T any](s []T, v T, n int) []T {
	at := len(s)
	s = slices.Grow(s, n)[:at+n]
	for i := range s[at:] {
		s[at+i] = v
	}
	return s
}

// byteOf returns one of the 16 bytes of an address.
func byteOf(a packet.Addr, i int) uint32 {
	if i < 8 {
		return uint32(a.Hi >> (56 - 8*i) & 0xff)
	}
	return uint32(a.Lo >> (120 - 8*i) & 0xff)
}

// zeroFrom reports whether all bytes from the i-th on are 0.
func zeroFrom(a packet.Addr, i int) bool {
	if i < 8 {
		return a.Hi<<(8*i) == 0 && a.Lo == 0
	}
	return a.Lo<<(8*(i-8)) == 0
}

// onesFrom reports whether all bytes from the i-th on are 0xff.
func onesFrom(a packet.Addr, i int) bool {
	return zeroFrom(packet.Addr{Hi: ^a.Hi, Lo: ^a.Lo}, i)
}
