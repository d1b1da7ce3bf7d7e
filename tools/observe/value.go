package observe

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// plain reads flags that are not about an end.
func plain(name, value string) (set, error) {
	switch name {
	case "verdict":
		return verdictFlag(value)
	case "type":
		t, err := eventType(value)
		return add(t, func(f *flowpb.FlowFilter) *[]*flowpb.EventTypeFilter { return &f.EventType }), err
	case "reason", "drop-reason-desc":
		return reasonFlag(value)
	case "protocol":
		return add(value, func(f *flowpb.FlowFilter) *[]string { return &f.Protocol }), nil
	case "tcp-flags":
		t, err := tcpFlags(value)
		return add(t, func(f *flowpb.FlowFilter) *[]*flowpb.TCPFlags { return &f.TcpFlags }), err
	case "ipv4", "ipv6", "ip-version":
		v, ok := map[string]flowpb.IPVersion{"v4": flowpb.IPVersion_IPv4, "4": flowpb.IPVersion_IPv4, "v6": flowpb.IPVersion_IPv6, "6": flowpb.IPVersion_IPv6}[strings.TrimPrefix(strings.ToLower(value), "ip")]
		if !ok {
			return nil, fmt.Errorf("%q: want v4 or v6", value)
		}
		return add(v, func(f *flowpb.FlowFilter) *[]flowpb.IPVersion { return &f.IpVersion }), nil
	case "traffic-direction":
		d, ok := flowpb.TrafficDirection_value[strings.ToUpper(value)]
		if !ok || d == 0 {
			return nil, fmt.Errorf("%q: want ingress or egress", value)
		}
		return add(flowpb.TrafficDirection(d), func(f *flowpb.FlowFilter) *[]flowpb.TrafficDirection { return &f.TrafficDirection }), nil
	case "reply", "not-reply":
		b, err := strconv.ParseBool(value)
		return add(b == (name == "reply"), func(f *flowpb.FlowFilter) *[]bool { return &f.Reply }), err
	case "encrypted", "unencrypted":
		b, err := strconv.ParseBool(value)
		return add(b == (name == "encrypted"), func(f *flowpb.FlowFilter) *[]bool { return &f.Encrypted }), err
	case "uuid":
		return add(value, func(f *flowpb.FlowFilter) *[]string { return &f.Uuid }), nil
	case "node-name":
		return add(value, func(f *flowpb.FlowFilter) *[]string { return &f.NodeName }), nil
	case "node-label":
		return add(value, func(f *flowpb.FlowFilter) *[]string { return &f.NodeLabels }), nil
	}
	return nil, fmt.Errorf("no such filter: %s", name)
}

func verdictFlag(value string) (set, error) {
	name := strings.ToUpper(value)
	switch name {
	case "ALLOW", "ALLOWED":
		name = flowpb.Verdict_FORWARDED.String()
	case "DENY", "DENIED":
		name = flowpb.Verdict_DROPPED.String()
	}
	v, ok := flowpb.Verdict_value[name]
	if !ok {
		return nil, fmt.Errorf("%q: want FORWARDED, DROPPED or AUDIT", value)
	}
	return add(flowpb.Verdict(v), func(f *flowpb.FlowFilter) *[]flowpb.Verdict { return &f.Verdict }), nil
}

func reasonFlag(value string) (set, error) {
	list := func(f *flowpb.FlowFilter) *[]flowpb.DropReason { return &f.DropReasonDesc }
	if value == "policy" {
		return func(f *flowpb.FlowFilter) {
			add(flowpb.DropReason_POLICY_DENIED, list)(f)
			add(flowpb.DropReason_POLICY_DENY, list)(f)
		}, nil
	}
	v, ok := flowpb.DropReason_value[strings.ToUpper(strings.ReplaceAll(value, "-", "_"))]
	if !ok {
		return nil, fmt.Errorf("%q: want a reason as POLICY_DENIED, or policy", value)
	}
	return add(flowpb.DropReason(v), list), nil
}

// Event types and sub-types of traces, as Hubble's clients number them
// (pkg/monitor/api of Cilium).
const (
	typeDrop          = 1
	typeTrace         = 4
	typePolicyVerdict = 5
)

var (
	typeNames  = map[string]int32{"drop": typeDrop, "capture": 3, "trace": typeTrace, "policy-verdict": typePolicyVerdict, "trace-sock": 7, "l7": 129}
	traceNames = map[string]int32{"to-endpoint": 0, "to-proxy": 1, "to-host": 2, "to-stack": 3, "to-overlay": 4}
)

func eventType(value string) (*flowpb.EventTypeFilter, error) {
	name, sub, narrow := strings.Cut(value, ":")
	t := &flowpb.EventTypeFilter{MatchSubType: narrow}
	var ok bool
	if t.Type, ok = typeNames[name]; !ok {
		n, err := strconv.ParseUint(name, 10, 8)
		if err != nil {
			return nil, fmt.Errorf("%q: want one of %s, or a number", name, strings.Join(slices.Sorted(maps.Keys(typeNames)), ", "))
		}
		t.Type = int32(n)
	}
	if !narrow {
		return t, nil
	}
	if t.SubType, ok = traceNames[sub]; !ok || t.Type != typeTrace {
		n, err := strconv.ParseUint(sub, 10, 8)
		if err != nil {
			return nil, fmt.Errorf("sub-type %q: want a number, or of a trace one of %s", sub, strings.Join(slices.Sorted(maps.Keys(traceNames)), ", "))
		}
		t.SubType = int32(n)
	}
	return t, nil
}

func tcpFlags(value string) (*flowpb.TCPFlags, error) {
	t := &flowpb.TCPFlags{}
	fields := map[string]*bool{"FIN": &t.FIN, "SYN": &t.SYN, "RST": &t.RST, "PSH": &t.PSH, "ACK": &t.ACK, "URG": &t.URG, "ECE": &t.ECE, "CWR": &t.CWR, "NS": &t.NS}
	for name := range strings.SplitSeq(value, ",") {
		field := fields[strings.ToUpper(strings.TrimSpace(name))]
		if field == nil {
			return nil, fmt.Errorf("%q: want TCP flags as syn,ack", name)
		}
		*field = true
	}
	return t, nil
}
