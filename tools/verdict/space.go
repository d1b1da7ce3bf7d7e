package verdict

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Range is an inclusive range of addresses of one family.
type Range struct{ From, To netip.Addr }

// Region is all addresses, of those that nobody in the cluster has, that a Set
// can't tell apart.
type Region struct {
	Name   string
	Peers  []rule.PeerID // that the addresses belong to, sorted
	Addr   netip.Addr    // one of them
	Ranges []Range       // sorted; own addresses in between don't count
}

// PeersOf returns the peers that an address belongs to, sorted.
func PeersOf(set *rule.Set, a netip.Addr) []rule.PeerID {
	var out []rule.PeerID
	i, bound := slices.BinarySearchFunc(set.Addresses, a, func(x rule.Address, a netip.Addr) int { return x.Addr.Compare(a) })
	if bound {
		out = slices.Clone(set.Identities[set.Addresses[i].Identity])
	}
	for _, b := range set.Blocks {
		if b.Prefix.Contains(a) && !(b.Unbound && bound) &&
			!slices.ContainsFunc(b.Except, func(x netip.Prefix) bool { return x.Contains(a) }) {
			out = append(out, b.Peer)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Regions cuts the addresses of a family, own ones aside, into what any of the
// sets can tell apart. It is exact: each address belongs to the region that
// has it in its ranges.
func Regions(own []netip.Addr, six bool, sets ...*rule.Set) []Region {
	var all netip.Prefix
	if six {
		all = netip.MustParsePrefix("::/0")
	} else {
		all = netip.MustParsePrefix("0.0.0.0/0")
	}
	taken := map[netip.Addr]bool{}
	starts := []netip.Addr{all.Addr()}
	after := func(a netip.Addr) {
		if n := a.Next(); n.IsValid() {
			starts = append(starts, n)
		}
	}
	for _, a := range own {
		if a.Is6() == six {
			taken[a] = true
			starts = append(starts, a)
			after(a)
		}
	}
	for _, set := range sets {
		for _, b := range set.Blocks {
			for _, p := range append([]netip.Prefix{b.Prefix}, b.Except...) {
				if p.Addr().Is6() == six {
					starts = append(starts, p.Addr())
					after(last(p))
				}
			}
		}
	}
	slices.SortFunc(starts, netip.Addr.Compare)
	starts = slices.Compact(starts)
	return regions(starts, taken, last(all), sets)
}

func regions(starts []netip.Addr, taken map[netip.Addr]bool, end netip.Addr, sets []*rule.Set) []Region {
	var out []Region
	index := map[string]int{}
	open := -1 // region of the range before, own addresses aside
	for i, a := range starts {
		if taken[a] {
			continue
		}
		to := end
		if i+1 < len(starts) {
			to = starts[i+1].Prev()
		}
		var all []rule.PeerID
		key := ""
		for _, set := range sets {
			peers := PeersOf(set, a)
			key += fmt.Sprint(peers)
			all = append(all, peers...)
		}
		k, ok := index[key]
		if !ok {
			k = len(out)
			index[key] = k
			out = append(out, Region{Peers: all, Addr: a})
		}
		r := &out[k]
		if n := len(r.Ranges); open == k && n > 0 {
			r.Ranges[n-1].To = to
		} else {
			r.Ranges = append(r.Ranges, Range{a, to})
		}
		open = k
	}
	nameRegions(out)
	return out
}

// nameRegions calls the largest one what it is: the rest of the world.
func nameRegions(rs []Region) {
	if len(rs) == 0 {
		return
	}
	family := "IPv4"
	if rs[0].Addr.Is6() {
		family = "IPv6"
	}
	largest := 0
	for i := range rs {
		rs[i].Name = RangesText(rs[i].Ranges)
		if size(rs[i].Ranges) > size(rs[largest].Ranges) {
			largest = i
		}
	}
	rs[largest].Name = "any other " + family
	if len(rs) == 1 {
		rs[largest].Name = "any " + family
	}
}

func size(ranges []Range) float64 {
	var sum float64
	for _, r := range ranges {
		from, to := r.From.As16(), r.To.As16()
		for i := range from {
			sum += (float64(to[i]) - float64(from[i])) * math.Exp2(float64(8*(15-i)))
		}
		sum++
	}
	return sum
}

func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b) // as long as it came
	return a
}

// RangesText names ranges, by CIDR where they are one, the first few of many.
// What is left of a CIDR by exceptions is called that.
func RangesText(ranges []Range) string {
	const most = 3
	if n := len(ranges); n > 1 {
		if whole := (Range{ranges[0].From, ranges[n-1].To}).String(); strings.Contains(whole, "/") {
			return whole + " in part"
		}
	}
	var out []string
	for i, r := range ranges {
		if i == most {
			out = append(out, fmt.Sprintf("%d more", len(ranges)-most))
			break
		}
		out = append(out, r.String())
	}
	return strings.Join(out, ", ")
}

// String returns an address, a CIDR or "from-to".
func (r Range) String() string {
	if r.From == r.To {
		return r.From.String()
	}
	for bits := range r.From.BitLen() {
		if p := netip.PrefixFrom(r.From, bits); p.Masked() == p && last(p) == r.To {
			return p.String()
		}
	}
	return r.From.String() + "-" + r.To.String()
}

// PortSpan is a range of ports of one protocol that no rule can tell apart.
type PortSpan struct {
	Flow // its first port
	To   uint16
}

// AllSpans is PortSpans with all protocols that rules name, types and codes of
// ICMP told apart.
func AllSpans(set *rule.Set) []PortSpan {
	named := slices.DeleteFunc(NamedSpans(set), func(s PortSpan) bool { return s.Protocol == policy.ICMP && s.Port == 0 })
	return append(PortSpans(set), named...)
}

// NamedSpans cuts protocols without ports that rules of any of the sets name into
// what they can tell apart: of ICMP a type and a code, of others nothing.
func NamedSpans(sets ...*rule.Set) []PortSpan {
	starts := map[policy.Protocol][]int{}
	for _, set := range sets {
		for i := range set.Programs {
			set.Programs[i].EachRule(func(r *rule.Rule) {
				for _, p := range slices.Concat(r.Ports, r.NotPorts) {
					if proto := policy.Protocol(p.Proto); p.Proto != rule.AnyProto && !HasPorts(proto) {
						starts[proto] = append(starts[proto], int(p.From), int(p.To)+1)
					}
				}
			})
		}
	}
	var out []PortSpan
	for _, proto := range slices.Sorted(maps.Keys(starts)) {
		list := append(starts[proto], 0)
		slices.Sort(list)
		list = slices.Compact(list)
		for i, from := range list {
			to := math.MaxUint16
			if i+1 < len(list) {
				to = list[i+1] - 1
			}
			if from <= math.MaxUint16 {
				out = append(out, PortSpan{Flow{proto, uint16(from)}, uint16(to)})
			}
		}
	}
	return out
}

// PortSpans cuts protocols and ports into what any of the sets can tell apart.
// Protocols that no rule names are represented by ICMP.
func PortSpans(sets ...*rule.Set) []PortSpan {
	starts := map[policy.Protocol][]int{policy.TCP: {1}, policy.UDP: {1}, policy.SCTP: {1}}
	for _, set := range sets {
		for i := range set.Programs {
			set.Programs[i].EachRule(func(r *rule.Rule) {
				for _, p := range slices.Concat(r.Ports, r.NotPorts) {
					proto := policy.Protocol(p.Proto)
					if p.Proto != rule.AnyProto && HasPorts(proto) {
						starts[proto] = append(starts[proto], max(1, int(p.From)), int(p.To)+1)
					}
				}
			})
		}
	}
	var out []PortSpan
	for proto, list := range starts {
		slices.Sort(list)
		list = slices.Compact(list)
		for i, from := range list {
			to := math.MaxUint16
			if i+1 < len(list) {
				to = list[i+1] - 1
			}
			if from <= math.MaxUint16 {
				out = append(out, PortSpan{Flow{proto, uint16(from)}, uint16(min(to, math.MaxUint16))})
			}
		}
	}
	slices.SortFunc(out, func(a, b PortSpan) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	return append(out, PortSpan{Flow: Flow{Protocol: policy.ICMP}})
}
