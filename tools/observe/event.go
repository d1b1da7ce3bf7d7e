package observe

import (
	"net/netip"
	"strconv"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/observe/hubble"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Event is one event of a node, as the agent's own API has it, and what Hubble's
// API made of it.
type Event struct {
	api.Flow
	Views []*observerpb.GetFlowsResponse
}

// Lost is the kind of an event that stands where others are missing.
const Lost = "lost"

// joiner puts the views of an event, which come one after the other, together.
type joiner struct{ held *Event }

func (j *joiner) add(resp *observerpb.GetFlowsResponse, take func(*Event) error) error {
	e := FromHubble(resp)
	if e == nil {
		return nil // the state of a node, from a relay
	}
	if j.held != nil && j.held.absorb(e) {
		return j.flush(take) // there is no third one
	}
	if err := j.flush(take); err != nil {
		return err
	}
	j.held = e
	return nil
}

func (j *joiner) flush(take func(*Event) error) error {
	e := j.held
	if j.held = nil; e == nil {
		return nil
	}
	return take(e)
}

// absorb adds the second view of an event to the first.
func (e *Event) absorb(o *Event) bool {
	a, b := e.Views[0].GetFlow(), o.Views[0].GetFlow()
	if a == nil || b == nil || a.GetEventType().GetType() != typePolicyVerdict || e.Event != o.Event || e.Node != o.Node ||
		!proto.Equal(a.GetTime(), b.GetTime()) || !proto.Equal(a.GetIP(), b.GetIP()) || !proto.Equal(a.GetL4(), b.GetL4()) || e.Reply != o.Reply {
		return false
	}
	switch b.GetEventType().GetType() {
	case typeDrop:
		if a.GetVerdict() != flowpb.Verdict_DROPPED {
			return false
		}
	case typePolicyVerdict:
		if a.GetTrafficDirection() != flowpb.TrafficDirection_EGRESS || b.GetTrafficDirection() != flowpb.TrafficDirection_INGRESS ||
			a.GetVerdict() == flowpb.Verdict_DROPPED || b.GetVerdict() == flowpb.Verdict_DROPPED {
			return false
		}
	default:
		return false
	}
	e.Views = append(e.Views, o.Views[0])
	e.Audit = e.Audit || o.Audit
	return true
}

// FromHubble returns what a message of Hubble's API says, or nil if that is
// neither a flow nor a loss.
func FromHubble(resp *observerpb.GetFlowsResponse) *Event {
	e := &Event{Views: []*observerpb.GetFlowsResponse{resp}}
	e.Time, e.Node, e.DecidedBy = resp.GetTime().AsTime(), resp.GetNodeName(), []rule.PolicyRef{}
	if l := resp.GetLostEvents(); l != nil {
		e.Event, e.Lost, e.Reason = Lost, l.GetNumEventsLost(), strings.ToLower(l.GetSource().String())
		return e
	}
	f := resp.GetFlow()
	if f == nil {
		return nil
	}
	if f.GetTime() != nil {
		e.Time = f.GetTime().AsTime()
	}
	e.Src, e.Dst = end(f.GetSource(), f.GetIP().GetSource()), end(f.GetDestination(), f.GetIP().GetDestination())
	e.Reply = f.GetIsReply().GetValue()
	e.transport(f)
	e.verdict(f)
	e.extra(f)
	return e
}

func end(e *flowpb.Endpoint, addr string) api.End {
	out := api.End{Namespace: e.GetNamespace(), Pod: e.GetPodName(), Endpoint: e.GetID(), Labels: e.GetLabels()}
	if a, err := netip.ParseAddr(addr); err == nil {
		out.Addr = a
	}
	if w := e.GetWorkloads(); len(w) > 0 {
		out.Workload = w[0].GetKind() + "/" + w[0].GetName()
	}
	return out
}

func (e *Event) transport(f *flowpb.Flow) {
	ports := func(proto string, src, dst uint32) { e.Proto, e.Src.Port, e.Dst.Port = proto, uint16(src), uint16(dst) }
	icmp := func(proto string, kind, code uint32) {
		e.Proto, e.ICMP = proto, strconv.Itoa(int(kind))+"/"+strconv.Itoa(int(code))
	}
	switch p := f.GetL4().GetProtocol().(type) {
	case *flowpb.Layer4_TCP:
		ports("TCP", p.TCP.GetSourcePort(), p.TCP.GetDestinationPort())
		e.TCPFlags = flagNames(p.TCP.GetFlags())
	case *flowpb.Layer4_UDP:
		ports("UDP", p.UDP.GetSourcePort(), p.UDP.GetDestinationPort())
	case *flowpb.Layer4_SCTP:
		ports("SCTP", p.SCTP.GetSourcePort(), p.SCTP.GetDestinationPort())
	case *flowpb.Layer4_ICMPv4:
		icmp("ICMP", p.ICMPv4.GetType(), p.ICMPv4.GetCode())
	case *flowpb.Layer4_ICMPv6:
		icmp("ICMPv6", p.ICMPv6.GetType(), p.ICMPv6.GetCode())
	case *flowpb.Layer4_VRRP:
		e.Proto = "112"
	case *flowpb.Layer4_IGMP:
		e.Proto = "2"
	default:
		e.Proto = strings.TrimPrefix(f.GetSummary(), "IP protocol ")
		e.Proto, _, _ = strings.Cut(e.Proto, ";")
	}
}

func flagNames(t *flowpb.TCPFlags) string {
	var names []string
	for _, x := range []struct {
		set  bool
		name string
	}{{t.GetFIN(), "FIN"}, {t.GetSYN(), "SYN"}, {t.GetRST(), "RST"}, {t.GetPSH(), "PSH"}, {t.GetACK(), "ACK"}, {t.GetURG(), "URG"}, {t.GetECE(), "ECE"}, {t.GetCWR(), "CWR"}} {
		if x.set {
			names = append(names, x.name)
		}
	}
	return strings.Join(names, ",")
}

func (e *Event) verdict(f *flowpb.Flow) {
	e.Event, e.Verdict, e.Reason = "new", "allow", "ok"
	denied := f.GetVerdict() == flowpb.Verdict_DROPPED
	switch {
	case denied:
		e.Event, e.Verdict, e.Reason = "denied", "deny", "policy"
		if d := f.GetDropReasonDesc(); d != flowpb.DropReason_POLICY_DENIED && d != flowpb.DropReason_POLICY_DENY {
			e.Reason = strings.ToLower(d.String())
		}
	case f.GetEventType().GetType() == typeTrace:
		e.Event = "ended"
	}
	lists := [][]*flowpb.Policy{f.GetEgressAllowedBy(), f.GetEgressDeniedBy(), f.GetIngressAllowedBy(), f.GetIngressDeniedBy()}
	for i, policies := range lists {
		if denied && i%2 == 0 {
			continue // who allowed it on the way to its denial
		}
		direction := rule.Egress
		if i > 1 {
			direction = rule.Ingress
		}
		for _, p := range policies {
			e.Generation = p.GetRevision()
			e.DecidedBy = append(e.DecidedBy, policyRef(p, direction))
		}
	}
	e.Audit = !denied && len(lists[1])+len(lists[3]) > 0 || f.GetVerdict() == flowpb.Verdict_AUDIT
	if text := f.GetPolicyLog(); len(text) > 0 {
		e.Text = text[0]
	}
}

// policyRef reads what package hubble writes; of other servers there are no
// rules, but names.
func policyRef(p *flowpb.Policy, d rule.Direction) rule.PolicyRef {
	r := rule.PolicyRef{Kind: p.GetKind(), Namespace: p.GetNamespace(), Name: p.GetName(), Rule: rule.DefaultRule, Direction: d}
	for _, l := range p.GetLabels() {
		if v, ok := strings.CutPrefix(l, hubble.LabelRule); ok && v != hubble.RuleDefault {
			if n, err := strconv.Atoi(v); err == nil {
				r.Rule = n
			}
		}
		if v, ok := strings.CutPrefix(l, hubble.LabelTier); ok {
			r.Tier = v
		}
		if v, ok := strings.CutPrefix(l, hubble.LabelPath); ok {
			r.Path = v
		}
	}
	return r
}

// extra reads the extension in which package hubble says what Hubble has no
// field for.
func (e *Event) extra(f *flowpb.Flow) {
	var s structpb.Struct
	if f.GetExtensions() == nil || f.GetExtensions().UnmarshalTo(&s) != nil {
		return
	}
	number := func(name string) uint64 { return uint64(s.GetFields()[name].GetNumberValue()) }
	e.Packets = [2]uint64{number("packetsSent"), number("packetsReceived")}
	e.Bytes = [2]uint64{number("bytesSent"), number("bytesReceived")}
	e.DurationMs = int64(number("durationNs") / 1e6)
	e.Suppressed = uint32(number("suppressed"))
	if s.GetFields()["changed"].GetBoolValue() {
		e.Event = "changed"
	}
	if r := s.GetFields()["reason"].GetStringValue(); r != "" {
		e.Reason = r
	}
}
