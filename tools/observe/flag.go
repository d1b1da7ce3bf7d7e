package observe

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// Flag is a filter's flag. NoValue is what it means without a value, if it can
// do without.
type Flag struct{ Name, Short, NoValue, Usage string }

// Flags returns all flags that Filters.Set takes.
func Flags() []Flag { return flags }

var flags = []Flag{
	{"not", "", "true", "turn the next filter round"},
	{"verdict", "", "", "FORWARDED, DROPPED or AUDIT; allow and deny stand for the first two"},
	{"type", "t", "", "drop, policy-verdict or trace, with a sub-type as trace:to-stack"},
	{"reason", "", "", "why it was dropped, as POLICY_DENIED; policy stands for both of a policy's"},
	{"drop-reason-desc", "", "", "the same, as hubble calls it"},
	{"protocol", "", "", "tcp, udp, sctp, icmp, icmpv4, icmpv6, vrrp or igmp"},
	{"tcp-flags", "", "", "packets that have all of these, as syn,ack"},
	{"pod", "", "", "from or to a pod, by a prefix of [NAMESPACE/]NAME; namespace default if none is given"},
	{"from-pod", "", "", "from a pod, likewise"},
	{"to-pod", "", "", "to a pod, likewise"},
	{"namespace", "n", "", "from or to a namespace"},
	{"from-namespace", "", "", "from a namespace"},
	{"to-namespace", "", "", "to a namespace"},
	{"all-namespaces", "A", "true", "from or to a pod of any namespace"},
	{"from-all-namespaces", "", "true", "from a pod of any namespace"},
	{"to-all-namespaces", "", "true", "to a pod of any namespace"},
	{"label", "l", "", "from or to a pod with labels, as app=web or 'k8s:tier in (a,b)', or reserved:world"},
	{"from-label", "", "", "from such a pod"},
	{"to-label", "", "", "to such a pod"},
	{"workload", "", "", "from or to [KIND/]NAME"},
	{"from-workload", "", "", "from [KIND/]NAME"},
	{"to-workload", "", "", "to [KIND/]NAME"},
	{"identity", "", "", "from or to a security identity, a number or host, world, remote-node"},
	{"from-identity", "", "", "from a security identity"},
	{"to-identity", "", "", "to a security identity"},
	{"ip", "", "", "from or to an address or CIDR"},
	{"from-ip", "", "", "from an address or CIDR"},
	{"to-ip", "", "", "to an address or CIDR"},
	{"ipv4", "4", "v4", "IPv4 only"},
	{"ipv6", "6", "v6", "IPv6 only"},
	{"ip-version", "", "", "v4 or v6"},
	{"port", "", "", "from or to a port"},
	{"from-port", "", "", "from a port"},
	{"to-port", "", "", "to a port"},
	{"traffic-direction", "", "", "ingress or egress"},
	{"reply", "", "true", "packets that run against their flow's direction only"},
	{"not-reply", "", "true", "others only"},
	{"encrypted", "", "true", "encrypted flows only"},
	{"unencrypted", "", "true", "others only"},
	{"uuid", "", "", "the flow of this identifier"},
	{"node-name", "", "", "seen by a node, as node-*, or CLUSTER/NODE"},
	{"node-label", "", "", "seen by a node with labels"},
	{"cluster", "", "", "from or to a cluster"},
	{"from-cluster", "", "", "from a cluster"},
	{"to-cluster", "", "", "to a cluster"},
}

// add appends a value to a list of a filter, of either end or of both ends by
// which ends are named.
func add[T any](value T, list func(*flowpb.FlowFilter) *[]T) set {
	return func(f *flowpb.FlowFilter) { l := list(f); *l = append(*l, value) }
}

