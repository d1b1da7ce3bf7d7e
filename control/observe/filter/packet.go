package filter

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// oneOf matches flows of which get returns one of values.
func oneOf[T comparable](values []T, get func(*flowpb.Flow) T) Match {
	if len(values) == 0 {
		return nil
	}
	return func(f *flowpb.Flow) bool { return slices.Contains(values, get(f)) }
}

func uuids(f *flowpb.FlowFilter) (Match, error) { return oneOf(f.Uuid, (*flowpb.Flow).GetUuid), nil }

func verdicts(f *flowpb.FlowFilter) (Match, error) {
	return oneOf(f.Verdict, (*flowpb.Flow).GetVerdict), nil
}

// reasons matches flows that were dropped: others have the reason "unknown".
func reasons(f *flowpb.FlowFilter) (Match, error) {
	if len(f.DropReasonDesc) == 0 {
		return nil, nil
	}
	return all(oneOf([]flowpb.Verdict{flowpb.Verdict_DROPPED}, (*flowpb.Flow).GetVerdict), oneOf(f.DropReasonDesc, (*flowpb.Flow).GetDropReasonDesc)), nil
}

func directions(f *flowpb.FlowFilter) (Match, error) {
	return oneOf(f.TrafficDirection, (*flowpb.Flow).GetTrafficDirection), nil
}

func versions(f *flowpb.FlowFilter) (Match, error) {
	return oneOf(f.IpVersion, func(f *flowpb.Flow) flowpb.IPVersion { return f.GetIP().GetIpVersion() }), nil
}

func encrypted(f *flowpb.FlowFilter) (Match, error) {
	return oneOf(f.Encrypted, func(f *flowpb.Flow) bool { return f.GetIP().GetEncrypted() }), nil
}

// types matches by the kind of event; type 0 stands for any.
func types(f *flowpb.FlowFilter) (Match, error) {
	if len(f.EventType) == 0 {
		return nil, nil
	}
	return func(flow *flowpb.Flow) bool {
		e := flow.GetEventType()
		return e != nil && slices.ContainsFunc(f.EventType, func(t *flowpb.EventTypeFilter) bool {
			return (t.GetType() == 0 || t.GetType() == e.GetType()) &&
				(!t.GetMatchSubType() || t.GetSubType() == e.GetSubType())
		})
	}, nil
}

// replies takes a dropped packet of which nothing is known for no reply, as
// Hubble does.
func replies(f *flowpb.FlowFilter) (Match, error) {
	if len(f.Reply) == 0 {
		return nil, nil
	}
	return func(flow *flowpb.Flow) bool {
		return (flow.GetIsReply() != nil || flow.GetVerdict() == flowpb.Verdict_DROPPED) &&
			slices.Contains(f.Reply, flow.GetIsReply().GetValue())
	}, nil
}

func addresses(f *flowpb.FlowFilter) (Match, error) {
	src, err := address("source_ip", f.SourceIp, (*flowpb.IP).GetSource)
	if err != nil {
		return nil, err
	}
	dst, err := address("destination_ip", f.DestinationIp, (*flowpb.IP).GetDestination)
	return all(src, dst), err
}

func address(field string, values []string, get func(*flowpb.IP) string) (Match, error) {
	if len(values) == 0 {
		return nil, nil
	}
	prefixes := make([]netip.Prefix, 0, len(values))
	for _, v := range values {
		if strings.Contains(v, "/") {
			p, err := netip.ParsePrefix(v)
			if err != nil {
				return nil, &Error{field, fmt.Sprintf("%q: want an address or a CIDR", v)}
			}
			prefixes = append(prefixes, p.Masked())
			continue
		}
		a, err := netip.ParseAddr(v)
		if err != nil {
			return nil, &Error{field, fmt.Sprintf("%q: want an address or a CIDR", v)}
		}
		a = a.Unmap()
		prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()))
	}
	return func(f *flowpb.Flow) bool {
		a, err := netip.ParseAddr(get(f.GetIP()))
		return err == nil && slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	}, nil
}

