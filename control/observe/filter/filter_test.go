package filter_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-net/sluice/control/observe/filter"
	"github.com/sluice-net/sluice/dataplane/event"
)

// web is a TCP flow from a pod to another one that policy denied.
func web() *flowpb.Flow {
	return &flowpb.Flow{
		Uuid: "u-1", Verdict: flowpb.Verdict_DROPPED, DropReasonDesc: flowpb.DropReason_POLICY_DENIED,
		IP: &flowpb.IP{Source: "10.0.0.1", Destination: "10.0.1.2", IpVersion: flowpb.IPVersion_IPv4},
		L4: &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{SourcePort: 4000, DestinationPort: 80,
			Flags: &flowpb.TCPFlags{SYN: true, ECE: true}}}},
		Source: &flowpb.Endpoint{Identity: 300, ClusterName: "default", Namespace: "default", PodName: "client-7f",
			Labels: []string{"k8s:app=client", "k8s:example.com/tier=front"}},
		Destination: &flowpb.Endpoint{Identity: 400, ClusterName: "default", Namespace: "shop", PodName: "web-1",
			Labels: []string{"k8s:app=web"}, Workloads: []*flowpb.Workload{{Name: "web", Kind: "Deployment"}}},
		NodeName: "node-1.example.com", NodeLabels: []string{"zone=a"},
		EventType:        &flowpb.CiliumEventType{Type: 1, SubType: 133},
		TrafficDirection: flowpb.TrafficDirection_INGRESS,
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		name string
		f    *flowpb.FlowFilter
		want bool
	}{
		{"empty", &flowpb.FlowFilter{}, true},
		{"uuid", &flowpb.FlowFilter{Uuid: []string{"x", "u-1"}}, true},
		{"another uuid", &flowpb.FlowFilter{Uuid: []string{"x"}}, false},
		{"verdict", &flowpb.FlowFilter{Verdict: []flowpb.Verdict{flowpb.Verdict_AUDIT, flowpb.Verdict_DROPPED}}, true},
		{"another verdict", &flowpb.FlowFilter{Verdict: []flowpb.Verdict{flowpb.Verdict_FORWARDED}}, false},
		{"reason", &flowpb.FlowFilter{DropReasonDesc: []flowpb.DropReason{flowpb.DropReason_POLICY_DENIED}}, true},
		{"another reason", &flowpb.FlowFilter{DropReasonDesc: []flowpb.DropReason{flowpb.DropReason_POLICY_DENY}}, false},
		{"address", &flowpb.FlowFilter{SourceIp: []string{"10.0.0.1"}, DestinationIp: []string{"10.0.1.0/24", "::/0"}}, true},
		{"mapped address", &flowpb.FlowFilter{SourceIp: []string{"::ffff:10.0.0.1"}}, true},
		{"wrong way", &flowpb.FlowFilter{DestinationIp: []string{"10.0.0.1"}}, false},
		{"prefix with host bits", &flowpb.FlowFilter{SourceIp: []string{"10.0.0.9/24"}}, true},
		{"version", &flowpb.FlowFilter{IpVersion: []flowpb.IPVersion{flowpb.IPVersion_IPv4}}, true},
		{"another version", &flowpb.FlowFilter{IpVersion: []flowpb.IPVersion{flowpb.IPVersion_IPv6}}, false},
		{"port", &flowpb.FlowFilter{DestinationPort: []string{"443", "80"}, SourcePort: []string{"4000"}}, true},
		{"another port", &flowpb.FlowFilter{DestinationPort: []string{"4000"}}, false},
		{"protocol", &flowpb.FlowFilter{Protocol: []string{"UDP", "Tcp"}}, true},
		{"another protocol", &flowpb.FlowFilter{Protocol: []string{"udp", "icmp", "sctp"}}, false},
		{"flags", &flowpb.FlowFilter{TcpFlags: []*flowpb.TCPFlags{{FIN: true}, {SYN: true}}}, true},
		{"more flags than there are", &flowpb.FlowFilter{TcpFlags: []*flowpb.TCPFlags{{SYN: true, ACK: true}}}, false},
		{"pod in default", &flowpb.FlowFilter{SourcePod: []string{"client-"}}, true},
		{"pod not in default", &flowpb.FlowFilter{DestinationPod: []string{"web-"}}, false},
		{"pod of a namespace", &flowpb.FlowFilter{DestinationPod: []string{"shop/web"}}, true},
		{"namespace", &flowpb.FlowFilter{DestinationPod: []string{"shop/"}}, true},
		{"pod anywhere", &flowpb.FlowFilter{DestinationPod: []string{"/web"}}, true},
		{"prefix only", &flowpb.FlowFilter{DestinationPod: []string{"shop/eb"}}, false},
		{"workload", &flowpb.FlowFilter{DestinationWorkload: []*flowpb.Workload{{Name: "web"}}}, true},
		{"workload of a kind", &flowpb.FlowFilter{DestinationWorkload: []*flowpb.Workload{{Name: "web", Kind: "Job"}}}, false},
		{"no workload", &flowpb.FlowFilter{SourceWorkload: []*flowpb.Workload{{Kind: "Deployment"}}}, false},
		{"identity", &flowpb.FlowFilter{SourceIdentity: []uint32{300}, DestinationIdentity: []uint32{1, 400}}, true},
		{"another identity", &flowpb.FlowFilter{SourceIdentity: []uint32{400}}, false},
		{"label", &flowpb.FlowFilter{SourceLabel: []string{"app=client"}}, true},
		{"label with its source", &flowpb.FlowFilter{SourceLabel: []string{"k8s:app == client"}}, true},
		{"label of another source", &flowpb.FlowFilter{SourceLabel: []string{"reserved:app"}}, false},
		{"label in a set", &flowpb.FlowFilter{SourceLabel: []string{"k8s:example.com/tier in (back, front),app"}}, true},
		{"label not in a set", &flowpb.FlowFilter{SourceLabel: []string{"app notin (client)"}}, false},
		{"absent label", &flowpb.FlowFilter{SourceLabel: []string{"!k8s:gone"}}, true},
		{"either selector", &flowpb.FlowFilter{SourceLabel: []string{"app=x", "app!=x"}}, true},
		{"node labels", &flowpb.FlowFilter{NodeLabels: []string{"zone in (a,b)"}}, true},
		{"type", &flowpb.FlowFilter{EventType: []*flowpb.EventTypeFilter{{Type: 5}, {Type: 1}}}, true},
		{"sub-type", &flowpb.FlowFilter{EventType: []*flowpb.EventTypeFilter{{Type: 1, MatchSubType: true, SubType: 181}}}, false},
		{"any type", &flowpb.FlowFilter{EventType: []*flowpb.EventTypeFilter{{MatchSubType: true, SubType: 133}}}, true},
		{"direction", &flowpb.FlowFilter{TrafficDirection: []flowpb.TrafficDirection{flowpb.TrafficDirection_INGRESS}}, true},
		{"another direction", &flowpb.FlowFilter{TrafficDirection: []flowpb.TrafficDirection{flowpb.TrafficDirection_EGRESS}}, false},
		{"dropped is no reply", &flowpb.FlowFilter{Reply: []bool{false}}, true},
		{"dropped as a reply", &flowpb.FlowFilter{Reply: []bool{true}}, false},
		{"node", &flowpb.FlowFilter{NodeName: []string{"node-*"}}, true},
		{"node of a cluster", &flowpb.FlowFilter{NodeName: []string{"default/node-1.*"}}, true},
		{"cluster of a node", &flowpb.FlowFilter{NodeName: []string{"other/"}}, false},
		{"whole node name", &flowpb.FlowFilter{NodeName: []string{"node"}}, false},
		{"cluster", &flowpb.FlowFilter{SourceClusterName: []string{"def*"}}, true},
		{"unencrypted", &flowpb.FlowFilter{Encrypted: []bool{false}}, true},
		{"encrypted", &flowpb.FlowFilter{Encrypted: []bool{true}}, false},
		{"two fields", &flowpb.FlowFilter{SourceIp: []string{"10.0.0.1"}, DestinationPort: []string{"81"}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			allow, err := filter.Compile([]*flowpb.FlowFilter{c.f}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := allow.Match(web()); got != c.want {
				t.Errorf("allowed: %v, want %v", got, c.want)
			}
			deny, err := filter.Compile(nil, []*flowpb.FlowFilter{c.f})
			if err != nil {
				t.Fatal(err)
			}
			if got := deny.Match(web()); got == c.want {
				t.Errorf("passes a deny list: %v", got)
			}
		})
	}
}

