package classify

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// span is a stretch of addresses, up to the start of the next span, that lie
// in the same blocks.
type span struct {
	start packet.Addr
	free  uint32 // class of an address without identity
	fixed uint32 // what blocks add to the identity of a bound address
}

// edge is one prefix that a block includes or excepts.
type edge struct {
	first, last packet.Addr
	block       uint32
	except      bool
}

// spanner walks the prefixes of all blocks from left to right and from the
// outside in, with a stack of those that are open.
type spanner struct {
	classes *classes
	blocks  []spanBlock
	all     counter // of the peers of open blocks
	bound   counter // the same without Unbound blocks
	out     []span
	open    []level
}

type spanBlock struct {
	peer     uint32
	unbound  bool
	included bool
	excepts  int // open prefixes that except it
}

// level is an open prefix, or the whole address space.
type level struct {
	last        packet.Addr
	edges       []edge
	free, fixed uint32
	allPeers    []uint32
	boundPeers  []uint32
}

// families are the bounds of the two address spaces in packet.Addr.
var v4First, v4Last = packet.AddrV4(0), packet.AddrV4(^uint32(0))
var v6First, v6Last = packet.Addr{}, packet.Addr{Hi: ^uint64(0), Lo: ^uint64(0)}

// spans divides both address spaces by the blocks of used peers.
func spans(set *rule.Set, p *peers, c *classes) (v4, v6 []span) {
	var edges4, edges6 []edge
	s := &spanner{classes: c, all: newCounter(p.count), bound: newCounter(p.count)}
	for _, b := range set.Blocks {
		if p.dense[b.Peer] == unused {
			continue
		}
		n := uint32(len(s.blocks))
		s.blocks = append(s.blocks, spanBlock{peer: p.dense[b.Peer], unbound: b.Unbound})
		out := &edges6
		if b.Prefix.Addr().Is4() {
			out = &edges4
		}
		*out = append(*out, newEdge(b.Prefix, n, false))
		for _, e := range b.Except {
			if e.IsValid() && e.Addr().BitLen() == b.Prefix.Addr().BitLen() {
				*out = append(*out, newEdge(e, n, true))
			}
		}
	}
	return s.walk(edges4, v4First, v4Last), s.walk(edges6, v6First, v6Last)
}

// newEdge returns the first and last address of a prefix, masked.
func newEdge(p netip.Prefix, block uint32, except bool) edge {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	first := packet.AddrFrom(p.Addr())
	var host packet.Addr // mask of the host's bits
	if bits < 64 {
		host = packet.Addr{Hi: ^uint64(0) >> bits, Lo: ^uint64(0)}
	} else {
		host = packet.Addr{Lo: ^uint64(0) >> (bits - 64)} // a shift by 64 gives 0
	}
	first = packet.Addr{Hi: first.Hi &^ host.Hi, Lo: first.Lo &^ host.Lo}
	last := packet.Addr{Hi: first.Hi | host.Hi, Lo: first.Lo | host.Lo}
	return edge{first: first, last: last, block: block, except: except}
}

func (s *spanner) walk(edges []edge, first, last packet.Addr) []span {
	slices.SortFunc(edges, func(a, b edge) int {
		switch {
		case a.first.Less(b.first) || a.first == b.first && b.last.Less(a.last):
			return -1
		case a.first == b.first && a.last == b.last:
			return 0
		}
		return 1
	})
	s.out, s.open = nil, append(s.open[:0], level{last: last})
	s.emit(first)
	for i := 0; i < len(edges); {
		n := i + 1
		for n < len(edges) && edges[n].first == edges[i].first && edges[n].last == edges[i].last {
			n++
		}
		for s.top().last.Less(edges[i].first) {
			s.leave()
		}
		s.enter(edges[i:n])
		i = n
	}
	for len(s.open) > 1 {
		s.leave()
	}
	return s.out
}

func (s *spanner) top() *level { return &s.open[len(s.open)-1] }

func (s *spanner) enter(edges []edge) {
	outer := s.top()
	for _, e := range edges {
		s.toggle(e, 1)
	}
	l := level{last: edges[0].last, edges: edges}
	l.allPeers = s.all.apply(outer.allPeers)
	l.boundPeers = s.bound.apply(outer.boundPeers)
	l.free = s.classes.sets.add(l.allPeers)
	l.fixed = s.classes.fixed.add(l.boundPeers)
	s.open = append(s.open, l)
	s.emit(edges[0].first)
}

func (s *spanner) leave() {
	l := s.top()
	for _, e := range l.edges {
		s.toggle(e, -1)
	}
	s.all.changed, s.bound.changed = s.all.changed[:0], s.bound.changed[:0]
	last := l.last
	s.open = s.open[:len(s.open)-1]
	if last != s.top().last {
		s.emit(after(last))
	}
}

// toggle opens or closes one edge and counts what that does to its peer.
func (s *spanner) toggle(e edge, by int) {
	b := &s.blocks[e.block]
	before := b.included && b.excepts == 0
	if e.except {
		b.excepts += by
	} else {
		b.included = by > 0
	}
	if after := b.included && b.excepts == 0; after != before {
		by := -1
		if after {
			by = 1
		}
		s.all.add(b.peer, by)
		if !b.unbound {
			s.bound.add(b.peer, by)
		}
	}
}

// emit begins a span of the innermost level, in place of an empty one.
func (s *spanner) emit(start packet.Addr) {
	l := s.top()
	if n := len(s.out); n > 0 && s.out[n-1].start == start {
		s.out = s.out[:n-1]
	}
	if n := len(s.out); n > 0 && s.out[n-1].free == l.free && s.out[n-1].fixed == l.fixed {
		return
	}
	s.out = append(s.out, span{start: start, free: l.free, fixed: l.fixed})
}

func after(a packet.Addr) packet.Addr {
	if a.Lo++; a.Lo == 0 {
		a.Hi++
	}
	return a
}

// counter counts open blocks a peer and remembers which counts changed.
type counter struct {
	count   []int
	changed []uint32
}

func newCounter(peers uint32) counter { return counter{count: make([]int, peers)} }

func (c *counter) add(peer uint32, by int) {
	c.count[peer] += by
	c.changed = append(c.changed, peer)
}

// apply returns the sorted peers with a count, given those before the changes.
func (c *counter) apply(before []uint32) []uint32 {
	slices.Sort(c.changed)
	changed := slices.Compact(c.changed)
	out := make([]uint32, 0, len(before)+len(changed))
	for _, p := range before {
		for len(changed) > 0 && changed[0] < p {
			out, changed = c.appendIf(out, changed[0]), changed[1:]
		}
		if len(changed) > 0 && changed[0] == p {
			changed = changed[1:]
		}
		out = c.appendIf(out, p)
	}
	for _, p := range changed {
		out = c.appendIf(out, p)
	}
	c.changed = c.changed[:0]
	return out
}

func (c *counter) appendIf(out []uint32, peer uint32) []uint32 {
	if c.count[peer] > 0 {
		return append(out, peer)
	}
	return out
}
