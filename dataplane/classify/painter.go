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

	// Blocks that begin at or above these are not published yet.
	freshMid, freshLeaf, freshGroups uint32
	// What readers may hold of these has to be copied before it is written.
	sharedRoot, sharedParts bool
	sharedPart              []bool
}

// blockSize is how many entries a byte of an address chooses from.
const blockSize = 256

// single and many are the masks of entries of root and mid.
const (
	single = 0
	many   = blockSize - 1
)

// newPainter returns a painter for which all addresses have class 0.
func newPainter[C uint16 | uint32](capacity uint32, seed [2]uint64, group uint8) *painter[C] {
	p := &painter[C]{capacity: capacity}
	p.seed, p.group = seed, group
	p.root = make([]uint32, 1<<16)
	p.leaf = make([]C, capacity)
	p.mid = make([]uint32, capacity)
	p.nodes = make([]uint32, capacity)
	p.root6 = make([]uint32, 1<<16)
	for c := range capacity {
		p.leaf[c] = C(c)
		p.mid[c] = c<<8 | single
		p.nodes[c] = c << 1
	}
	// A miss in the hash reads groups[0:1<<group], and ignores what it finds.
	p.groups = make([]C, 1<<group)
	p.allot(1)
	return p
}

// publish returns what readers may use from now on, and freezes it.
func (p *painter[C]) publish() addresses[C] {
	p.freshMid, p.freshLeaf, p.freshGroups = uint32(len(p.mid)), uint32(len(p.leaf)), uint32(len(p.groups))
	p.sharedRoot, p.sharedParts = true, true
	for i := range p.sharedPart {
		p.sharedPart[i] = true
	}
	return p.addresses
}

// reserve makes room for a few hundred updates, so that few of them have to
// wait for a slab to be copied.
func (p *painter[C]) reserve() {
	const blocks = 512
	p.mid = slices.Grow(p.mid, blocks*blockSize)
	p.leaf = slices.Grow(p.leaf, blocks*blockSize)
	p.groups = slices.Grow(p.groups, blocks<<p.group)
}

// words is how much memory the slabs use that only grow.
func (p *painter[C]) words() int { return len(p.mid) + len(p.leaf) + len(p.groups) }

// maxOffset is what an entry of root or mid can hold.
const maxOffset = 1 << 24

// move gives addresses their classes, or refuses to if there isn't room.
func (p *painter[C]) move(list []point, classes int) bool {
	room := blockSize * (len(list) + 1)
	if classes > int(p.capacity) || !p.sparse && max(len(p.mid), len(p.leaf))+room > maxOffset {
		return false
	}
	for _, pt := range list {
		if pt.addr.Is4() && !p.sparse {
			p.set4(pt.addr.V4(), pt.class)
		} else {
			p.set6(pt.addr, pt.class)
		}
	}
	return true
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
		p.setRoot(first, class<<8|single)
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
		at := p.midBlock(first) + first>>8&0xff
		p.mid[at] = class<<8 | single
		return
	}
	leaf := p.leafBlock(first)
	for i := first & 0xff; i <= last&0xff; i++ {
		p.leaf[leaf+i] = C(class)
	}
}

// set4 gives one IPv4 address a class.
func (p *painter[C]) set4(addr, class uint32) {
	at := p.leafBlock(addr) + addr&0xff
	p.leaf[at] = C(class)
}

// midBlock returns the block of an address's upper 16 bits, to be written.
func (p *painter[C]) midBlock(addr uint32) uint32 {
	e := p.root[addr>>16]
	if e&many != 0 && e>>8 >= p.freshMid {
		return e >> 8
	}
	at := uint32(len(p.mid))
	p.mid = appendBlock(p.mid, e>>8, e&many != 0)
	p.setRoot(addr, at<<8|many)
	return at
}

// leafBlock returns the block of an address's upper 24 bits, to be written.
func (p *painter[C]) leafBlock(addr uint32) uint32 {
	at := p.midBlock(addr) + addr>>8&0xff
	e := p.mid[at]
	if e&many != 0 && e>>8 >= p.freshLeaf {
		return e >> 8
	}
	leaf := uint32(len(p.leaf))
	p.leaf = appendBlock(p.leaf, e>>8, e&many != 0)
	p.mid[at] = leaf<<8 | many
	return leaf
}

// range6 gives the addresses first to last a class in the trie.
func (p *painter[C]) range6(first, last packet.Addr, class uint32) {
	from, to := first.Hi>>48, last.Hi>>48
	for b := from; b <= to; b++ {
		if b > from && b < to {
			p.root6[b] = class << 1
			continue
		}
		lo, hi := within(first, last, b > from, b < to)
		p.root6[b] = p.level(p.root6[b], 2, lo, hi, class)
	}
}

// level is range6 within an entry whose prefix has depth bytes; it returns
// the entry as it has to be.
func (p *painter[C]) level(e uint32, depth int, first, last packet.Addr, class uint32) uint32 {
	if zeroFrom(first, depth) && onesFrom(last, depth) {
		return class << 1
	}
	p.depth = max(p.depth, depth-1)
	if e&full == 0 {
		block := uint32(len(p.nodes))
		p.nodes = appendBlock(p.nodes, e>>1, false)
		e = block<<1 | full
	}
	from, to := byteOf(first, depth), byteOf(last, depth)
	for b := from; b <= to; b++ {
		lo, hi := within(first, last, b > from, b < to)
		child := p.level(p.nodes[e>>1+b], depth+1, lo, hi, class)
		p.nodes[e>>1+b] = child
	}
	return e
}

// within replaces the ends of a range that lie in other blocks.
func within(first, last packet.Addr, fromStart, toEnd bool) (packet.Addr, packet.Addr) {
	if fromStart {
		first = v6First
	}
	if toEnd {
		last = v6Last
	}
	return first, last
}

// appendBlock appends a block to a slab: a copy of the block at from, or the
// entry at from, 256 times.
func appendBlock[T any](s []T, from uint32, block bool) []T {
	if block {
		return append(s, s[from:from+blockSize]...)
	}
	return appendRepeat(s, s[from], blockSize)
}

// appendRepeat appends v n times.
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
