package matrix

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/verdict"
)

// span is ports of one protocol that no rule can tell apart. A named one is of a
// protocol without ports that rules name: types and codes of ICMP, or all of it. The
// one that is not stands for all other such protocols.
type span struct {
	verdict.PortSpan
	named bool
}

// spansOf cuts protocols and ports into what any of the sets can tell apart.
func spansOf(sets ...*rule.Set) []span {
	starts := map[policy.Protocol][]int{}
	for _, set := range sets {
		for i := range set.Programs {
			set.Programs[i].EachRule(func(r *rule.Rule) {
				for _, p := range slices.Concat(r.Ports, r.NotPorts) {
					if proto := policy.Protocol(p.Proto); p.Proto != rule.AnyProto && !verdict.HasPorts(proto) {
						starts[proto] = append(starts[proto], int(p.From), int(p.To)+1)
					}
				}
			})
		}
	}
	var out []span
	for _, s := range verdict.PortSpans(sets...) {
		if !verdict.HasPorts(s.Protocol) && (starts[policy.ICMP] != nil || starts[policy.ICMPv6] != nil) {
			s.Protocol = unnamed(starts)
		}
		out = append(out, span{PortSpan: s})
	}
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
				out = append(out, span{verdict.PortSpan{Flow: verdict.Flow{Protocol: proto, Port: uint16(from)}, To: uint16(to)}, true})
			}
		}
	}
	return out
}

// unnamed returns a protocol without ports that no rule names, from those for
// experiments (RFC 3692) on.
func unnamed(named map[policy.Protocol][]int) policy.Protocol {
	p := policy.Protocol(253)
	for named[p] != nil {
		p--
	}
	return p
}

// flow is what to ask about between two addresses; false if there is nothing: each
// family has an ICMP of its own.
func (s *span) flow(pair verdict.Pair) (verdict.Flow, bool) {
	f := s.Flow
	if !s.named || f.Protocol != policy.ICMP && f.Protocol != policy.ICMPv6 {
		return f, true
	}
	if f.Port == 0 { // which stands for an echo request
		f.Port = 1
	}
	return f, f.Port <= s.To && pair.Dst.Is4() == (f.Protocol == policy.ICMP)
}

// namedRange names what collect has of a protocol without ports.
func namedRange(r portRange) string {
	name := verdict.ProtocolName(r.proto)
	switch {
	case r.proto != policy.ICMP && r.proto != policy.ICMPv6:
		return "IP/" + name
	case r.from == 0 && r.to == math.MaxUint16:
		return name
	case r.from&0xff != 0 || r.to&0xff != 0xff:
		if r.from == r.to {
			return fmt.Sprintf("%s/type%d.%d", name, r.from>>8, r.from&0xff)
		}
		return fmt.Sprintf("%s/type%d.%d-%d.%d", name, r.from>>8, r.from&0xff, r.to>>8, r.to&0xff)
	case r.from>>8 == r.to>>8:
		return fmt.Sprintf("%s/type%d", name, r.from>>8)
	}
	return fmt.Sprintf("%s/type%d-%d", name, r.from>>8, r.to>>8)
}
