package classify

import (
	"slices"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// The numbers of the port set that matches every packet, and of the one that
// matches none.
const (
	anyPorts = 0
	noPorts  = 1
)

// ports numbers the distinct lists of port ranges that rules use, and the
// coarsest classes of (protocol, port) that tell them apart.
type ports struct {
	sets    interner // of encoded ranges
	classes int
	member  [][]uint32  // port set → its port classes
	proto   [256]uint32 // as in portClasses
	table   []uint32
	table8  []uint8
}

func newPorts() *ports {
	p := &ports{}
	p.sets.add(nil)
	p.sets.add([]uint32{0, 1 << 16}) // from 1 to 0
	return p
}

// add returns the numbers of a rule's set of ports and of the set that is left
// out of it, and false if it is empty.
func (p *ports) add(r *rule.Rule) (set, not uint32, ok bool) {
	set, not = anyPorts, p.addRanges(r.NotPorts)
	if !r.AnyPort {
		set = p.addRanges(r.Ports)
	}
	return set, not, set != noPorts && not != anyPorts
}

func (p *ports) addRanges(ranges []rule.PortRange) uint32 {
	words := make([]uint32, 0, 2*len(ranges))
	ranges = slices.Clone(ranges)
	slices.SortFunc(ranges, func(a, b rule.PortRange) int {
		if a.Proto != b.Proto {
			return int(a.Proto) - int(b.Proto)
		}
		return int(a.From) - int(b.From)
	})
	for _, r := range ranges {
		if r.Proto == rule.AnyProto {
			return anyPorts
		}
		if r.From <= r.To {
			words = append(words, uint32(r.Proto), uint32(r.From)<<16|uint32(r.To))
		}
	}
	if len(words) == 0 {
		return noPorts
	}
	return p.sets.add(words)
}

// addAll adds the sets of all rules of a program.
func (p *ports) addAll(program *rule.Program) {
	program.EachRule(func(r *rule.Rule) { p.add(r) })
}

// build finds the classes once all sets are added.
func (p *ports) build() {
	// An item is a stretch of ports of one protocol between two edges; item 0
	// is all protocols that nobody names.
	var edges [256][]uint32
	for _, w := range pairs(p.sets.words) {
		if w.proto == 0 {
			continue // noPorts
		}
		edges[w.proto] = append(edges[w.proto], w.from, w.to+1)
	}
	type item struct {
		proto    int
		from, to uint32
	}
	items, named := []item{{}}, 0
	var first [256]uint32 // item of each named protocol
	for proto, list := range edges {
		if len(list) == 0 {
			continue
		}
		named++
		list = append(list, 0, 1<<16)
		slices.Sort(list)
		list = slices.Compact(list)
		edges[proto] = list
		first[proto] = uint32(len(items))
		for i := range list[1:] {
			items = append(items, item{proto, list[i], list[i+1]})
		}
	}
	var r refiner
	r.reset(len(items))
	for set := uint32(1); int(set) < p.sets.len(); set++ {
		r.next()
		if set == noPorts {
			continue
		}
		for _, w := range pairs(p.sets.at(set)) {
			at, _ := slices.BinarySearch(edges[w.proto], w.from)
			for i := first[w.proto] + uint32(at); int(i) < len(items) && items[i].proto == w.proto && items[i].from <= w.to; i++ {
				r.put(i)
			}
		}
	}
	number := p.number(&r)
	p.table = make([]uint32, 1<<16, (1+named)<<16)
	p.table[0] = number[r.class[0]]
	for i, it := range items[1:] {
		if it.from == 0 {
			p.proto[it.proto] = uint32(len(p.table)) | 0xffff
		}
		p.table = appendRepeat(p.table, number[r.class[i+1]], int(it.to-it.from))
	}
}

// number gives the refiner's classes that have items dense numbers, and
// lists the members of each set.
func (p *ports) number(r *refiner) []uint32 {
	number := make([]uint32, len(r.parent))
	p.member = make([][]uint32, p.sets.len())
	seen := make([]bool, len(r.parent))
	for _, c := range r.class {
		if seen[c] {
			continue
		}
		seen[c] = true
		dense := uint32(p.classes)
		number[c] = dense
		p.classes++
		p.member[anyPorts] = append(p.member[anyPorts], dense)
		for ; c != 0; c = r.parent[c] {
			p.member[r.born[c]] = append(p.member[r.born[c]], dense)
		}
	}
	return number
}

type protoRange struct {
	proto    int
	from, to uint32
}

// pairs decodes the words of port sets.
func pairs(words []uint32) []protoRange {
	out := make([]protoRange, 0, len(words)/2)
	for i := 0; i+1 < len(words); i += 2 {
		out = append(out, protoRange{int(words[i]), words[i+1] >> 16, words[i+1] & 0xffff})
	}
	return out
}

// narrow returns the table in bytes; there are at most 256 classes.
func (p *ports) narrow() []uint8 {
	if p.table8 == nil {
		p.table8 = narrow(p.table8, p.table)
	}
	return p.table8
}

// origins returns, for each port class, the one of p that it is a part of;
// next has all sets of p, and others.
func (p *ports) origins(next *ports) []uint32 {
	out := make([]uint32, next.classes)
	out[next.table[0]] = p.table[0]
	for proto, e := range next.proto {
		for port := uint32(0); e != 0 && port < 1<<16; port++ {
			out[next.table[e&(port|0xffff0000)]] = p.table[p.proto[proto]&(port|0xffff0000)]
		}
	}
	return out
}

// portClasses maps protocol and port to the port classes of each row.
type portClasses[P uint8 | uint32] struct {
	// proto has for a protocol that rules name the number of its part of
	// table, above 16 ones; for the others 0, the one entry that they share.
	proto [256]uint32
	table []P
	local []P // row's part + port class → local port class
}