func ports(f *flowpb.FlowFilter) (Match, error) {
	src, err := port("source_port", f.SourcePort, func(s, _ uint32) uint32 { return s })
	if err != nil {
		return nil, err
	}
	dst, err := port("destination_port", f.DestinationPort, func(_, d uint32) uint32 { return d })
	return all(src, dst), err
}

func port(field string, values []string, end func(src, dst uint32) uint32) (Match, error) {
	if len(values) == 0 {
		return nil, nil
	}
	want := make([]uint32, 0, len(values))
	for _, v := range values {
		n, err := strconv.ParseUint(v, 10, 16)
		if err != nil {
			return nil, &Error{field, fmt.Sprintf("%q: want a port, 0 to 65535", v)}
		}
		want = append(want, uint32(n))
	}
	return func(f *flowpb.Flow) bool {
		src, dst, ok := portsOf(f)
		return ok && slices.Contains(want, end(src, dst))
	}, nil
}

func portsOf(f *flowpb.Flow) (src, dst uint32, ok bool) {
	switch p := f.GetL4().GetProtocol().(type) {
	case *flowpb.Layer4_TCP:
		return p.TCP.GetSourcePort(), p.TCP.GetDestinationPort(), true
	case *flowpb.Layer4_UDP:
		return p.UDP.GetSourcePort(), p.UDP.GetDestinationPort(), true
	case *flowpb.Layer4_SCTP:
		return p.SCTP.GetSourcePort(), p.SCTP.GetDestinationPort(), true
	}
	return 0, 0, false
}

func protocols(f *flowpb.FlowFilter) (Match, error) {
	if len(f.Protocol) == 0 {
		return nil, nil
	}
	var want []string
	for _, p := range f.Protocol {
		switch p := strings.ToLower(p); p {
		case "icmp":
			want = append(want, "icmpv4", "icmpv6")
		case "icmpv4", "icmpv6", "tcp", "udp", "sctp", "vrrp", "igmp":
			want = append(want, p)
		case "dns", "http":
			return nil, &Error{"protocol", p + ": Sluice looks at addresses and ports, not at what is said"}
		default:
			return nil, &Error{"protocol", fmt.Sprintf("unknown protocol: %q", p)}
		}
	}
	return func(f *flowpb.Flow) bool {
		name := ""
		switch f.GetL4().GetProtocol().(type) {
		case *flowpb.Layer4_TCP:
			name = "tcp"
		case *flowpb.Layer4_UDP:
			name = "udp"
		case *flowpb.Layer4_SCTP:
			name = "sctp"
		case *flowpb.Layer4_ICMPv4:
			name = "icmpv4"
		case *flowpb.Layer4_ICMPv6:
			name = "icmpv6"
		case *flowpb.Layer4_VRRP:
			name = "vrrp"
		case *flowpb.Layer4_IGMP:
			name = "igmp"
		}
		return slices.Contains(want, name)
	}, nil
}

// flags matches packets that have at least the flags of one value.
func flags(f *flowpb.FlowFilter) (Match, error) {
	if len(f.TcpFlags) == 0 {
		return nil, nil
	}
	want := make([]uint16, len(f.TcpFlags))
	for i, t := range f.TcpFlags {
		want[i] = bits(t)
	}
	return func(f *flowpb.Flow) bool {
		t := f.GetL4().GetTCP().GetFlags()
		has := bits(t)
		return t != nil && slices.ContainsFunc(want, func(w uint16) bool { return has&w == w })
	}, nil
}

func bits(t *flowpb.TCPFlags) (b uint16) {
	for i, set := range []bool{t.GetFIN(), t.GetSYN(), t.GetRST(), t.GetPSH(), t.GetACK(), t.GetURG(), t.GetECE(), t.GetCWR(), t.GetNS()} {
		if set {
			b |= 1 << i
		}
	}
	return b
}
