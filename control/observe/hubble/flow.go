package hubble

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/filter"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// Event types, and the sub-type of a trace (pkg/monitor/api of Cilium).
const (
	typeDrop          = 1
	typeTrace         = 4
	typePolicyVerdict = 5
	traceToEndpoint   = 0
	traceToStack      = 3
)

// How a policy matched (pkg/monitor/api of Cilium).
const (
	matchNone = 0
	matchL3L4 = 2
	matchAll  = 4
)

// Protocols that flow.proto has a message for, and packet no name.
const (
	protoIGMP packet.Proto = 2
	protoVRRP packet.Proto = 112
)

// converter turns events into Hubble's flows. It belongs to one goroutine.
type converter struct {
	node string
	ends map[*observe.End]*flowpb.Endpoint
}

func newConverter(node string) *converter {
	return &converter{node: node, ends: map[*observe.End]*flowpb.Endpoint{}}
}

// processTag makes UUIDs of two runs of the agent differ.
var processTag = rand.Uint64()

// flow returns a view of an event. What it returns may share parts with other
// flows and must not be changed.
func (c *converter) flow(f *observe.Flow, i int) *flowpb.Flow {
	v := f.Views()[i]
	out := &flowpb.Flow{
		Time: timestamppb.New(time.Unix(0, f.TimeNs)), Uuid: uuid(f.Before + uint64(i)), NodeName: c.node,
		Verdict: flowpb.Verdict_FORWARDED, Type: flowpb.FlowType_L3_L4,
		Source: c.end(f.Src), Destination: c.end(f.Dst),
		TrafficDirection: direction(f, v),
		IsReply:          wrapperspb.Bool(f.Reply), Reply: f.Reply,
	}
	network(out, f)
	transport(out, f)
	c.policies(out, f, v)
	switch v {
	case observe.Trace:
		out.EventType = &flowpb.CiliumEventType{Type: typeTrace, SubType: traceToEndpoint}
		out.TraceObservationPoint = flowpb.TraceObservationPoint_TO_ENDPOINT
		if f.Dst.Endpoint == 0 {
			out.EventType.SubType, out.TraceObservationPoint = traceToStack, flowpb.TraceObservationPoint_TO_STACK
		}
		out.TraceReason = flowpb.TraceReason_ESTABLISHED
		out.Summary += ended(f)
	case observe.Drop:
		out.EventType = &flowpb.CiliumEventType{Type: typeDrop}
	default:
		out.EventType = &flowpb.CiliumEventType{Type: typePolicyVerdict}
	}
	if !f.Allowed {
		reason := dropReason(f)
		out.Verdict, out.DropReasonDesc = flowpb.Verdict_DROPPED, reason
		out.DropReason = uint32(reason)
		if v == observe.Drop {
			out.EventType.SubType = int32(reason)
		}
		if f.Suppressed > 0 {
			out.Summary += fmt.Sprintf("; %d more packets denied likewise", f.Suppressed)
		}
	}
	extend(out, f)
	return out
}

// direction is that in which the flow was opened, seen from the pod whose rules
// the view is about; of a flow that ended, from where it went.
func direction(f *observe.Flow, v observe.View) flowpb.TrafficDirection {
	if v == observe.IngressVerdict || v == observe.Drop && f.Denier() == observe.IngressVerdict ||
		v == observe.Trace && f.Dst.Endpoint != 0 {
		return flowpb.TrafficDirection_INGRESS
	}
	return flowpb.TrafficDirection_EGRESS
}

func (c *converter) end(e *observe.End) *flowpb.Endpoint {
	if p := c.ends[e]; p != nil {
		return p
	}
	if len(c.ends) > 1<<14 {
		clear(c.ends)
	}
	p := &flowpb.Endpoint{ID: e.Endpoint, Identity: e.Identity, ClusterName: filter.DefaultCluster,
		Namespace: e.Namespace, PodName: e.Pod, Labels: e.Labels}
	if e.Workload != "" {
		p.Workloads = []*flowpb.Workload{{Name: e.Workload, Kind: e.WorkloadKind}}
	}
	c.ends[e] = p
	return p
}

