package oracle_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	v1 "github.com/cilium/cilium/pkg/hubble/api/v1"
	"github.com/cilium/cilium/pkg/hubble/filters"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-net/sluice/control/observe/filter"
)

// some returns up to most of what one may be.
func some[T any](r *rand.Rand, most int, one ...T) []T {
	var out []T
	for range r.IntN(most + 1) {
		out = append(out, one[r.IntN(len(one))])
	}
	return out
}

// distinct returns some, with no key twice.
func distinct(r *rand.Rand, most int, of ...string) []string {
	var out []string
	keys := map[string]bool{}
	for _, l := range some(r, most, of...) {
		key, _, _ := strings.Cut(l, "=")
		if !keys[key] {
			keys[key] = true
			out = append(out, l)
		}
	}
	return out
}

func randomEnd(r *rand.Rand) *flowpb.Endpoint {
	if r.IntN(4) == 0 {
		return &flowpb.Endpoint{Identity: 2, ClusterName: "default", Labels: []string{"reserved:world"}}
	}
	e := &flowpb.Endpoint{ID: 1, Identity: uint32(1000 + r.IntN(3)), ClusterName: "default",
		Namespace: []string{"default", "shop", "shop-2"}[r.IntN(3)], PodName: []string{"web-1", "web", "api-1"}[r.IntN(3)],
		Labels: distinct(r, 4, "k8s:app=web", "k8s:app=api", "k8s:app=", "k8s:app.kubernetes.io/name=web", "k8s:tier=a.b", "k8s:x=z",
			"k8s:io.kubernetes.pod.namespace=shop", "k8s:n=5", "reserved:health", "k8s:a=b=c")}
	if r.IntN(2) == 0 {
		e.Workloads = []*flowpb.Workload{{Name: []string{"web", "api"}[r.IntN(2)], Kind: []string{"Deployment", "StatefulSet"}[r.IntN(2)]}}
	}
	return e
}

var someAddrs = []string{"10.0.0.1", "10.0.1.2", "fd00::1", "192.0.2.1"}

func randomFlags(r *rand.Rand) *flowpb.TCPFlags {
	yes := func() bool { return r.IntN(3) == 0 }
	return &flowpb.TCPFlags{FIN: yes(), SYN: yes(), RST: yes(), PSH: yes(), ACK: yes(), URG: yes(), ECE: yes(), CWR: yes()}
}

func randomFlow(r *rand.Rand) *flowpb.Flow {
	port := func() uint32 { return uint32(r.IntN(4)) }
	f := &flowpb.Flow{Uuid: fmt.Sprint(r.IntN(3)), NodeName: []string{"node-1", "node-2.example.com", "other"}[r.IntN(3)],
		NodeLabels: distinct(r, 2, "zone=a", "kubernetes.io/os=linux", "zone=b"),
		Verdict:    flowpb.Verdict(r.IntN(5)), Type: flowpb.FlowType_L3_L4, Source: randomEnd(r), Destination: randomEnd(r),
		TrafficDirection: flowpb.TrafficDirection(r.IntN(3)),
		EventType:        &flowpb.CiliumEventType{Type: []int32{1, 4, 5}[r.IntN(3)], SubType: int32(r.IntN(3))},
		IP:               &flowpb.IP{Source: someAddrs[r.IntN(4)], Destination: someAddrs[r.IntN(4)], IpVersion: flowpb.IPVersion(r.IntN(3))}}
	if f.Verdict == flowpb.Verdict_DROPPED {
		f.DropReasonDesc = []flowpb.DropReason{flowpb.DropReason_POLICY_DENIED, flowpb.DropReason_POLICY_DENY, flowpb.DropReason_VLAN_FILTERED}[r.IntN(3)]
	}
	if r.IntN(4) > 0 {
		f.IsReply = wrapperspb.Bool(r.IntN(2) == 0)
	}
	switch r.IntN(8) {
	case 0, 1, 2:
		f.L4 = &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{SourcePort: port(), DestinationPort: port(), Flags: randomFlags(r)}}}
	case 3:
		f.L4 = &flowpb.Layer4{Protocol: &flowpb.Layer4_UDP{UDP: &flowpb.UDP{SourcePort: port(), DestinationPort: port()}}}
	case 4:
		f.L4 = &flowpb.Layer4{Protocol: &flowpb.Layer4_SCTP{SCTP: &flowpb.SCTP{SourcePort: port(), DestinationPort: port()}}}
	case 5:
		f.L4 = &flowpb.Layer4{Protocol: &flowpb.Layer4_ICMPv4{ICMPv4: &flowpb.ICMPv4{Type: 8}}}
	case 6:
		f.L4 = &flowpb.Layer4{Protocol: &flowpb.Layer4_ICMPv6{ICMPv6: &flowpb.ICMPv6{Type: 128}}}
	}
	return f
}

// word makes up a selector of labels, most of which are valid.
func word(r *rand.Rand) string {
	keys := []string{"app", "k8s:app", "any:app", "k8s:app.kubernetes.io/name", "app.kubernetes.io/name", "tier", "x", "any:x", "k8s:x", "reserved:world",
		"reserved:health", "io.kubernetes.pod.namespace", "n", "zone", "k8s:zone", "kubernetes.io/os", "k8s.app", "any.app", "a"}
	values := []string{"web", "api", "a.b", "y", "z", "", "5", "shop", "a", "linux", "k8s:app"}
	var parts []string
	for range 1 + r.IntN(2) {
		k, v := keys[r.IntN(len(keys))], values[r.IntN(len(values))]
		space := strings.Repeat(" ", r.IntN(2))
		parts = append(parts, []string{k, k, "!" + k, "!" + space + k, k + "=" + v, k + "=" + v, k + space + "==" + space + v, k + "!=" + space + v, k + " in (" + v + "," + space + "web)",
			k + " notin (" + v + ")", k + space + "in(" + v + ")", k + " > 3", k + "<3", space + k + space, k + ":" + v, k + " exists"}[r.IntN(16)])
	}
	return strings.Join(parts, []string{",", ", ", " ,"}[r.IntN(3)])
}

