package classify

import (
	"math/bits"
)

// An entry of root, mid or nodes is an offset into the next level, shifted
// left by one, and the bit full. With full set the next byte of the address
// is added to the offset; without, the whole prefix has one class and the
// entry at the offset is used for every byte. The first entries of mid, nodes
// and leaf are reserved for that: entry c of each leads to class c. So every
// lookup loads the same number of entries, whatever it finds.

// addresses maps remote addresses to classes, of 16 or 32 bits.
//
// IPv4 is a trie of 16, 8 and 8 bits. IPv6 is a hash of the bound addresses,
// in aligned groups of 1<<group neighbours, and for what is in none of the
// groups a trie of 8 bits a level.
type addresses[C uint16 | uint32] struct {
	root []uint32 // by the upper 16 bits of an IPv4 address
	mid  []uint32
	leaf []C

	seed  [2]uint64
	parts []*part // a power of two of them
	group uint8
	nodes []uint32
	top   uint32 // the entry of the empty prefix
	depth int    // levels of the deepest prefix

	// sparse says that IPv4 addresses too scattered for the trie are looked
	// up as the IPv6 addresses that packet.Addr writes them as.
	sparse bool
}

// slots is the size of a part: 24 KB, which an update copies.
const slots = 1024

// part is one share of the hash of groups. A group is in one of two slots.
type part [slots]slot

// slot holds a group's address without its low bits. A leaf of 0 is free.
type slot struct {
	hi, lo uint64
	leaf   uint32
}

// place returns a group's part and its two slots there.
func (a *addresses[C]) place(hi, lo uint64) (part, one, two uint64) {
	h, l := bits.Mul64(hi^a.seed[0], lo^a.seed[1])
	h ^= l
	return h >> 32 & uint64(len(a.parts)-1), h % slots, h >> 10 % slots
}

// classify finds the class of each query's remote address.
func (a *addresses[C]) classify(q []Query, class *[batch]uint32) {
	v4 := 0
	for i := range q {
		if q[i].Remote.Is4() {
			v4++
		}
	}
	switch {
	case a.sparse || v4 == 0:
		a.classify6(q, class)
	case v4 == len(q):
		a.classify4(q, class)
	default:
		a.classifyMixed(q, class)
	}
}

func (a *addresses[C]) classify4(q []Query, class *[batch]uint32) {
	for i := range q {
		v := q[i].Remote.V4()
		e := a.root[v>>16]
		e = a.mid[e>>1+(v>>8&0xff)&-(e&full)]
		class[i%batch] = uint32(a.leaf[e>>1+(v&0xff)&-(e&full)])
	}
}

func (a *addresses[C]) classify6(q []Query, class *[batch]uint32) {
	var missed [batch]uint32
	n := 0
	low := uint64(1)<<a.group - 1
	for i := range q {
		hi, lo := q[i].Remote.Hi, q[i].Remote.Lo>>(a.group%64)
		at, one, two := a.place(hi, lo)
		p := a.parts[at]
		s1, s2 := &p[one], &p[two]
		d1, d2 := s1.hi^hi|s1.lo^lo, s2.hi^hi|s2.lo^lo
		leaf := uint32(0)
		if d1 == 0 {
			leaf = s1.leaf
		}
		if d2 == 0 && leaf == 0 {
			leaf = s2.leaf
		}
		class[i%batch] = uint32(a.leaf[leaf+uint32(q[i].Remote.Lo&low)])
		missed[n%batch] = uint32(i)
		if leaf == 0 {
			n++
		}
	}
	if n > 0 {
		a.longest(q, missed[:n], class)
	}
}

// longest finds the class of the listed queries by their longest prefix, all
// of them one level at a time.
func (a *addresses[C]) longest(q []Query, list []uint32, class *[batch]uint32) {
	for i := range list {
		class[list[i]%batch] = a.top
	}
	for level := range a.depth {
		shift := 56 - 8*level%64
		for _, i := range list {
			word := q[i].Remote.Hi
			if level >= 8 {
				word = q[i].Remote.Lo
			}
			e := class[i%batch]
			class[i%batch] = a.nodes[e>>1+uint32(word>>(shift%64)&0xff)&-(e&full)]
		}
	}
	for _, i := range list {
		class[i%batch] >>= 1
	}
}

// classifyMixed sorts a batch by family and back.
func (a *addresses[C]) classifyMixed(q []Query, class *[batch]uint32) {
	var sorted [batch]Query
	var from [batch]uint32
	var found [batch]uint32
	v4, v6 := 0, len(q)
	for i := range q {
		at := v4
		if q[i].Remote.Is4() {
			v4++
		} else {
			v6--
			at = v6
		}
		sorted[at%batch], from[at%batch] = q[i], uint32(i)
	}
	a.classify4(sorted[:v4], &found)
	for i := range v4 {
		class[from[i%batch]%batch] = found[i%batch]
	}
	a.classify6(sorted[v6:len(q)], &found)
	for i := range len(q) - v6 {
		class[from[(v6+i)%batch]%batch] = found[i%batch]
	}
}
