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
	member  [][]uint32 // port set → its port classes
	nodes   []uint32   // as in Table.portNodes and …
	leaf    []uint32   // … port32
	leaf8   []uint8
	named   [256]bool // protocols that sets name
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
	items := []item{{}}
	var first [256]uint32 // item of each named protocol
	for proto, list := range edges {
		if len(list) == 0 {
			continue
		}
		p.named[proto] = true
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
	p.nodes = make([]uint32, 1<<16)
	p.leaf = appendRepeat(nil, number[r.class[0]], blockSize) // at 0, where all nodes lead so far
	u := uniformPorts{number[r.class[0]]: 1}
	for i, it := range items[1:] {
		p.paint(u, uint32(it.proto)<<8, it.from, it.to, number[r.class[i+1]])
	}
}

// uniformPorts has by class where its block in leaf begins, plus 1, that is
// of this class alone.
type uniformPorts map[uint32]uint32

func (u uniformPorts) block(p *ports, class uint32) uint32 {
	if u[class] == 0 {
		u[class] = uint32(len(p.leaf)) + 1
		p.leaf = appendRepeat(p.leaf, class, blockSize)
	}
	return u[class] - 1
}

// paint gives the ports of a protocol, whose nodes begin at nodes, a class,
// from one on, up to another one. It is called in the order of the ports.
func (p *ports) paint(u uniformPorts, nodes, from, to, class uint32) {
	for from < to {
		next := min(from&^0xff+blockSize, to)
		at := nodes + from>>8
		switch {
		case next-from == blockSize:
			p.nodes[at] = u.block(p, class)
		case from&0xff == 0:
			p.nodes[at] = uint32(len(p.leaf))
			p.leaf = appendRepeat(p.leaf, class, blockSize)
		default:
			for i := range next - from {
				p.leaf[p.nodes[at]+from&0xff+i] = class
			}
		}
		from = next
	}
}

// class returns the class of a port.
func (p *ports) class(proto int, port uint32) uint32 {
	return p.leaf[p.nodes[uint32(proto)<<8+port>>8]+port&0xff]
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

// narrow returns leaf in bytes; there are at most 256 classes.
func (p *ports) narrow() []uint8 {
	if p.leaf8 == nil {
		p.leaf8 = narrow(p.leaf8, p.leaf)
	}
	return p.leaf8
}

// origins returns, for each port class, the one of p that it is a part of;
// next has all sets of p, and others.
func (p *ports) origins(next *ports) []uint32 {
	out := make([]uint32, next.classes)
	for proto, named := range next.named {
		if !named {
			out[next.class(proto, 0)] = p.class(proto, 0)
			continue
		}
		for port := range uint32(1 << 16) {
			out[next.class(proto, port)] = p.class(proto, port)
		}
	}
	return out
}