func words(r *rand.Rand, most int) []string {
	var out []string
	for range r.IntN(most + 1) {
		out = append(out, word(r))
	}
	return out
}

// randomFilter asks about a few fields.
func randomFilter(r *rand.Rand) *flowpb.FlowFilter {
	f := &flowpb.FlowFilter{}
	pods := []string{"web", "shop/web", "shop/", "/web", "shop", "default/api-1", "/", ""}
	ips := append([]string{"10.0.0.0/24", "10.0.0.7/16", "fd00::/8", "0.0.0.0/0", "10.0.0.300", "1.2.3.4/33"}, someAddrs...)
	ports := []string{"0", "1", "2", "3", "01", "65536", "-1", "http", "+1"}
	nodes := []string{"node-1", "node-*", "default/node-1", "*/node-1", "default/", "other", "Other", "*.example.com", "node-2.*", "*", "node-1.", "no de", "a/b/c", "/node-1", "def*/"}
	for range 1 + r.IntN(2) {
		switch r.IntN(21) {
		case 0:
			f.SourcePod = some(r, 2, pods...)
		case 1:
			f.DestinationPod = some(r, 2, pods...)
		case 2:
			f.SourceIp = some(r, 2, ips...)
		case 3:
			f.DestinationIp = some(r, 2, ips...)
		case 4:
			f.SourceLabel = words(r, 2)
		case 5:
			f.DestinationLabel = words(r, 2)
		case 6:
			// A node's labels name no source, which for Hubble is none: with us it is k8s.
			for _, w := range words(r, 2) {
				f.NodeLabels = append(f.NodeLabels, strings.ReplaceAll(w, "k8s:", ""))
			}
		case 7:
			f.Verdict = some(r, 2, flowpb.Verdict_FORWARDED, flowpb.Verdict_DROPPED, flowpb.Verdict_AUDIT, flowpb.Verdict_ERROR)
		case 8:
			f.DropReasonDesc = some(r, 2, flowpb.DropReason_POLICY_DENIED, flowpb.DropReason_POLICY_DENY, flowpb.DropReason_DROP_REASON_UNKNOWN)
		case 9:
			f.EventType = some(r, 2, &flowpb.EventTypeFilter{Type: 1}, &flowpb.EventTypeFilter{Type: 4, MatchSubType: true, SubType: 2},
				&flowpb.EventTypeFilter{MatchSubType: true, SubType: 1}, &flowpb.EventTypeFilter{})
		case 10:
			f.Protocol = some(r, 2, "tcp", "UDP", "icmp", "icmpv6", "ICMPv4", "sctp", "igmp", "gre")
		case 11:
			f.SourcePort = some(r, 2, ports...)
		case 12:
			f.DestinationPort = some(r, 2, ports...)
		case 13:
			f.Reply = some(r, 2, true, false)
		case 14:
			f.TcpFlags = append(f.TcpFlags, randomFlags(r))
		case 15:
			f.NodeName = some(r, 2, nodes...)
		case 16:
			f.SourceIdentity = some(r, 2, uint32(2), 1000, 1001)
		case 17:
			f.TrafficDirection = some(r, 2, flowpb.TrafficDirection_INGRESS, flowpb.TrafficDirection_EGRESS, 0)
		case 18:
			f.SourceWorkload = some(r, 2, &flowpb.Workload{Name: "web"}, &flowpb.Workload{Kind: "Deployment"}, &flowpb.Workload{Kind: "StatefulSet", Name: "api"}, &flowpb.Workload{})
		case 19:
			f.IpVersion, f.Encrypted = some(r, 2, flowpb.IPVersion_IPv4, flowpb.IPVersion_IPv6), some(r, 1, true, false)
		case 20:
			f.SourceClusterName, f.Uuid = some(r, 2, "default", "other", ""), some(r, 1, "0", "1")
		}
	}
	return f
}

// Filters of Hubble's API match the same flows as in Hubble, and are refused alike.
func TestFlowFilters(t *testing.T) {
	seen := map[string]int{}
	complain := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if seen[text]++; len(seen) < 60 && seen[text] == 1 {
			t.Error(text)
		}
	}
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 1))
		ff := []*flowpb.FlowFilter{randomFilter(r)}
		want, err1 := filters.BuildFilterList(t.Context(), ff, filters.DefaultFilters(slog.New(slog.DiscardHandler)))
		got, err2 := filter.Compile(ff, nil)
		if (err1 == nil) != (err2 == nil) {
			complain("filter %v: Hubble says %v, we %v", ff[0], err1, err2)
			continue
		}
		if err1 != nil {
			continue
		}
		for range 20 {
			f := randomFlow(r)
			if a, b := want.MatchOne(&v1.Event{Event: f}), got.Match(f); a != b {
				complain("filter %v: flow %v: Hubble %v, we %v", ff[0], f, a, b)
				break
			}
		}
	}
}
