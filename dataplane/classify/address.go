package classify

import (
	"math/bits"
)

// addresses maps remote addresses to classes, of 16 or 32 bits.
//
// IPv4 is a trie of four levels, one a byte. An entry of nodes says where the
// next block begins, in nodes or at last in leaf. A prefix of one class has
// blocks too, which are the same for everything of that class: so every lookup
// does the same, adds each byte to what the one before it has found, whatever
// it finds.
//
// IPv6 is a hash of the bound addresses, in aligned groups of 1<<group
// neighbours, and for what is in none of them a trie of 8 bits a level. There
// a prefix of one class needs no blocks: an entry of nodes6 is an offset into
// nodes6, shifted left by one, and the bit full if a block begins there; entry
// c leads to itself for class c.
type addresses[C uint16 | uint32] struct {
	root  uint32 // where the block of the first byte begins
	nodes []uint32
	leaf  []C

	seed   [2]uint64
	parts  []*part // a power of two of them
	group  uint8
	groups []C // first of a group + low bits of the address → class
	root6  uint32
	nodes6 []uint32
	depth  int // levels of the deepest prefix
	stem   stem

	// sparse says that IPv4 addresses too scattered for the trie are looked
	// up as the IPv6 addresses that packet.Addr writes them as.
	sparse bool
}

// stem is the levels that the trie of IPv6 begins with and that lookups skip,
// because all prefixes have the same bytes there: an address goes on at inside
// if its upper half agrees with prefix in mask, and at outside if not.
type stem struct {
	levels          int
	prefix, mask    uint64
	inside, outside uint32
}

// full in an entry of nodes6 says that a block follows.
const full = 1

// slots is the size of a part: 32 KB, which an update copies.
const slots = 1024

// part is one share of the hash of groups. A group is in one of two slots.
type part [slots]slot

// slot holds a group's address without its low bits, and where in groups its
// classes begin. A slot with first 0 is free.
type slot struct {
	hi, lo uint64
	first  uint32
	_      [3]uint32 // so that it is in one cache line
}

// A hash's bits from these on choose a group's two slots.
const (
	firstSlot  = 5 // as a slot takes 1<<5 bytes
	secondSlot = 15
)

// low are the bits of an address's lower half that tell a group's addresses
// apart.
func (a *addresses[C]) low() uint64 { return 1<<(a.group&63) - 1 }

// place returns a group's part and its two slots there.
func (a *addresses[C]) place(hi, lo uint64) (part, one, two uint64) {
	h := mix(hi^a.seed[0], lo^a.seed[1])
	return h >> 32 & uint64(len(a.parts)-1), h >> firstSlot % slots, h >> secondSlot % slots
}

func mix(a, b uint64) uint64 {
	h, l := bits.Mul64(a, b)
	return h ^ l
}

// classify finds the class of each query's remote address. It takes all
// addresses for those of one family, and sorts them out if they aren't.
func (a *addresses[C]) classify(q []Query, class []uint32) {
	switch {
	case len(q) == 0:
	case a.sparse:
		a.classify6(q, class)
	case q[0].Remote.Is4():
		if !a.classify4(q, class) {
			a.classifyOthers(q, class)
		}
	case none4(q):
		a.classify6(q, class)
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
	nodes, leaf := a.nodes, a.leaf
	root := nodes[a.root:][:blockSize]
	class = class[:len(q)]
	hi, lo := uint64(0), uint64(0)
	for i := range q {
		r := q[i].Remote.Lo ^ v4Mapped
		hi |= q[i].Remote.Hi
		lo |= r
		v := uint32(r)
		e := root[v>>24]
		e = nodes[e+v>>16&0xff]
		e = nodes[e+v>>8&0xff]
		class[i] = uint32(leaf[e+v&0xff])
	}
	return hi|lo>>32 == 0
}

// classifyOthers handles those queries of a mixed batch that aren't IPv4.
func (a *addresses[C]) classifyOthers(q []Query, class []uint32) {
	var others [batch]Query
	var from, found [batch]uint32
	n := 0
	for i := range q {
		others[n&(batch-1)], from[n&(batch-1)] = q[i], uint32(i)
		if !q[i].Remote.Is4() {
			n++
		}
	}
	a.classify6(others[:n], found[:n])
	for k, i := range from[:n] {
		class[i] = found[k]
	}
}

// classify6 takes all queries for IPv6 ones.
func (a *addresses[C]) classify6(q []Query, class []uint32) {
	var missed [batch]uint32
	class = class[:len(q)]
	a.probe(q, class)
	low, groups := a.low(), a.groups
	n := 0
	for i := range q {
		first := class[i]
		class[i] = uint32(groups[first+uint32(q[i].Remote.Lo&low)])
		missed[n&(batch-1)] = uint32(i)
		n += int((uint64(first) - 1) >> 63) // if it is 0
	}
	if n > 0 {
		a.longest(q, missed[:n], class)
	}
}

// probe finds the first of each address's group, or 0. Which of the two slots
// has it is random, so a branch would often be mispredicted.
func (a *addresses[C]) probe(q []Query, class []uint32) {
	parts, low := a.parts, a.low()
	seed0, seed1, mask := a.seed[0], a.seed[1], uint64(len(parts)-1)
	class = class[:len(q)]
	for i := range q {
		hi, lo := q[i].Remote.Hi, q[i].Remote.Lo&^low
		h := mix(hi^seed0, lo^seed1) // as place does
		p := parts[h>>32&mask]
		s1, s2 := &p[h>>firstSlot%slots], &p[h>>secondSlot%slots]
		class[i] = s1.first&zeroMask(s1.hi^hi|(s1.lo^lo)) | s2.first&zeroMask(s2.hi^hi|(s2.lo^lo))
	}
}

// zeroMask returns all ones for 0 and 0 for everything else.
func zeroMask(d uint64) uint32 { return uint32((d|-d)>>63) - 1 }

// upper and lower are how many levels beyond the stem a lookup goes through in
// either half of an address.
func (a *addresses[C]) upper() int { return min(a.depth, 8) - a.stem.levels }
func (a *addresses[C]) lower() int { return max(a.depth-8, 0) }

// longest finds the class of the listed queries by their longest prefix. Each
// walks as many levels as the deepest prefix has, so that the walks overlap.
func (a *addresses[C]) longest(q []Query, list []uint32, class []uint32) {
	nodes, s, upper, lower := a.nodes6, a.stem, a.upper(), a.lower()
	for _, i := range list {
		word := q[i].Remote.Hi
		e := s.outside
		if (word^s.prefix)&s.mask == 0 {
			e = s.inside
		}
		word <<= 8 * (s.levels & 7)
		for range upper {
			e = nodes[e>>1+uint32(word>>56)&-(e&full)]
			word <<= 8
		}
		word = q[i].Remote.Lo
		for range lower {
			e = nodes[e>>1+uint32(word>>56)&-(e&full)]
			word <<= 8
		}
		class[i] = e >> 1
	}
}
