package hubble

import (
	"fmt"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-net/sluice/control/observe"
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

// converter turns events into Hubble's flows, for what looks into them: filters and
// masks. What is sent whole is written by its encoder. It belongs to one goroutine.
type converter struct {
	origin
	ends map[*observe.End]*flowpb.Endpoint
}

// origin is what all flows of a node have in common.
type origin struct {
	tag    uint64 // the observer's
	node   string
	labels []string // of the node
}

func newConverter(o origin) *converter {
	return &converter{origin: o, ends: map[*observe.End]*flowpb.Endpoint{}}
}

// flow returns a view of an event. What it returns may share parts with other
// flows and must not be changed.
func (c *converter) flow(f *observe.Flow, i int) *flowpb.Flow {
	v := f.Views()[i]
	out := &flowpb.Flow{
		Time: timestamppb.New(time.Unix(0, f.TimeNs)), Uuid: string(appendUUID(nil, c.tag, f.Before+uint64(i))), NodeName: c.node, NodeLabels: c.labels,
		Verdict: flowpb.Verdict_FORWARDED, Type: flowpb.FlowType_L3_L4,
		Source: c.end(f.Src), Destination: c.end(f.Dst),
		TrafficDirection: direction(f, v),
		IsReply:          wrapperspb.Bool(f.Reply), Reply: f.Reply,
	}
	network(out, f)
	transport(out, f)
	c.policies(out, f, v)
	out.EventType = &flowpb.CiliumEventType{}
	out.EventType.Type, out.EventType.SubType = eventType(f, v)
	if v == observe.Trace {
		out.TraceObservationPoint, out.TraceReason = tracePoint(f), flowpb.TraceReason_ESTABLISHED
	}
	if !f.Allowed {
		reason := dropReason(f)
		out.Verdict, out.DropReasonDesc = flowpb.Verdict_DROPPED, reason
		out.DropReason = uint32(reason)
	}
	out.Summary = string(appendSummary(nil, f, v))
	extend(out, f)
	return out
}

func eventType(f *observe.Flow, v observe.View) (kind, sub int32) {
	switch {
	case v == observe.Trace && f.Dst.Endpoint == 0:
		return typeTrace, traceToStack
	case v == observe.Trace:
		return typeTrace, traceToEndpoint
	case v != observe.Drop:
		return typePolicyVerdict, 0
	case !f.Allowed:
		return typeDrop, int32(dropReason(f))
	}
	return typeDrop, 0
}

func tracePoint(f *observe.Flow) flowpb.TraceObservationPoint {
	if f.Dst.Endpoint == 0 {
		return flowpb.TraceObservationPoint_TO_STACK
	}
	return flowpb.TraceObservationPoint_TO_ENDPOINT
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
	p := endpointOf(e)
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
	for _, text := range []string{f.Egress.Text, f.Ingress.Text} {
		if text != "" {
			out.PolicyLog = append(out.PolicyLog, text)
		}
	}
	if v != observe.EgressVerdict && v != observe.IngressVerdict {
		return
	}
	out.PolicyMatchType = matchType(f, v)
	if f.Audited(v) {
		out.Verdict = flowpb.Verdict_AUDIT
	}
}

// matchType is how a policy matched, of the view of a verdict.
func matchType(f *observe.Flow, v observe.View) uint32 {
	cause := f.Egress
	if v == observe.IngressVerdict {
		cause = f.Ingress
	}
	switch {
	case len(cause.Refs) == 0:
		return matchAll
	case cause.Refs[0].Rule == rule.DefaultRule:
		return matchNone
	}
	return matchL3L4
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

func policyList(c *rule.Cause, generation uint64) []*flowpb.Policy {
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
	case packet.ProtoUDP:
		l4.Protocol = &flowpb.Layer4_UDP{UDP: &flowpb.UDP{SourcePort: sport, DestinationPort: dport}}
	case packet.ProtoSCTP:
		l4.Protocol = &flowpb.Layer4_SCTP{SCTP: &flowpb.SCTP{SourcePort: sport, DestinationPort: dport}}
	case packet.ProtoICMP:
		kind, code := icmp(f)
		l4.Protocol = &flowpb.Layer4_ICMPv4{ICMPv4: &flowpb.ICMPv4{Type: kind, Code: code}}
	case packet.ProtoICMPv6:
		kind, code := icmp(f)
		l4.Protocol = &flowpb.Layer4_ICMPv6{ICMPv6: &flowpb.ICMPv6{Type: kind, Code: code}}
	case protoVRRP:
		l4.Protocol = &flowpb.Layer4_VRRP{VRRP: &flowpb.VRRP{}}
	case protoIGMP:
		l4.Protocol = &flowpb.Layer4_IGMP{IGMP: &flowpb.IGMP{}}
	default:
		return
	}
	out.L4 = l4
}

func icmp(f *observe.Flow) (kind, code uint32) {
	k, c := f.ICMPType()
	return uint32(k), uint32(c)
}

func tcpFlags(b uint8) *flowpb.TCPFlags {
	has := func(flag uint8) bool { return b&flag != 0 }
	return &flowpb.TCPFlags{FIN: has(1), SYN: has(2), RST: has(4), PSH: has(8), ACK: has(16), URG: has(32), ECE: has(64), CWR: has(128)}
}

// extra is a value that Hubble has no field for: a number, a text or a yes.
type extra struct {
	name   string
	number float64
	text   string
	yes    bool
}

// mostExtras is how many an event has at most.
const mostExtras = 6

// extras returns what Hubble has no field for, in the order of its names.
func extras(f *observe.Flow, room *[mostExtras]extra) []extra {
	out := room[:0]
	number := func(name string, v uint64) { out = append(out, extra{name: name, number: float64(v)}) }
	switch {
	case f.Kind == event.Ended:
		a, b := f.Side, f.Side.Other()
		number("bytesReceived", f.Bytes[b])
		number("bytesSent", f.Bytes[a])
		out = append(out, extra{name: "durationNs", number: float64(f.DurationNs)})
		number("packetsReceived", f.Packets[b])
		number("packetsSent", f.Packets[a])
		return out
	case f.Kind == event.Changed:
		out = append(out, extra{name: "changed", yes: true})
	}
	if f.Hook == event.InHost {
		out = append(out, extra{name: "hook", text: "service"})
	}
	if !f.Allowed && f.Reason != stat.Policy {
		out = append(out, extra{name: "reason", text: f.Reason.String()})
	}
	if f.Kind != event.Changed && f.Suppressed > 0 {
		number("suppressed", uint64(f.Suppressed))
	}
	return out
}

// extend adds what Hubble has no field for.
func extend(out *flowpb.Flow, f *observe.Flow) {
	var room [mostExtras]extra
	more := extras(f, &room)
	if len(more) == 0 {
		return
	}
	s := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for _, x := range more {
		switch {
		case x.yes:
			s.Fields[x.name] = structpb.NewBoolValue(true)
		case x.text != "":
			s.Fields[x.name] = structpb.NewStringValue(x.text)
		default:
			s.Fields[x.name] = structpb.NewNumberValue(x.number)
		}
	}
	if any, err := anypb.New(s); err == nil {
		out.Extensions = any
	}
}

// appendUUID appends what is made of a flow's number: the same flow has the same
// one whenever it is asked for (RFC 9562, version 8).
func appendUUID(out []byte, tag, n uint64) []byte {
	out = appendHex(out, tag>>32, 4)
	out = append(appendHex(append(out, '-'), tag>>16&0xffff, 2), '-')
	out = append(appendHex(out, tag&0x0fff|0x8000, 2), '-')
	return appendUUIDNumber(out, n)
}

// uuidNumber is the length of what appendUUIDNumber appends.
const uuidNumber = 17

// appendUUIDNumber appends the part of a UUID that differs between flows.
func appendUUIDNumber(out []byte, n uint64) []byte {
	n = n&(1<<62-1) | 1<<63
	return appendHex(append(appendHex(out, n>>48, 2), '-'), n&(1<<48-1), 6)
}

// appendHex appends a number of so many bytes.
func appendHex(out []byte, n uint64, bytes int) []byte {
	const hex = "0123456789abcdef"
	for i := bytes - 1; i >= 0; i-- {
		x := n >> (8 * i)
		out = append(out, hex[x>>4&15], hex[x&15])
	}
	return out
}
