package hubble

import (
	"math"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// template is all that decides how a view of an event looks but its time, addresses,
// ports and number, and what is counted of it. Many flows have one: a client of a
// Service needs one a view. Ends and causes don't change once they are handed out.
type template struct {
	src, dst        *observe.End
	egress, ingress *rule.Cause
	generation      uint64
	asked           [2]rule.CauseID // of the egress and the ingress side
	icmp            uint16
	view            observe.View
	proto           packet.Proto
	kind            event.Kind
	hook            event.Hook
	reason          stat.Reason
	tcpFlags, yes   uint8 // yes: a bit each for Allowed, Audit and the like
}

// filled is a template with its fields of the flow, encoded.
type filled struct {
	template
	wire []byte
}

func templateOf(f *observe.Flow, v observe.View) template {
	t := template{
		src: f.Src, dst: f.Dst, egress: f.Egress, ingress: f.Ingress, generation: f.Generation,
		asked: [2]rule.CauseID{f.Record.Egress, f.Record.Ingress}, icmp: f.ICMP, view: v, proto: f.Key.Proto,
		kind: f.Kind, hook: f.Hook, reason: f.Reason, tcpFlags: f.TCPFlags,
	}
	for i, on := range [...]bool{f.Allowed, f.Audit, f.AuditEgress, f.AuditIngress, f.Reply} {
		if on {
			t.yes |= 1 << i
		}
	}
	return t
}

// template returns the fields of the flow that a view of the event has by its
// template, valid until the next call.
func (e *encoder) template(v observe.View) []byte {
	if e.f.Kind == event.Ended || e.f.Suppressed > 0 { // they tell counts: no two are alike
		e.scrap = e.appendTemplate(e.scrap[:0], e.f, v)
		return e.scrap
	}
	t, last := templateOf(e.f, v), &e.last[v]
	if last.template == t {
		return last.wire
	}
	wire, ok := e.templates[t]
	if !ok {
		if len(e.templates) >= mostTemplates {
			clear(e.templates)
		}
		wire = e.appendTemplate(nil, e.f, v)
		e.templates[t] = wire
	}
	*last = filled{t, wire}
	return wire
}

// appendTemplate writes the fields of the flow that begin and append don't.
func (e *encoder) appendTemplate(b []byte, f *observe.Flow, v observe.View) []byte {
	verdict, denier := flowpb.Verdict_FORWARDED, observe.View(math.MaxUint8)
	audited := (v == observe.EgressVerdict || v == observe.IngressVerdict) && f.Audited(v)
	switch {
	case !f.Allowed:
		verdict, denier = flowpb.Verdict_DROPPED, f.Denier()
	case audited:
		verdict = flowpb.Verdict_AUDIT
	}
	b = appendUint(b, numVerdict, uint64(verdict))
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
	b = e.appendPolicies(b, f, denier)
	b, at = begin(b, numSummary, 1)
	b = end(appendSummary(b, f, v), at, 1)
	return appendExtras(b, f)
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