// Of a list, one filter is enough; a denied flow is out though it is allowed.
func TestLists(t *testing.T) {
	http := &flowpb.FlowFilter{DestinationPort: []string{"80"}}
	dns := &flowpb.FlowFilter{DestinationPort: []string{"53"}}
	for _, c := range []struct {
		allow, deny []*flowpb.FlowFilter
		want        bool
	}{
		{nil, nil, true},
		{[]*flowpb.FlowFilter{dns, http}, nil, true},
		{[]*flowpb.FlowFilter{dns}, nil, false},
		{[]*flowpb.FlowFilter{http}, []*flowpb.FlowFilter{dns}, true},
		{[]*flowpb.FlowFilter{http}, []*flowpb.FlowFilter{dns, http}, false},
	} {
		s, err := filter.Compile(c.allow, c.deny)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Match(web()); got != c.want {
			t.Errorf("allow %v, deny %v: %v", c.allow, c.deny, got)
		}
	}
}

func TestRefused(t *testing.T) {
	for field, f := range map[string]*flowpb.FlowFilter{
		"source_ip":                   {SourceIp: []string{"10.0.0.0/33"}},
		"destination_ip":              {DestinationIp: []string{"ten"}},
		"source_port":                 {SourcePort: []string{"65536"}},
		"destination_port":            {DestinationPort: []string{"http"}},
		"protocol":                    {Protocol: []string{"dns"}},
		"pod":                         {SourcePod: []string{""}},
		"label":                       {SourceLabel: []string{"app in ("}},
		"node_labels":                 {NodeLabels: []string{"a=b=c"}},
		"node_name":                   {NodeName: []string{"a/b/c"}},
		"cluster_name":                {SourceClusterName: []string{"a b"}},
		"source_fqdn":                 {SourceFqdn: []string{"example.com"}},
		"destination_fqdn":            {DestinationFqdn: []string{"example.com"}},
		"dns_query":                   {DnsQuery: []string{"x"}},
		"http_status_code":            {HttpStatusCode: []string{"4+"}},
		"http_method":                 {HttpMethod: []string{"GET"}},
		"http_path":                   {HttpPath: []string{"/"}},
		"http_url":                    {HttpUrl: []string{"/"}},
		"http_header":                 {HttpHeader: []*flowpb.HTTPHeader{{Key: "a"}}},
		"source_service":              {SourceService: []string{"a/b"}},
		"destination_service":         {DestinationService: []string{"a/b"}},
		"source_ip_xlated":            {SourceIpXlated: []string{"10.0.0.1"}},
		"trace_id":                    {TraceId: []string{"1"}},
		"ip_trace_id":                 {IpTraceId: []uint64{1}},
		"interface":                   {Interface: []*flowpb.NetworkInterface{{Name: "eth0"}}},
		"experimental.cel_expression": {Experimental: &flowpb.FlowFilter_Experimental{CelExpression: []string{"true"}}},
		"list":                        {DestinationPort: strings.Split(strings.Repeat("80 ", 10_000)+"80", " ")},
	} {
		_, err := filter.Compile([]*flowpb.FlowFilter{f}, nil)
		var e *filter.Error
		if !errors.As(err, &e) || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
		if _, err := filter.Compile(nil, []*flowpb.FlowFilter{f}); err == nil {
			t.Errorf("%s is ignored in a deny list", field)
		}
	}
	unknown := &flowpb.FlowFilter{}
	unknown.ProtoReflect().SetUnknown([]byte{0xf8, 0x3f, 1})
	if _, err := filter.Compile([]*flowpb.FlowFilter{unknown}, nil); err == nil {
		t.Error("a field of a later version is ignored")
	}
}

