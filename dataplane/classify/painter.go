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
	capacity uint32 // classes that nodes6 has entries for

	// uniform has by level and class where the block of one class begins that
	// all prefixes of the class share, plus 1, or 0 where there is none yet.
	uniform [levels][]uint32

	// Blocks that begin at or above these are not published yet.
	freshNodes, freshLeaf, freshGroups, freshNodes6 uint32
	// What readers may hold of these has to be copied before it is written.
	sharedParts bool
	sharedPart  []bool
}

// blockSize is how many entries a byte of an address chooses from.
const blockSize = 256

// levels are those of IPv4's trie; the last one is in leaf.
const (
	levels    = 4
	leafLevel = levels - 1
)

// newPainter returns a painter for which all addresses have class 0.
func newPainter[C uint16 | uint32](capacity uint32, seed [2]uint64, group uint8) *painter[C] {
	p := &painter[C]{capacity: capacity}
	p.seed, p.group = seed, group
	p.root = p.own(0, p.uniformBlock(0, 0))
	p.nodes6 = make([]uint32, capacity)
	for c := range capacity {
		p.nodes6[c] = c << 1
	}
	// A miss in the hash reads groups[0:1<<group], and ignores what it finds.
	p.groups = make([]C, 1<<group)
	p.allot(1)
	return p
}

// publish returns what readers may use from now on, and freezes it.
func (p *painter[C]) publish() addresses[C] {
	p.freshNodes, p.freshLeaf = uint32(len(p.nodes)), uint32(len(p.leaf))
	p.freshGroups, p.freshNodes6 = uint32(len(p.groups)), uint32(len(p.nodes6))
	p.sharedParts = true
	for i := range p.sharedPart {
		p.sharedPart[i] = true
	}
	return p.addresses
}

// reserve makes room for a few hundred updates, so that few of them have to
// wait for a slab to be copied.
func (p *painter[C]) reserve() {
	const blocks = 512
	p.nodes = slices.Grow(p.nodes, leafLevel*blocks*blockSize)
	p.leaf = slices.Grow(p.leaf, blocks*blockSize)
	p.groups = slices.Grow(p.groups, blocks<<p.group)
	p.nodes6 = slices.Grow(p.nodes6, blocks*blockSize)
}

// words is how much memory the slabs use that only grow, and the hash, which
// keeps a place for every address that was ever bound.
func (p *painter[C]) words() int {
	return len(p.nodes) + len(p.leaf) + len(p.groups) + len(p.nodes6) + len(p.parts)*slots*8
}

// maxOffset is what an entry of nodes can hold.
const maxOffset = 1<<32 - 1

// move gives addresses their classes, or refuses to if there isn't room.
func (p *painter[C]) move(list []point, classes int) bool {
	room := levels * blockSize * (len(list) + 1)
	if classes > int(p.capacity) || max(len(p.nodes), len(p.leaf))+room > maxOffset {
		return false
	}
	p.setAll(list)
	return true
}

// setAll gives addresses their classes, in order.
func (p *painter[C]) setAll(list []point) {
	for len(list) > 0 {
		n := 1
		if first := list[0].addr; first.Is4() && !p.sparse {
			for n < len(list) && list[n].addr.Hi == first.Hi && list[n].addr.Lo>>8 == first.Lo>>8 {
				n++
			}
			p.set4(list[:n])
		} else {
			p.set6(first, list[0].class)
		}
		list = list[n:]
	}
}

// uniformBlock returns the block of a level in which everything is of one
// class.
func (p *painter[C]) uniformBlock(level int, class uint32) uint32 {
	for len(p.uniform[level]) <= int(class) {
		p.uniform[level] = append(p.uniform[level], 0)
	}
	if at := p.uniform[level][class]; at != 0 {
		return at - 1
	}
	var at uint32
	if level == leafLevel {
		at = uint32(len(p.leaf))
		p.leaf = appendRepeat(p.leaf, C(class), blockSize)
	} else {
		below := p.uniformBlock(level+1, class)
		at = uint32(len(p.nodes))
		p.nodes = appendRepeat(p.nodes, below, blockSize)
	}
	p.uniform[level][class] = at + 1
	return at
}

// isUniform reports whether a block is shared by all prefixes of its class.
func (p *painter[C]) isUniform(level int, at uint32) bool {
	e := at
	for range leafLevel - level {
		e = p.nodes[e]
	}
	class := int(p.leaf[e])
	return class < len(p.uniform[level]) && p.uniform[level][class] == at+1
}

