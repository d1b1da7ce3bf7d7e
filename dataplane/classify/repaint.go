package classify

import (
	"sort"

	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// stretch is a run of addresses that lie in other blocks than before.
type stretch struct {
	first, last packet.Addr
	free        uint32 // class of an address without identity
	other       bool   // that is another one than before
}

// repaint brings the layout of addresses in step with other blocks, or other
// peers in use: only where spans differ, which for most blocks is outside of
// the cluster. It returns false, and may have done a part of it, if laying
// everything out is no dearer or can't be avoided.
func (b *builder) repaint(bound bindings) bool {
	if b.space.sparse {
		return false
	}
	spans4, spans6 := spans(&b.set, &b.peers, b.classes)
	list4 := differing(b.space.spans4, spans4, v4Last)
	list6 := differing(b.space.spans6, spans6, v6Last)
	points, ok := bound.in(list4, list6, len(bound.base)/4+1<<10)
	if !ok {
		return false
	}
	b.space.spans4, b.space.spans6 = spans4, spans6
	classes := b.classes.sets.len()
	if b.paint16 != nil {
		ok = b.paint16.repaint(list4, list6, classes)
	} else {
		ok = b.paint32.repaint(list4, list6, classes)
	}
	return ok && b.move(points)
}

// repaint gives all addresses of the stretches the classes of those without
// identity, or refuses to if there isn't room.
func (p *painter[C]) repaint(list4, list6 []stretch, classes int) bool {
	const room4, room6 = 4 * levels * blockSize, 2 * 16 * blockSize // the most that one stretch adds
	if classes > int(p.capacity) ||
		max(len(p.nodes), len(p.leaf))+room4*len(list4) > maxOffset ||
		len(p.nodes6)+room6*len(list6) > maxOffset>>1 {
		return false
	}
	for _, s := range list4 {
		if s.other {
			p.range4(s.first.V4(), s.last.V4(), s.free)
		}
	}
	trie := false
	for _, s := range list6 {
		if s.other {
			p.range6(s.first, s.last, s.free)
			trie = true
		}
	}
	if trie {
		p.findStem()
		p.regroup(list6)
	}
	return true
}

// regroup brings the hash in step with the trie.
func (p *painter[C]) regroup(list []stretch) {
	low := p.low()
	for at := range p.parts {
		for i := range p.parts[at] {
			s := p.parts[at][i]
			first, last := packet.Addr{Hi: s.hi, Lo: s.lo}, packet.Addr{Hi: s.hi, Lo: s.lo | low}
			if s.first == 0 || !overlap(list, first, last) {
				continue
			}
			to := p.ownGroup(uint64(at), uint64(i))
			for k := range low + 1 {
				if a := (packet.Addr{Hi: s.hi, Lo: s.lo | k}); overlap(list, a, a) {
					p.groups[uint64(to)+k] = C(p.longest6(a))
				}
			}
		}
	}
}

// differing lists where two divisions of the addresses up to last differ.
func differing(old, next []span, last packet.Addr) (out []stretch) {
	end := func(all []span, i int) packet.Addr {
		if i+1 < len(all) {
			return before(all[i+1].start)
		}
		return last
	}
	for i, j := 0, 0; i < len(old) && j < len(next); {
		o, n := old[i], next[j]
		first, oldEnd, nextEnd := o.start, end(old, i), end(next, j)
		if first.Less(n.start) {
			first = n.start
		}
		to := oldEnd
		if !to.Less(nextEnd) {
			to = nextEnd
			j++
		}
		if to == oldEnd {
			i++
		}
		if o.free != n.free || o.fixed != n.fixed {
			out = append(out, stretch{first: first, last: to, free: n.free, other: o.free != n.free})
		}
	}
	return out
}

// overlap reports whether any of the addresses first to last is in the
// stretches, which are sorted.
func overlap(list []stretch, first, last packet.Addr) bool {
	n := sort.Search(len(list), func(i int) bool { return last.Less(list[i].first) })
	return n > 0 && !list[n-1].last.Less(first)
}

// in lists what is bound, and what no longer is, in the stretches of both
// families, the last point of an address being the valid one; up to a limit.
func (b bindings) in(list4, list6 []stretch, limit int) (out []point, ok bool) {
	six := sort.Search(len(b.base), func(i int) bool { return b.base[i].Addr.Is6() })
	for _, family := range []struct {
		list []stretch
		base []rule.Address
	}{{list4, b.base[:six]}, {list6, b.base[six:]}} {
		base := family.base
		for _, s := range family.list {
			base = base[sort.Search(len(base), func(i int) bool { return !packet.AddrFrom(base[i].Addr).Less(s.first) }):]
			n := sort.Search(len(base), func(i int) bool { return s.last.Less(packet.AddrFrom(base[i].Addr)) })
			if limit -= n; limit < 0 {
				return nil, false
			}
			for _, a := range base[:n] {
				out = append(out, point{addr: packet.AddrFrom(a.Addr), identity: a.Identity})
			}
		}
	}
	for _, c := range b.changes {
		list, a := list6, packet.AddrFrom(c.Addr)
		if a.Is4() {
			list = list4
		}
		if overlap(list, a, a) {
			out = append(out, point{addr: a, identity: c.Identity})
		}
	}
	return out, true
}
