package classify

import (
	"slices"

	"github.com/sluice-net/sluice/dataplane/packet"
)

// maxBlocks is how many blocks of a level the trie of IPv4 may have before it
// gives way to the hash, which takes less memory then.
const maxBlocks = 1 << 15

// space is what is to be laid out: the spans of both families, and the bound
// addresses with their classes.
type space struct {
	spans4, spans6   []span
	points4, points6 []point
	leafs, mids      int // blocks of the last level that IPv4 needs, and of the one above
	sparse           bool
}

// settle finds the class of each point in its span, and whether IPv4 is too
// scattered for its trie. It is the last to add classes.
func (s *space) settle(c *classes) {
	c.settle(s.spans4, s.points4)
	c.settle(s.spans6, s.points6)
	s.leafs, s.mids = blocks4(s.spans4, s.points4)
	s.leafs += distinct(s.spans4)
	if s.sparse = max(s.leafs, s.mids) > maxBlocks; !s.sparse {
		return
	}
	below, above := cut(s.spans6, v4First, after(v4Last))
	s.spans6 = slices.Concat(below, s.spans4, above)
	at, _ := slices.BinarySearchFunc(s.points6, point{addr: v4First}, comparePoints)
	s.points6 = slices.Concat(s.points6[:at], s.points4, s.points6[at:])
	s.spans4, s.points4, s.leafs, s.mids = nil, nil, 0, 0
}

// cut removes the v4-mapped addresses, which are IPv4's, from IPv6's spans.
func cut(all []span, first, after packet.Addr) (below, above []span) {
	n := 0
	for n < len(all) && all[n].start.Less(first) {
		n++
	}
	m := n
	for m < len(all) && !after.Less(all[m].start) {
		m++
	}
	head := all[m-1]
	head.start = after
	return all[:n:n], append([]span{head}, all[m:]...)
}

// distinct counts the classes of spans, each of which may need a block that
// all its prefixes share.
func distinct(spans []span) int {
	seen := map[uint32]bool{}
	for _, s := range spans {
		seen[s.free] = true
	}
	return len(seen)
}

// blocks4 counts the blocks of 1<<8 and of 1<<16 addresses that have several
// classes.
func blocks4(spans []span, points []point) (leafs, mids int) {
	lastLeaf, lastMid := ^uint32(0), ^uint32(0)
	touch := func(v uint32) {
		if b := v >> 8; b != lastLeaf {
			leafs, lastLeaf = leafs+1, b
		}
		if b := v >> 16; b != lastMid {
			mids, lastMid = mids+1, b
		}
	}
	for _, s := range spans {
		for ; len(points) > 0 && points[0].addr.Less(s.start); points = points[1:] {
			touch(points[0].addr.V4())
		}
		if v := s.start.V4(); v&0xff != 0 {
			touch(v)
		} else if v&0xffff != 0 && v>>16 != lastMid {
			mids, lastMid = mids+1, v>>16
		}
	}
	for _, p := range points {
		touch(p.addr.V4())
	}
	return leafs, mids
}

// layOut builds addresses of a space.
func layOut[C uint16 | uint32](s *space, capacity uint32, seed [2]uint64) *painter[C] {
	group := bestGroup(s.points6)
	p := newPainter[C](capacity, seed, group)
	p.sparse = s.sparse
	groups := count(s.points6, group)
	p.nodes = slices.Grow(p.nodes, blockSize*s.mids)
	p.leaf = slices.Grow(p.leaf, blockSize*s.leafs)
	p.groups = slices.Grow(p.groups, groups<<group)
	for i, sp := range s.spans4 {
		last := v4Last
		if i+1 < len(s.spans4) {
			last = before(s.spans4[i+1].start)
		}
		p.range4(sp.start.V4(), last.V4(), sp.free)
	}
	p.setAll(s.points4)
	for i, sp := range s.spans6 {
		last := v6Last
		if i+1 < len(s.spans6) {
			last = before(s.spans6[i+1].start)
		}
		p.range6(sp.start, last, sp.free)
	}
	p.findStem()
	p.allot(groups)
	p.setAll(s.points6)
	return p
}

func before(a packet.Addr) packet.Addr {
	if a.Lo == 0 {
		a.Hi--
	}
	a.Lo--
	return a
}
