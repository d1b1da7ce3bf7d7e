// Package filter decides which flows a client asked for, by Hubble's filters: a
// flow passes if one filter of the list matches it, and a filter matches if each
// of its fields does, by any of the field's values.
//
// Filters are compiled once a request. A field that Sluice has nothing to say
// about (HTTP, DNS, traces) is an error, never ignored: a client would take what
// it gets for an answer to its question.
package filter

import (
	"fmt"
	"slices"

	flowpb "github.com/cilium/cilium/api/v1/flow"

	"github.com/sluice-net/sluice/dataplane/event"
)

// maxValues bounds the values of a request's filters, all together.
const maxValues = 10_000

// Match says whether a flow passes.
type Match func(*flowpb.Flow) bool

// Error is a filter that can't be used.
type Error struct {
	Field  string // of FlowFilter, as in flow.proto
	Reason string
}

func (e *Error) Error() string { return "filter " + e.Field + ": " + e.Reason }

// Set is what a request allows and denies.
type Set struct {
	allow, deny []Match
	interest    event.Interest
}

// Compile compiles the filters of a request. The error is an *Error.
func Compile(allow, deny []*flowpb.FlowFilter) (*Set, error) {
	s := &Set{interest: event.WantAll}
	values := 0
	for _, l := range []struct {
		in  []*flowpb.FlowFilter
		out *[]Match
	}{{allow, &s.allow}, {deny, &s.deny}} {
		for _, f := range l.in {
			if f == nil { // of JSON
				return nil, &Error{"list", "null is no filter"}
			}
			if values += count(f); values > maxValues {
				return nil, &Error{"list", fmt.Sprintf("more than %d values", maxValues)}
			}
			m, err := compile(f)
			if err != nil {
				return nil, err
			}
			*l.out = append(*l.out, m)
		}
	}
	if len(allow) > 0 {
		s.interest = 0
		for _, f := range allow {
			s.interest |= interest(f)
		}
	}
	return s, nil
}

// Match reports whether a flow passes.
func (s *Set) Match(f *flowpb.Flow) bool {
	yes := func(m Match) bool { return m(f) }
	return (len(s.allow) == 0 || slices.ContainsFunc(s.allow, yes)) && !slices.ContainsFunc(s.deny, yes)
}

// All reports whether every flow passes.
func (s *Set) All() bool { return len(s.allow)+len(s.deny) == 0 }

// Interest returns the events that any flow which passes can come from.
func (s *Set) Interest() event.Interest { return s.interest }

func interest(f *flowpb.FlowFilter) event.Interest {
	all := event.WantAll
	if v := f.GetVerdict(); len(v) > 0 {
		all = 0
		if slices.Contains(v, flowpb.Verdict_DROPPED) {
			all |= event.WantDenied
		}
		if slices.Contains(v, flowpb.Verdict_FORWARDED) {
			all |= event.WantAll &^ event.WantDenied
		}
		if slices.Contains(v, flowpb.Verdict_AUDIT) { // which the end of a flow is not told as
			all |= event.WantNew | event.WantChanged
		}
	}
	if types := f.GetEventType(); len(types) > 0 {
		some := event.Interest(0)
		for _, t := range types {
			some |= typeInterest(t.GetType())
		}
		all &= some
	}
	if len(f.GetDropReasonDesc()) > 0 {
		all &= event.WantDenied
	}
	return all
}

// typeInterest returns the events that show as one of a type, as Hubble numbers
// them; 0 stands for any.
func typeInterest(t int32) event.Interest {
	switch t {
	case 0:
		return event.WantAll
	case 1: // drop
		return event.WantDenied
	case 4: // trace
		return event.WantEnded
	case 5: // policy-verdict
		return event.WantAll &^ event.WantEnded
	}
	return 0
}

// fields holds a compiler for each part of a filter; each returns nil if the
// filter says nothing about it.
var fields = []func(*flowpb.FlowFilter) (Match, error){
	unsupported, uuids, verdicts, reasons, types, directions, replies, versions, encrypted,
	addresses, ports, protocols, flags, pods, workloads, identities, labels, nodes, clusters,
}

func compile(f *flowpb.FlowFilter) (Match, error) {
	var parts []Match
	for _, field := range fields {
		m, err := field(f)
		if err != nil {
			return nil, err
		}
		if m != nil {
			parts = append(parts, m)
		}
	}
	return all(parts...), nil
}

// all matches what each of parts does.
func all(parts ...Match) Match {
	return func(f *flowpb.Flow) bool {
		for _, m := range parts {
			if m != nil && !m(f) {
				return false
			}
		}
		return true
	}
}

// unsupported refuses fields about which no flow of Sluice says anything.
func unsupported(f *flowpb.FlowFilter) (Match, error) {
	const (
		layer7   = "Sluice looks at addresses and ports, not at what is said"
		names    = "Sluice knows no DNS names of addresses"
		services = "Sluice sees packets before or after their translation, and knows no Services"
	)
	for _, x := range []struct {
		field, reason string
		set           bool
	}{
		{"source_fqdn", names, f.SourceFqdn != nil}, {"destination_fqdn", names, f.DestinationFqdn != nil},
		{"dns_query", layer7, f.DnsQuery != nil}, {"http_status_code", layer7, f.HttpStatusCode != nil},
		{"http_method", layer7, f.HttpMethod != nil}, {"http_path", layer7, f.HttpPath != nil},
		{"http_url", layer7, f.HttpUrl != nil}, {"http_header", layer7, f.HttpHeader != nil},
		{"source_service", services, f.SourceService != nil}, {"destination_service", services, f.DestinationService != nil},
		{"source_ip_xlated", "Sluice translates nothing", f.SourceIpXlated != nil},
		{"trace_id", "Sluice knows no traces", f.TraceId != nil}, {"ip_trace_id", "Sluice knows no traces", f.IpTraceId != nil},
		{"interface", "flows of Sluice name pods, not interfaces", f.Interface != nil},
		{"experimental.cel_expression", "expressions are not supported", f.Experimental.GetCelExpression() != nil},
	} {
		if x.set {
			return nil, &Error{x.field, x.reason}
		}
	}
	if len(f.ProtoReflect().GetUnknown()) > 0 {
		return nil, &Error{"unknown", "this server does not know a field of it"}
	}
	return nil, nil
}

// count returns how many values a filter has.
func count(f *flowpb.FlowFilter) int {
	n := 1
	for _, list := range [][]string{f.Uuid, f.SourceIp, f.DestinationIp, f.SourcePod, f.DestinationPod, f.SourceLabel,
		f.DestinationLabel, f.SourceClusterName, f.DestinationClusterName, f.Protocol, f.SourcePort, f.DestinationPort,
		f.NodeName, f.NodeLabels} {
		n += len(list)
	}
	return n + len(f.SourceWorkload) + len(f.DestinationWorkload) + len(f.EventType) + len(f.TcpFlags) +
		len(f.SourceIdentity) + len(f.DestinationIdentity) + len(f.Verdict) + len(f.DropReasonDesc)
}
