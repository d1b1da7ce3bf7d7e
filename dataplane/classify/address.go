package classify

import (
	"math/bits"
)

// addresses maps remote addresses to classes, of 16 or 32 bits.
//
// IPv4 is a trie of 16, 8 and 8 bits. An entry of root and mid is an offset
// into the next level, shifted left by 8, and a mask for the next byte of the
// address: 0xff to choose from a block of 256 entries, 0 where the whole
// prefix has one class and the entry at the offset holds for every byte. The
// first entries of mid and leaf are kept for that: entry c leads to class c.
// So every lookup does the same, whatever it finds.
//
// IPv6 is a hash of the bound addresses, in aligned groups of 1<<group
// neighbours, and for what is in none of them a trie of 8 bits a level. An
// entry of nodes is an offset shifted left by one, and the bit full instead
// of a mask; entry c leads to itself for class c.
type addresses[C uint16 | uint32] struct {
	root []uint32 // by the upper 16 bits of an IPv4 address
	mid  []uint32
	leaf []C

	seed   [2]uint64
	parts  []*part // a power of two of them
	group  uint8
	groups []C // first of a group + low bits of the address → class
	nodes  []uint32
	top    uint32 // the entry of the empty prefix
	depth  int    // levels of the deepest prefix

	// sparse says that IPv4 addresses too scattered for the trie are looked
	// up as the IPv6 addresses that packet.Addr writes them as.
	sparse bool
}

// full in an entry of nodes says that a block follows.
const full = 1

// slots is the size of a part: 24 KB, which an update copies.
const slots = 1024

// part is one share of the hash of groups. A group is in one of two slots.
type part [slots]slot

// slot holds a group's address without its low bits, and where in groups its
// classes begin. A slot with first 0 is free.
type slot struct {
	hi, lo uint64
	first  uint32
}

// place returns a group's part and its two slots there.
func (a *addresses[C]) place(hi, lo uint64) (part, one, two uint64) {
	h, l := bits.Mul64(hi^a.seed[0], lo^a.seed[1])
	h ^= l
	return h >> 32 & uint64(len(a.parts)-1), h % slots, h >> 10 % slots
}

// everyone lists all queries of a batch.
var everyone = func() (list [batch]uint8) {
	for i := range list {
		list[i] = uint8(i)
	}
	return list
}()

// classify finds the class of each query's remote address. It takes all
// addresses for those of one family, and sorts them out if they aren't.
func (a *addresses[C]) classify(q []Query, class []uint32) {
	switch {
	case len(q) == 0:
	case a.sparse:
		a.classify6(q, everyone[:len(q)], class)
	case q[0].Remote.Is4():
		if !a.classify4(q, class) {
			a.classifyOthers(q, class)
		}
	case none4(q):
		a.classify6(q, everyone[:len(q)], class)
	default:
		a.classify4(q, class)
		a.classifyOthers(q, class)
	}
}

func none4(q []Query) bool {
	n := 0
	for i := range q {
		if q[i].Remote.Is4() {
			n++
		}
	}
	return n == 0
}

// v4Mapped is the low word of ::ffff:0.0.0.0.
const v4Mapped = 0xffff << 32

// classify4 takes all queries for IPv4 ones and says whether they are.
func (a *addresses[C]) classify4(q []Query, class []uint32) bool {
	root, mid, leaf := a.root[:1<<16], a.mid, a.leaf
	class = class[:len(q)]
	hi, lo := uint64(0), uint64(0)
	for i := range q {
		r := q[i].Remote.Lo ^ v4Mapped
		hi |= q[i].Remote.Hi
		lo |= r
		v := uint32(r)
		e := root[v>>16]
		e = mid[e>>8+(v>>8)&e&0xff]
		class[i] = uint32(leaf[e>>8+v&e&0xff])
	}
	return hi|lo>>32 == 0
}

// classifyOthers handles those queries of a mixed batch that aren't IPv4.
func (a *addresses[C]) classifyOthers(q []Query, class []uint32) {
	var list [batch]uint8
	n := 0
	for i := range q {
		list[n&(batch-1)] = uint8(i)
		if !q[i].Remote.Is4() {
			n++
		}
	}
	a.classify6(q, list[:n], class)
}

// classify6 handles the listed queries.
func (a *addresses[C]) classify6(q []Query, list []uint8, class []uint32) {
	var missed [batch]uint8
	n := 0
	low := uint64(1)<<(a.group&63) - 1
	parts, groups := a.parts, a.groups
	for _, i := range list {
		r := &q[i].Remote
		hi, lo := r.Hi, r.Lo>>(a.group&63)
		at, one, two := a.place(hi, lo)
		p := parts[at]
		s1, s2 := &p[one], &p[two]
		d1, d2 := s1.hi^hi|s1.lo^lo, s2.hi^hi|s2.lo^lo
		first := uint32(0)
		if d1 == 0 {
			first = s1.first
		}
		if d2 == 0 {
			first |= s2.first
		}
		class[i] = uint32(groups[first+uint32(r.Lo&low)])
		missed[n&(batch-1)] = i
		if first == 0 {
			n++
		}
	}
	if n > 0 {
		a.longest(q, missed[:n], class)
	}
}

// longest finds the class of the listed queries by their longest prefix, all
// of them one level at a time.
func (a *addresses[C]) longest(q []Query, list []uint8, class []uint32) {
	for _, i := range list {
		class[i] = a.top
	}
	nodes := a.nodes
	for level := range a.depth {
		shift := uint(56 - 8*(level&7))
		for _, i := range list {
			word := q[i].Remote.Hi
			if level >= 8 {
				word = q[i].Remote.Lo
			}
			e := class[i]
			class[i] = nodes[e>>1+uint32(word>>(shift&63)&0xff)&-(e&full)]
		}
	}
	for _, i := range list {
		class[i] >>= 1
	}
}