// ends are a filter's lists of strings that there is one of for each end.
var ends = map[string]struct {
	src, dst func(*flowpb.FlowFilter) *[]string
}{
	"pod":     {func(f *flowpb.FlowFilter) *[]string { return &f.SourcePod }, func(f *flowpb.FlowFilter) *[]string { return &f.DestinationPod }},
	"ip":      {func(f *flowpb.FlowFilter) *[]string { return &f.SourceIp }, func(f *flowpb.FlowFilter) *[]string { return &f.DestinationIp }},
	"label":   {func(f *flowpb.FlowFilter) *[]string { return &f.SourceLabel }, func(f *flowpb.FlowFilter) *[]string { return &f.DestinationLabel }},
	"port":    {func(f *flowpb.FlowFilter) *[]string { return &f.SourcePort }, func(f *flowpb.FlowFilter) *[]string { return &f.DestinationPort }},
	"cluster": {func(f *flowpb.FlowFilter) *[]string { return &f.SourceClusterName }, func(f *flowpb.FlowFilter) *[]string { return &f.DestinationClusterName }},
}

// set takes one flag. Values of lists that the server judges are left to it,
// but for those that are worth an answer without one.
func (t *terms) set(name, value string) error {
	end, what := "", name
	if from, ok := strings.CutPrefix(name, "from-"); ok {
		end, what = "from", from
	} else if to, ok := strings.CutPrefix(name, "to-"); ok {
		end, what = "to", to
	}
	switch what {
	case "namespace", "all-namespaces":
		t.namespace(end, value, what == "all-namespaces")
		return nil
	case "workload":
		kind, workload, ok := strings.Cut(value, "/")
		if !ok {
			kind, workload = "", value
		}
		w := &flowpb.Workload{Kind: kind, Name: workload}
		t.put(end, add(w, func(f *flowpb.FlowFilter) *[]*flowpb.Workload { return &f.SourceWorkload }),
			add(w, func(f *flowpb.FlowFilter) *[]*flowpb.Workload { return &f.DestinationWorkload }))
		return nil
	case "identity":
		id, err := identity(value)
		t.put(end, add(id, func(f *flowpb.FlowFilter) *[]uint32 { return &f.SourceIdentity }),
			add(id, func(f *flowpb.FlowFilter) *[]uint32 { return &f.DestinationIdentity }))
		return err
	case "ip":
		if err := address(value); err != nil {
			return err
		}
	case "port":
		if _, err := strconv.ParseUint(value, 10, 16); err != nil {
			return fmt.Errorf("%q: want a port, 0 to 65535", value)
		}
	}
	if lists, ok := ends[what]; ok {
		t.put(end, add(value, lists.src), add(value, lists.dst))
		return nil
	}
	s, err := plain(name, value)
	t.both = append(t.both, s)
	return err
}

// put files settings of the source and of the destination.
func (t *terms) put(end string, src, dst set) {
	switch end {
	case "from":
		t.both = append(t.both, src)
	case "to":
		t.both = append(t.both, dst)
	default:
		t.src, t.dst = append(t.src, src), append(t.dst, dst)
	}
}

func (t *terms) namespace(end, value string, all bool) {
	if all {
		value = ""
	}
	switch end {
	case "from":
		t.srcNS = append(t.srcNS, value)
	case "to":
		t.dstNS = append(t.dstNS, value)
	default:
		t.eitherNS = append(t.eitherNS, value)
	}
}

func address(value string) error {
	_, err1 := netip.ParseAddr(value)
	_, err2 := netip.ParsePrefix(value)
	if err1 != nil && err2 != nil {
		return fmt.Errorf("%q: want an address or a CIDR", value)
	}
	return nil
}

var reserved = map[string]uint32{"host": 1, "world": 2, "unmanaged": 3, "health": 4, "init": 5, "remote-node": 6, "kube-apiserver": 7, "ingress": 8}

func identity(value string) (uint32, error) {
	if id, ok := reserved[value]; ok {
		return id, nil
	}
	id, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q: want a number, host, world or remote-node", value)
	}
	return uint32(id), nil
}
