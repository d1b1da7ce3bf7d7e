package hubble

import (
	"math"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/filter"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// encoder writes events as GetFlowsResponse messages on the wire: what
// proto.Marshal makes of a converter's flow, at a tenth of the cost, because what
// most flows share (ends, policies) is kept encoded and the rest is written
// without messages in between. A test compares both. It belongs to one goroutine.
type encoder struct {
	tag      uint64
	node     []byte // node_name of the message
	flowNode []byte // node_name and node_labels of the flow
	ends     map[*observe.End]endParts
	policies map[policyPart][]byte
}

// endParts is an end as a flow's source and as its destination.
type endParts struct{ src, dst []byte }

// policyPart is a cause's policies in one of a flow's lists.
type policyPart struct {
	cause      *rule.Cause
	generation uint64
	list       protowire.Number
}

// mostParts bounds each of an encoder's maps.
const mostParts = 1 << 12

func newEncoder(o origin) *encoder {
	e := &encoder{tag: o.tag, ends: map[*observe.End]endParts{}, policies: map[policyPart][]byte{}}
	e.node = appendString(nil, numResponseNode, o.node)
	e.flowNode = appendString(nil, numNode, o.node)
	for _, l := range o.labels {
		e.flowNode = appendString(e.flowNode, numNodeLabels, l)
	}
	return e
}

// Field numbers of flow.proto and observer.proto.
const (
	numResponseFlow = 1
	numResponseNode = 1000
	numResponseTime = 1001

	numTime, numVerdict, numDropReason, numIP, numL4 = 1, 2, 3, 5, 6
	numSource, numDestination, numType, numNode      = 8, 9, 10, 11
	numReply, numEventType, numDirection             = 16, 19, 22
	numMatchType, numTracePoint, numDropDesc         = 23, 24, 25
	numIsReply, numUUID, numTraceReason              = 26, 34, 36
	numNodeLabels, numSummary, numExtensions         = 37, 100000, 150000
	numEgressAllowed, numIngressAllowed              = 21001, 21002
	numEgressDenied, numIngressDenied, numPolicyLog  = 21004, 21005, 21006
)

// Field numbers of the fields of Layer4.
const (
	numTCP, numUDP, numICMPv4, numICMPv6, numSCTP, numVRRP, numIGMP = 1, 2, 3, 4, 5, 6, 7
)

// append writes the message of a view of an event.
func (e *encoder) append(b []byte, f *observe.Flow, i int) []byte {
	v := f.Views()[i]
	b, flow := begin(b, numResponseFlow, 2)
	b = appendTime(b, numTime, f.TimeNs)
	verdict, denier := flowpb.Verdict_FORWARDED, observe.View(math.MaxUint8)
	audited := (v == observe.EgressVerdict || v == observe.IngressVerdict) && f.Audited(v)
	switch {
	case !f.Allowed:
		verdict, denier = flowpb.Verdict_DROPPED, f.Denier()
	case audited:
		verdict = flowpb.Verdict_AUDIT
	}
	b = appendUint(b, numVerdict, uint64(verdict))
	b = appendNetwork(b, f)
	b = appendTransport(b, f)
	src, dst := e.end(f.Src), e.end(f.Dst)
	b = append(append(b, src.src...), dst.dst...)
	b = appendUint(b, numType, uint64(flowpb.FlowType_L3_L4))
	b = append(b, e.flowNode...)

	b = appendBool(b, numReply, f.Reply)
	b, at := begin(b, numIsReply, 1)
	b = end(appendBool(b, 1, f.Reply), at, 1)
	kind, sub := eventType(f, v)
	b, at = begin(b, numEventType, 1)
	b = end(appendUint(appendUint(b, 1, uint64(kind)), 2, uint64(sub)), at, 1)
	b = appendUint(b, numDirection, uint64(direction(f, v)))
	if v == observe.EgressVerdict || v == observe.IngressVerdict {
		b = appendUint(b, numMatchType, uint64(matchType(f, v)))
	}
	if v == observe.Trace {
		b = appendUint(b, numTracePoint, uint64(tracePoint(f)))
		b = appendUint(b, numTraceReason, uint64(flowpb.TraceReason_ESTABLISHED))
	}
	if !f.Allowed {
		reason := uint64(dropReason(f))
		b = appendUint(appendUint(b, numDropReason, reason), numDropDesc, reason)
	}
	b, at = begin(b, numUUID, 1)
	b = end(appendUUID(b, e.tag, f.Before+uint64(i)), at, 1)
	b = e.appendPolicies(b, f, denier)
	b, at = begin(b, numSummary, 1)
	b = end(appendSummary(b, f, v), at, 1)
	b = appendExtras(b, f)
	b = end(b, flow, 2)
	return appendTime(append(b, e.node...), numResponseTime, f.TimeNs)
}

func (e *encoder) appendPolicies(b []byte, f *observe.Flow, denier observe.View) []byte {
	egress, ingress := protowire.Number(numEgressAllowed), protowire.Number(numIngressAllowed)
	if denier == observe.EgressVerdict || f.Audited(observe.EgressVerdict) {
		egress = numEgressDenied
	}
	if denier == observe.IngressVerdict || f.Audited(observe.IngressVerdict) {
		ingress = numIngressDenied
	}
	for _, p := range [2]policyPart{{f.Egress, f.Generation, egress}, {f.Ingress, f.Generation, ingress}} {
		if len(p.cause.Refs) > 0 {
			b = append(b, e.policy(p)...)
		}
		if p.cause.Text != "" {
			b = appendString(b, numPolicyLog, p.cause.Text)
		}
	}
	return b
}

func (e *encoder) policy(p policyPart) []byte {
	if part, ok := e.policies[p]; ok {
		return part
	}
	if len(e.policies) >= mostParts {
		clear(e.policies)
	}
	var part []byte
	for _, m := range policyList(p.cause, p.generation) {
		part = appendMessage(part, p.list, m)
	}
	e.policies[p] = part
	return part
}

func (e *encoder) end(x *observe.End) endParts {
	if p, ok := e.ends[x]; ok {
		return p
	}
	if len(e.ends) >= mostParts {
		clear(e.ends)
	}
	m := endpointOf(x)
	p := endParts{src: appendMessage(nil, numSource, m), dst: appendMessage(nil, numDestination, m)}
	e.ends[x] = p
	return p
}

// endpointOf is an end as Hubble has it.
func endpointOf(e *observe.End) *flowpb.Endpoint {
	p := &flowpb.Endpoint{ID: e.Endpoint, Identity: e.Identity, ClusterName: filter.DefaultCluster,
		Namespace: e.Namespace, PodName: e.Pod, Labels: e.Labels}
	if e.Workload != "" {
		p.Workloads = []*flowpb.Workload{{Name: e.Workload, Kind: e.WorkloadKind}}
	}
	return p
}

func appendNetwork(b []byte, f *observe.Flow) []byte {
	src, dst, _, _ := f.Key.Tuple(f.Side)
	version := flowpb.IPVersion_IPv6
	if src.Is4() {
		version = flowpb.IPVersion_IPv4
	}
	b, ip := begin(b, numIP, 1)
	b, at := begin(b, 1, 1)
	b = end(src.Netip().AppendTo(b), at, 1)
	b, at = begin(b, 2, 1)
	b = end(dst.Netip().AppendTo(b), at, 1)
	return end(appendUint(b, 3, uint64(version)), ip, 1)
}

func appendTransport(b []byte, f *observe.Flow) []byte {
	_, _, s, d := f.Key.Tuple(f.Side)
	one, two, number := uint64(s), uint64(d), protowire.Number(0)
	switch f.Key.Proto {
	case packet.ProtoTCP:
		number = numTCP
	case packet.ProtoUDP:
		number = numUDP
	case packet.ProtoSCTP:
		number = numSCTP
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if number = numICMPv4; f.Key.Proto == packet.ProtoICMPv6 {
			number = numICMPv6
		}
		kind, code := icmp(f)
		one, two = uint64(kind), uint64(code)
	case protoVRRP:
		number, one, two = numVRRP, 0, 0
	case protoIGMP:
		number, one, two = numIGMP, 0, 0
	default:
		return b
	}
	b, l4 := begin(b, numL4, 1)
	b, proto := begin(b, number, 1)
	b = appendUint(appendUint(b, 1, one), 2, two)
	if number == numTCP {
		var at int
		b, at = begin(b, 3, 1)
		for bit := range protowire.Number(8) { // FIN to CWR, in the header's order
			b = appendBool(b, bit+1, f.TCPFlags>>bit&1 != 0)
		}
		b = end(b, at, 1)
	}
	return end(end(b, proto, 1), l4, 1)
}

// appendExtras writes an Any of a Struct.
func appendExtras(b []byte, f *observe.Flow) []byte {
	var room [mostExtras]extra
	more := extras(f, &room)
	if len(more) == 0 {
		return b
	}
	b, any := begin(b, numExtensions, 2)
	b = appendString(b, 1, "type.googleapis.com/google.protobuf.Struct")
	b, fields := begin(b, 2, 2)
	for _, x := range more {
		var entry, value int
		b, entry = begin(b, 1, 1)
		b = appendString(b, 1, x.name)
		b, value = begin(b, 2, 1)
		switch { // of a oneof: 0 is a value too
		case x.yes:
			b = append(protowire.AppendTag(b, 4, protowire.VarintType), 1)
		case x.text != "":
			b = appendString(b, 3, x.text)
		default:
			b = protowire.AppendFixed64(protowire.AppendTag(b, 2, protowire.Fixed64Type), math.Float64bits(x.number))
		}
		b = end(end(b, value, 1), entry, 1)
	}
	return end(end(b, fields, 2), any, 2)
}

// begin starts a field whose length is not known yet, and for which it leaves room
// bytes; end completes it.
func begin(b []byte, n protowire.Number, room int) (out []byte, at int) {
	b = protowire.AppendTag(b, n, protowire.BytesType)
	for range room {
		b = append(b, 0)
	}
	return b, len(b)
}

func end(b []byte, at, room int) []byte {
	length := len(b) - at
	if need := protowire.SizeVarint(uint64(length)); need != room {
		for n := room; n < need; n++ {
			b = append(b, 0)
		}
		copy(b[at+need-room:], b[at:at+length])
		b = b[:at+need-room+length]
		at += need - room
		room = need
	}
	for i := at - room; i < at-1; i++ {
		b[i] = byte(length) | 0x80
		length >>= 7
	}
	b[at-1] = byte(length)
	return b
}

// What follows leaves out what is 0, as proto.Marshal does.

func appendUint(b []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

func appendBool(b []byte, n protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return append(protowire.AppendTag(b, n, protowire.VarintType), 1)
}

func appendString(b []byte, n protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
}

func appendTime(b []byte, n protowire.Number, ns int64) []byte {
	s, rest := ns/int64(time.Second), ns%int64(time.Second)
	if rest < 0 {
		s, rest = s-1, rest+int64(time.Second)
	}
	b, at := begin(b, n, 1)
	return end(appendUint(appendUint(b, 1, uint64(s)), 2, uint64(rest)), at, 1)
}

func appendMessage(b []byte, n protowire.Number, m proto.Message) []byte {
	// Of messages of strings and numbers Marshal takes all whose strings are valid;
	// Kubernetes' names are.
	wire, err := proto.Marshal(m)
	if err != nil {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), wire)
}