// policies names those that gave the verdict, on each side that was asked.
func (c *converter) policies(out *flowpb.Flow, f *observe.Flow, v observe.View) {
	egress, ingress := policyList(f.Egress, f.Generation), policyList(f.Ingress, f.Generation)
	denier := observe.View(255)
	if !f.Allowed {
		denier = f.Denier()
	}
	if denier == observe.EgressVerdict || f.Audited(observe.EgressVerdict) {
		out.EgressDeniedBy = egress
	} else {
		out.EgressAllowedBy = egress
	}
	if denier == observe.IngressVerdict || f.Audited(observe.IngressVerdict) {
		out.IngressDeniedBy = ingress
	} else {
		out.IngressAllowedBy = ingress
	}
	cause := f.Egress
	if v == observe.IngressVerdict {
		cause = f.Ingress
	}
	for _, text := range []string{f.Egress.Text, f.Ingress.Text} {
		if text != "" {
			out.PolicyLog = append(out.PolicyLog, text)
		}
	}
	if v != observe.EgressVerdict && v != observe.IngressVerdict {
		return
	}
	switch {
	case len(cause.Refs) == 0:
		out.PolicyMatchType = matchAll
	case cause.Refs[0].Rule == rule.DefaultRule:
		out.PolicyMatchType = matchNone
	default:
		out.PolicyMatchType = matchL3L4
	}
	if f.Audited(v) {
		out.Verdict = flowpb.Verdict_AUDIT
	}
}

// Labels of a policy in a flow, by which its rule is known; RuleDefault stands
// for none.
const (
	LabelDirection = "sluice:direction="
	LabelRule      = "sluice:rule="
	LabelTier      = "sluice:tier="
	LabelPath      = "sluice:path="
	RuleDefault    = "default"
)

func policyList(c rule.Cause, generation uint64) []*flowpb.Policy {
	var out []*flowpb.Policy
	for _, r := range c.Refs {
		p := &flowpb.Policy{Name: r.Name, Namespace: r.Namespace, Kind: r.Kind, Revision: generation, Labels: []string{
			"k8s:io.cilium.k8s.policy.derived-from=" + r.Kind, "k8s:io.cilium.k8s.policy.name=" + r.Name,
		}}
		if r.Namespace != "" {
			p.Labels = append(p.Labels, "k8s:io.cilium.k8s.policy.namespace="+r.Namespace)
		}
		what := RuleDefault
		if r.Rule != rule.DefaultRule {
			what = fmt.Sprint(r.Rule)
		}
		p.Labels = append(p.Labels, LabelDirection+r.Direction.String(), LabelRule+what)
		if r.Tier != "" {
			p.Labels = append(p.Labels, LabelTier+r.Tier)
		}
		if r.Path != "" {
			p.Labels = append(p.Labels, LabelPath+r.Path)
		}
		out = append(out, p)
	}
	return out
}

func network(out *flowpb.Flow, f *observe.Flow) {
	src, dst, _, _ := f.Key.Tuple(f.Side)
	out.IP = &flowpb.IP{Source: src.Netip().String(), Destination: dst.Netip().String(), IpVersion: flowpb.IPVersion_IPv6}
	if src.Is4() {
		out.IP.IpVersion = flowpb.IPVersion_IPv4
	}
}

func transport(out *flowpb.Flow, f *observe.Flow) {
	_, _, s, d := f.Key.Tuple(f.Side)
	sport, dport := uint32(s), uint32(d)
	l4 := &flowpb.Layer4{}
	switch f.Key.Proto {
	case packet.ProtoTCP:
		l4.Protocol = &flowpb.Layer4_TCP{TCP: &flowpb.TCP{SourcePort: sport, DestinationPort: dport, Flags: tcpFlags(f.TCPFlags)}}
		out.Summary = "TCP Flags: " + observe.FlagNames(f.TCPFlags, ", ")
	case packet.ProtoUDP:
		l4.Protocol = &flowpb.Layer4_UDP{UDP: &flowpb.UDP{SourcePort: sport, DestinationPort: dport}}
		out.Summary = "UDP"
	case packet.ProtoSCTP:
		l4.Protocol = &flowpb.Layer4_SCTP{SCTP: &flowpb.SCTP{SourcePort: sport, DestinationPort: dport}}
		out.Summary = "SCTP"
	case packet.ProtoICMP:
		kind, code := icmp(f)
		l4.Protocol = &flowpb.Layer4_ICMPv4{ICMPv4: &flowpb.ICMPv4{Type: kind, Code: code}}
		out.Summary = "ICMPv4 " + icmpName(kind, code, icmpv4Names)
	case packet.ProtoICMPv6:
		kind, code := icmp(f)
		l4.Protocol = &flowpb.Layer4_ICMPv6{ICMPv6: &flowpb.ICMPv6{Type: kind, Code: code}}
		out.Summary = "ICMPv6 " + icmpName(kind, code, icmpv6Names)
	case protoVRRP:
		l4.Protocol = &flowpb.Layer4_VRRP{VRRP: &flowpb.VRRP{}}
		out.Summary = "VRRP"
	case protoIGMP:
		l4.Protocol = &flowpb.Layer4_IGMP{IGMP: &flowpb.IGMP{}}
		out.Summary = "IGMP"
	default:
		out.Summary = "IP protocol " + f.Key.Proto.String()
		return
	}
	out.L4 = l4
}

