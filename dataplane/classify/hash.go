package classify

import "github.com/sluice-net/sluice/dataplane/packet"

// usualLoad is how many groups a part gets on average when the hash is laid
// out; with two slots to choose from it holds about 500 before it fails.
const usualLoad = 380

// maxKicks is how many groups an insertion moves before the hash grows.
const maxKicks = 200

// allot lays the hash out anew, empty, for a number of groups.
func (p *painter[C]) allot(groups int) {
	n := 1
	for n*usualLoad < groups {
		n *= 2
	}
	p.parts = make([]*part, n)
	p.sharedPart = make([]bool, n)
	p.sharedParts = false
	for i := range p.parts {
		p.parts[i] = new(part)
	}
}

// set6 gives one address a class in the hash. The other addresses of a new
// group get the classes that the trie has for them.
func (p *painter[C]) set6(a packet.Addr, class uint32) {
	hi, lo := a.Hi, a.Lo&^p.low()
	low := uint32(a.Lo & p.low())
	at, one, two := p.place(hi, lo)
	for _, i := range [2]uint64{one, two} {
		s := &p.parts[at][i]
		if s.first == 0 || s.hi != hi || s.lo != lo {
			continue
		}
		p.groups[p.ownGroup(at, i)+low] = C(class)
		return
	}
	first := uint32(len(p.groups))
	for i := range uint64(1) << p.group {
		p.groups = append(p.groups, C(p.longest6(packet.Addr{Hi: a.Hi, Lo: lo | i})))
	}
	p.groups[first+low] = C(class)
	for s := (slot{hi: hi, lo: lo, first: first}); !p.insert(&s); {
		p.regrow()
	}
}

// ownGroup returns where the classes of a slot's group begin, to be written.
func (p *painter[C]) ownGroup(at, i uint64) uint32 {
	s := &p.parts[at][i]
	if s.first < p.freshGroups {
		first := uint32(len(p.groups))
		p.groups = append(p.groups, p.groups[s.first:s.first+1<<p.group]...)
		s = &p.ownPart(at)[i]
		s.first = first
	}
	return s.first
}

// longest6 finds the class of an address in the trie alone.
func (p *painter[C]) longest6(a packet.Addr) uint32 {
	e := p.root6
	for i := 0; e&full != 0; i++ {
		e = p.nodes6[e>>1+byteOf(a, i)]
	}
	return e >> 1
}

// ownPart returns a part, to be written.
func (p *painter[C]) ownPart(at uint64) *part {
	if p.sharedParts {
		p.parts, p.sharedParts = append([]*part(nil), p.parts...), false
	}
	if p.sharedPart[at] {
		clone := *p.parts[at]
		p.parts[at], p.sharedPart[at] = &clone, false
	}
	return p.parts[at]
}

// insert puts a new group into one of its slots and moves others from there
// to theirs. On failure s is the group that has found no slot.
func (p *painter[C]) insert(s *slot) bool {
	at, one, two := p.place(s.hi, s.lo)
	part := p.ownPart(at)
	to := one
	if part[one].first != 0 {
		to = two
	}
	for range maxKicks {
		*s, part[to] = part[to], *s
		if s.first == 0 {
			return true
		}
		_, one, two = p.place(s.hi, s.lo)
		to ^= one ^ two // the other one of its two slots
	}
	return false
}

// regrow lays the hash out with another seed, and doubles it if it is full or
// if that doesn't help: of the keys that nodes and pods have, one seed in
// fifteen makes too many collide. The group that found no slot is left out.
func (p *painter[C]) regrow() {
	old := p.parts
	size := len(old)
	if len(p.groups)>>p.group > size*usualLoad {
		size *= 2
	}
	for try := 1; ; try++ {
		p.seed[0] = p.seed[0]*0x9e3779b97f4a7c15 + 1
		p.seed[1] = p.seed[1]*0xd6e8feb86659fd93 + 1
		p.allot(size * usualLoad)
		if p.insertAll(old) {
			return
		}
		if try%4 == 0 {
			size *= 2
		}
	}
}

func (p *painter[C]) insertAll(parts []*part) bool {
	for _, part := range parts {
		for _, s := range part {
			if s.first != 0 && !p.insert(&s) {
				return false
			}
		}
	}
	return true
}

// count returns how many groups of 1<<group addresses points touch; points
// are sorted.
func count(points []point, group uint8) int {
	n := 0
	last := packet.Addr{}
	for _, p := range points {
		a := packet.Addr{Hi: p.addr.Hi, Lo: p.addr.Lo >> group}
		if n == 0 || a != last {
			n++
		}
		last = a
	}
	return n
}

// bestGroup returns the size of groups that takes the least memory.
func bestGroup(points []point) uint8 {
	best, least := uint8(0), ^uint64(0)
	for _, group := range []uint8{0, 4, 8} {
		bytes := uint64(count(points, group)) * (slots*32/usualLoad + 2<<group)
		if bytes < least {
			best, least = group, bytes
		}
	}
	return best
}
