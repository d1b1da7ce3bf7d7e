package matrix

import (
	"fmt"
	"math"

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
	named := map[policy.Protocol]bool{}
	var out, more []span
	for _, s := range verdict.NamedSpans(sets...) {
		named[s.Protocol] = true
		more = append(more, span{s, true})
	}
	for _, s := range verdict.PortSpans(sets...) {
		if !verdict.HasPorts(s.Protocol) && (named[policy.ICMP] || named[policy.ICMPv6]) {
			s.Protocol = unnamed(named)
		}
		out = append(out, span{PortSpan: s})
	}
	return append(out, more...)
}

// unnamed returns a protocol without ports that no rule names, from those for
// experiments (RFC 3692) on.
func unnamed(named map[policy.Protocol]bool) policy.Protocol {
	p := policy.Protocol(253)
	for named[p] {
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