func TestReply(t *testing.T) {
	f := web()
	f.Verdict, f.IsReply = flowpb.Verdict_FORWARDED, wrapperspb.Bool(true)
	s, err := filter.Compile([]*flowpb.FlowFilter{{Reply: []bool{true}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Match(f) {
		t.Error("a reply is none")
	}
	f.IsReply = nil
	if s.Match(f) {
		t.Error("what is not known is a reply")
	}
}

// A client that wants only denials costs the workers nothing for the rest.
func TestInterest(t *testing.T) {
	verdict := func(v ...flowpb.Verdict) *flowpb.FlowFilter { return &flowpb.FlowFilter{Verdict: v} }
	for _, c := range []struct {
		allow []*flowpb.FlowFilter
		want  event.Interest
	}{
		{nil, event.WantAll},
		{[]*flowpb.FlowFilter{verdict(flowpb.Verdict_DROPPED)}, event.WantDenied},
		{[]*flowpb.FlowFilter{verdict(flowpb.Verdict_FORWARDED)}, event.WantAll &^ event.WantDenied},
		{[]*flowpb.FlowFilter{verdict(flowpb.Verdict_DROPPED), {}}, event.WantAll},
		{[]*flowpb.FlowFilter{verdict(flowpb.Verdict_ERROR)}, 0},
		{[]*flowpb.FlowFilter{verdict(flowpb.Verdict_AUDIT)}, event.WantNew | event.WantChanged},
		{[]*flowpb.FlowFilter{{EventType: []*flowpb.EventTypeFilter{{Type: 1}}}}, event.WantDenied},
		{[]*flowpb.FlowFilter{{EventType: []*flowpb.EventTypeFilter{{Type: 4}}}}, event.WantEnded},
		{[]*flowpb.FlowFilter{{EventType: []*flowpb.EventTypeFilter{{Type: 1}, {Type: 5}}}}, event.WantAll &^ event.WantEnded},
		{[]*flowpb.FlowFilter{{EventType: []*flowpb.EventTypeFilter{{Type: 129}}}}, 0},
		{[]*flowpb.FlowFilter{{EventType: []*flowpb.EventTypeFilter{{SubType: 3, MatchSubType: true}}}}, event.WantAll},
		{[]*flowpb.FlowFilter{{Verdict: []flowpb.Verdict{flowpb.Verdict_FORWARDED}, EventType: []*flowpb.EventTypeFilter{{Type: 1}}}}, 0},
		{[]*flowpb.FlowFilter{{DropReasonDesc: []flowpb.DropReason{flowpb.DropReason_POLICY_DENY}}}, event.WantDenied},
	} {
		s, err := filter.Compile(c.allow, nil)
		if err != nil {
			t.Fatal(err)
		}
		if s.Interest() != c.want {
			t.Errorf("%v: %b, want %b", c.allow, s.Interest(), c.want)
		}
	}
}

// What passed has no reason, nor is that one which is not known.
func TestReasonOfForwarded(t *testing.T) {
	f := &flowpb.FlowFilter{DropReasonDesc: []flowpb.DropReason{flowpb.DropReason_DROP_REASON_UNKNOWN}}
	flow := web()
	flow.Verdict, flow.DropReasonDesc = flowpb.Verdict_FORWARDED, 0
	allow, err1 := filter.Compile([]*flowpb.FlowFilter{f}, nil)
	deny, err2 := filter.Compile(nil, []*flowpb.FlowFilter{f})
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if allow.Match(flow) || !deny.Match(flow) {
		t.Errorf("allowed %v, denied %v", allow.Match(flow), !deny.Match(flow))
	}
}

// Filters may come as JSON, which has a null.
func TestNull(t *testing.T) {
	for _, text := range []string{`[null]`, `[{}, null]`} {
		var list []*flowpb.FlowFilter
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			t.Fatal(err)
		}
		if _, err := filter.Compile(list, nil); err == nil {
			t.Errorf("%s is allowed", text)
		}
		if _, err := filter.Compile(nil, list); err == nil {
			t.Errorf("%s is denied", text)
		}
	}
}
