package hubble

import (
	"math"
	"slices"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/filter"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// encoder writes events as GetFlowsResponse messages on the wire: what
// proto.Marshal makes of a converter's flow, at a twentieth of the cost
// (BenchmarkEncode), because what flows share is kept encoded (see template), what
// the views of an event share is encoded once, and nothing is a message in between.
// A test compares both. It belongs to one goroutine.
type encoder struct {
	node     []byte // node_name of the message
	flowNode []byte // node_name and node_labels of the flow
	uuid     []byte // the field up to where the flow's number begins

	ends      map[*observe.End]endParts
	policies  map[policyPart][]byte
	templates map[template][]byte
	last      [observe.Trace + 1]filled // by view

	// Of the event under way; most of it is as it was for the one before.
	f                 *observe.Flow
	timeNs            int64
	src, dst          packet.Addr
	time, network, l4 []byte // fields of the flow
	scrap             []byte // likewise, of a view that has no template
	tail              []byte // what follows the flow in the message
}

// endParts is an end as a flow's source and as its destination.
type endParts struct{ src, dst []byte }

// policyPart is a cause's policies in one of a flow's lists.
type policyPart struct {
	cause      *rule.Cause
	generation uint64
	list       protowire.Number
}

// What an encoder keeps at most, of each map.
const (
	mostParts     = 1 << 12
	mostTemplates = 1 << 8
)

func newEncoder(o origin) *encoder {
	e := &encoder{ends: map[*observe.End]endParts{}, policies: map[policyPart][]byte{}, templates: map[template][]byte{}}
	e.node = appendString(nil, numResponseNode, o.node)
	e.flowNode = appendString(nil, numNode, o.node)
	for _, l := range o.labels {
		e.flowNode = appendString(e.flowNode, numNodeLabels, l)
	}
	e.uuid = appendString(nil, numUUID, string(appendUUID(nil, o.tag, 0)))
	e.uuid = e.uuid[:len(e.uuid)-uuidNumber]
	e.time, e.tail = appendTime(nil, numTime, 0), appendTime(slices.Clone(e.node), numResponseTime, 0)
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

// begin turns to another event, which must stay as it is as long as its messages
// are written.
func (e *encoder) begin(f *observe.Flow) {
	e.f = f
	if f.TimeNs != e.timeNs { // a burst's events have the same
		e.timeNs = f.TimeNs
		e.time = appendTime(e.time[:0], numTime, f.TimeNs)
		e.tail = appendTime(e.tail[:len(e.node)], numResponseTime, f.TimeNs)
	}
	if src, dst, _, _ := f.Key.Tuple(f.Side); src != e.src || dst != e.dst || len(e.network) == 0 {
		e.src, e.dst = src, dst
		e.network = appendNetwork(e.network[:0], src, dst)
	}
	e.l4 = appendTransport(e.l4[:0], f)
}

// append writes the message of a view of the event, with its length before it, as
// gRPC has it.
func (e *encoder) append(b []byte, i int) []byte {
	t := e.template(e.f.Views()[i])
	flow := len(e.time) + len(e.network) + len(e.l4) + len(t) + len(e.uuid) + uuidNumber
	b = appendPrefix(b, protowire.SizeTag(numResponseFlow)+protowire.SizeBytes(flow)+len(e.tail))
	b = protowire.AppendVarint(protowire.AppendTag(b, numResponseFlow, protowire.BytesType), uint64(flow))
	// The number is near the front for who looks for nothing else.
	b = appendUUIDNumber(append(append(b, e.time...), e.uuid...), e.f.Before+uint64(i))
	b = append(append(append(b, e.network...), e.l4...), t...)
	return append(b, e.tail...)
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

func appendNetwork(b []byte, src, dst packet.Addr) []byte {
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

// tcpFlagFields are the fields of TCP for all combinations of flags.
var tcpFlagFields = func() (fields [256][]byte) {
	for flags := range fields {
		b, at := begin(nil, 3, 1)
		for bit := range protowire.Number(8) { // FIN to CWR, in the header's order
			b = appendBool(b, bit+1, flags>>bit&1 != 0)
		}
		fields[flags] = end(b, at, 1)
	}
	return fields
}()

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
		b = append(b, tcpFlagFields[f.TCPFlags]...)
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