func icmp(f *observe.Flow) (kind, code uint32) {
	k, c := f.ICMPType()
	return uint32(k), uint32(c)
}

var (
	icmpv4Names = map[uint32]string{0: "EchoReply", 3: "DestinationUnreachable", 5: "Redirect", 8: "EchoRequest", 11: "TimeExceeded", 12: "ParameterProblem", 13: "TimestampRequest", 14: "TimestampReply"}
	icmpv6Names = map[uint32]string{1: "DestinationUnreachable", 2: "PacketTooBig", 3: "TimeExceeded", 4: "ParameterProblem", 128: "EchoRequest", 129: "EchoReply", 135: "NeighborSolicitation", 136: "NeighborAdvertisement"}
)

func icmpName(kind, code uint32, names map[uint32]string) string {
	name := names[kind]
	if name == "" {
		return fmt.Sprintf("%d(%d)", kind, code)
	}
	if code != 0 {
		return fmt.Sprintf("%s(%d)", name, code)
	}
	return name
}

func tcpFlags(b uint8) *flowpb.TCPFlags {
	has := func(flag uint8) bool { return b&flag != 0 }
	return &flowpb.TCPFlags{FIN: has(1), SYN: has(2), RST: has(4), PSH: has(8), ACK: has(16), URG: has(32), ECE: has(64), CWR: has(128)}
}

// ended sums a flow up.
func ended(f *observe.Flow) string {
	a, b := f.Side, f.Side.Other()
	return fmt.Sprintf("; ended after %v, %d packets %d bytes sent, %d packets %d bytes received",
		time.Duration(f.DurationNs).Round(time.Millisecond), f.Packets[a], f.Bytes[a], f.Packets[b], f.Bytes[b])
}

// extend adds what Hubble has no field for.
func extend(out *flowpb.Flow, f *observe.Flow) {
	more := map[string]any{}
	switch {
	case f.Kind == event.Ended:
		a, b := f.Side, f.Side.Other()
		more["packetsSent"], more["bytesSent"] = float64(f.Packets[a]), float64(f.Bytes[a])
		more["packetsReceived"], more["bytesReceived"] = float64(f.Packets[b]), float64(f.Bytes[b])
		more["durationNs"] = float64(f.DurationNs)
	case f.Kind == event.Changed:
		more["changed"] = true
	case f.Suppressed > 0:
		more["suppressed"] = float64(f.Suppressed)
	}
	if f.Kind != event.Ended && !f.Allowed && f.Reason != stat.Policy {
		more["reason"] = f.Reason.String()
	}
	if len(more) == 0 {
		return
	}
	s, err := structpb.NewStruct(more)
	if err != nil {
		return // of such values NewStruct takes all
	}
	if any, err := anypb.New(s); err == nil {
		out.Extensions = any
	}
}

// uuid is made of the flow's number: the same flow has the same one whenever it
// is asked for (RFC 9562, version 8).
func uuid(n uint64) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], processTag)
	binary.BigEndian.PutUint64(b[8:], n)
	b[6] = b[6]&0x0f | 0x80
	b[8] = b[8]&0x3f | 0x80
	const hex = "0123456789abcdef"
	var s strings.Builder
	s.Grow(36)
	for i, x := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			s.WriteByte('-')
		}
		s.WriteByte(hex[x>>4])
		s.WriteByte(hex[x&15])
	}
	return s.String()
}
