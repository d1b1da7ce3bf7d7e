package observe

import (
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Identities that Cilium's tools know by name (pkg/identity/numericidentity.go).
const (
	IdentityHost       = 1
	IdentityWorld      = 2
	IdentityRemoteNode = 6
)

// End is who is behind an address: a pod, a node or the world. It does not
// change once it was handed out.
type End struct {
	Endpoint       uint32 // local endpoint, 0 for none
	Identity       uint32 // the same for all pods of equal labels
	Namespace, Pod string
	Labels         []string // with their source, as "k8s:app=web"; sorted
	WorkloadKind   string
	Workload       string
	Node           string // that it is on, or is
}

// Flow is one event with the names of its time.
type Flow struct {
	event.Record
	Src, Dst *End
	// Equal causes of one CauseID are the same pointer; nil only beside a Lost.
	Egress, Ingress *rule.Cause
	// Lost, if not 0, says that this many events are missing here; there is
	// nothing else in such a Flow but its time.
	Lost uint64
	// Before counts what was generated before this: sightings of flows, and
	// lost events.
	Before uint64
	views  [3]View
	nViews uint8
}

// View is one way in which an event shows: tools of Hubble expect a verdict a
// direction, and a drop beside the verdict that is its reason.
type View uint8

// The views.
const (
	EgressVerdict View = iota
	IngressVerdict
	Drop
	Trace // of a flow that ended
)

// Views returns the views of an event, valid as long as f is.
func (f *Flow) Views() []View { return f.views[:f.nViews] }

// After is Before of the next event.
func (f *Flow) After() uint64 { return f.Before + uint64(f.nViews) + f.Lost }

// Initiator returns the ends of the flow in the direction in which it was
// opened.
func (f *Flow) Initiator() (src, dst *End) {
	if f.Reply {
		return f.Dst, f.Src
	}
	return f.Src, f.Dst
}

// Denier returns the view that names who denied a packet, of a record that is
// not allowed because of a policy.
func (f *Flow) Denier() View {
	switch {
	case f.Record.Ingress != rule.NoCause:
		return IngressVerdict // egress rules were asked first, and allowed
	case f.Record.Egress != rule.NoCause:
		return EgressVerdict
	case f.Hook == event.ToPod:
		return IngressVerdict
	}
	return EgressVerdict
}

// ICMPType returns type and code; of a flow that ended or was opened by the
// kernel, those of an echo request: nothing else is a flow there.
func (f *Flow) ICMPType() (kind, code uint8) {
	if f.ICMP == 0 && (f.Kind == event.Ended || f.Allowed && !f.Reply) {
		if f.Key.Proto == packet.ProtoICMPv6 {
			return 128, 0
		}
		return 8, 0
	}
	return uint8(f.ICMP >> 8), uint8(f.ICMP)
}

// Audited reports whether a side's rules would have denied the flow, were they
// enforced.
func (f *Flow) Audited(v View) bool {
	if !f.Audit {
		return false
	}
	if !f.AuditEgress && !f.AuditIngress { // not known: isolation that allows is an audit
		if egress, ingress := isolation(f.Egress), isolation(f.Ingress); egress || ingress {
			return v == EgressVerdict && egress || v == IngressVerdict && ingress
		}
		return v == EgressVerdict && len(f.Egress.Refs) > 0 || v == IngressVerdict && len(f.Ingress.Refs) > 0
	}
	return v == EgressVerdict && f.AuditEgress || v == IngressVerdict && f.AuditIngress
}

// isolation reports whether a cause is that no rule of the policies that select
// the pod allows it.
func isolation(c *rule.Cause) bool { return len(c.Refs) > 0 && c.Refs[0].Rule == rule.DefaultRule }

// Isolation reports whether a denial is that of no rule, but of the policies
// that isolate the pod.
func (f *Flow) Isolation() bool {
	if f.Denier() == IngressVerdict {
		return isolation(f.Ingress)
	}
	return isolation(f.Egress)
}

// settle finds out how an event shows.
func (f *Flow) settle() {
	show := func(v View) {
		f.views[f.nViews] = v
		f.nViews++
	}
	switch {
	case f.Kind == event.Ended:
		show(Trace)
	case f.Allowed:
		src, dst := f.Initiator()
		if src.Endpoint != 0 {
			show(EgressVerdict)
		}
		if dst.Endpoint != 0 {
			show(IngressVerdict)
		}
	case f.Kind == event.Changed:
		show(f.Denier())
	case f.Record.Egress != rule.NoCause || f.Record.Ingress != rule.NoCause:
		show(f.Denier())
		show(Drop)
	default:
		show(Drop)
	}
}