// own returns a block to be written: the one at an offset, or a copy of it if
// others use that one.
func (p *painter[C]) own(level int, at uint32) uint32 {
	if level == leafLevel {
		if at >= p.freshLeaf && !p.isUniform(level, at) {
			return at
		}
		p.leaf = append(p.leaf, p.leaf[at:at+blockSize]...)
		return uint32(len(p.leaf) - blockSize)
	}
	if at >= p.freshNodes && !p.isUniform(level, at) {
		return at
	}
	p.nodes = append(p.nodes, p.nodes[at:at+blockSize]...)
	return uint32(len(p.nodes) - blockSize)
}

// range4 gives the IPv4 addresses first to last a class.
func (p *painter[C]) range4(first, last, class uint32) {
	p.root = p.own(0, p.root)
	p.paint(0, p.root, first, last, class)
}

// paint is range4 within one block, which may be written.
func (p *painter[C]) paint(level int, at, first, last, class uint32) {
	shift := 8 * (leafLevel - level)
	rest := uint32(1)<<shift - 1 // of the address, for the levels below
	from, to := first>>shift&0xff, last>>shift&0xff
	for b := from; b <= to; b++ {
		if level == leafLevel {
			p.leaf[at+b] = C(class)
			continue
		}
		lo, hi := uint32(0), rest
		if b == from {
			lo = first & rest
		}
		if b == to {
			hi = last & rest
		}
		if lo == 0 && hi == rest {
			below := p.uniformBlock(level+1, class)
			p.nodes[at+b] = below
			continue
		}
		below := p.own(level+1, p.nodes[at+b])
		p.nodes[at+b] = below
		p.paint(level+1, below, lo, hi, class)
	}
}

// set4 gives IPv4 addresses that have the upper 24 bits in common their
// classes.
func (p *painter[C]) set4(points []point) {
	p.root = p.own(0, p.root)
	at, addr := p.root, points[0].addr.V4()
	for level := range leafLevel {
		b := addr >> (8 * (leafLevel - level)) & 0xff
		below := p.own(level+1, p.nodes[at+b])
		p.nodes[at+b] = below
		at = below
	}
	for _, pt := range points {
		p.leaf[at+pt.addr.V4()&0xff] = C(pt.class)
	}
}

// range6 gives the addresses first to last a class in the trie.
func (p *painter[C]) range6(first, last packet.Addr, class uint32) {
	p.root6 = p.level(p.root6, 0, first, last, class)
}

// level is range6 within an entry whose prefix has depth bytes; it returns
// the entry as it has to be.
func (p *painter[C]) level(e uint32, depth int, first, last packet.Addr, class uint32) uint32 {
	if zeroFrom(first, depth) && onesFrom(last, depth) {
		return class << 1
	}
	p.depth = max(p.depth, depth+1)
	if at, block := e>>1, uint32(len(p.nodes6)); e&full == 0 {
		p.nodes6 = appendRepeat(p.nodes6, e, blockSize)
		e = block<<1 | full
	} else if at < p.freshNodes6 {
		p.nodes6 = append(p.nodes6, p.nodes6[at:at+blockSize]...)
		e = block<<1 | full
	}
	from, to := byteOf(first, depth), byteOf(last, depth)
	for b := from; b <= to; b++ {
		lo, hi := within(first, last, b > from, b < to)
		child := p.level(p.nodes6[e>>1+b], depth+1, lo, hi, class)
		p.nodes6[e>>1+b] = child
	}
	return e
}

// findStem finds what all prefixes of the trie have in common, up to 7 bytes.
func (p *painter[C]) findStem() {
	s := stem{inside: p.root6}
	for s.levels < 7 && s.inside&full != 0 {
		inside, outside, at, n := uint32(0), uint32(0), 0, 0
		for i, e := range p.nodes6[s.inside>>1:][:blockSize] {
			if e&full != 0 {
				inside, at, n = e, i, n+1
			} else {
				outside = e
			}
		}
		others := 0
		for _, e := range p.nodes6[s.inside>>1:][:blockSize] {
			if e == outside {
				others++
			}
		}
		if n != 1 || others != blockSize-1 || s.levels > 0 && outside != s.outside {
			break
		}
		shift := 56 - 8*s.levels
		s.prefix |= uint64(at) << shift
		s.mask |= 0xff << shift
		s.inside, s.outside = inside, outside
		s.levels++
	}
	p.stem = s
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
