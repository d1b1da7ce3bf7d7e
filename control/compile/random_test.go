package compile_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Small pools make everything overlap.
var (
	someNamespaces = []string{"a", "b", "c"}
	someNodes      = []string{"n1", "n2"}
	someKeys       = []string{"app", "tier"}
	someValues     = []string{"x", "y", "z"}
	somePortNames  = []string{"http", "dns"}
	someProtocols  = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
	somePorts      = []int32{1, 53, 80, 81, 8080, 65535}
	someCIDRs      = []string{
		"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/28", "10.0.0.4/30", "10.0.0.5/32", "192.168.0.0/16",
		"::/0", "fd00::/64", "fd00::/124", "fd00::4/126", "fd00::5/128",
	}
	someAddrs = func() []netip.Addr {
		var out []netip.Addr
		for i := range 18 {
			out = append(out, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
			out = append(out, netip.MustParseAddr(fmt.Sprintf("fd00::%x", i)))
		}
		for _, s := range []string{"192.168.0.1", "192.168.0.2", "192.167.255.255", "8.8.8.8", "2001:db8::1", "fd00:0:0:1::"} {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}()
)

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func randomLabels(r *rand.Rand) map[string]string {
	out := map[string]string{}
	for _, k := range someKeys {
		if r.IntN(3) > 0 {
			out[k] = pick(r, someValues)
		}
	}
	return out
}

func randomCluster(r *rand.Rand) *cluster {
	c := &cluster{namespaces: map[string]map[string]string{}, audited: map[string]bool{}}
	for _, ns := range someNamespaces {
		if r.IntN(4) > 0 { // else it exists through its pods only
			c.namespaces[ns] = randomLabels(r)
			c.audited[ns] = r.IntN(8) == 0
		}
	}
	for i, name := range someNodes {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.168.0.%d", i+1)}}
		c.nodes = append(c.nodes, n)
	}
	for i := range 3 + r.IntN(8) {
		c.pods = append(c.pods, randomPod(r, fmt.Sprintf("p%d", i)))
	}
	for i := range r.IntN(7) {
		c.policies = append(c.policies, randomPolicy(r, fmt.Sprintf("np%d", i)))
	}
	c.sort()
	return c
}

func (c *cluster) sort() {
	slices.SortFunc(c.policies, func(a, b *networkingv1.NetworkPolicy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

func randomPod(r *rand.Rand, name string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pick(r, someNamespaces), Name: name, Labels: randomLabels(r)}}
	p.Spec.NodeName = pick(r, someNodes)
	if r.IntN(10) == 0 {
		p.Spec.HostNetwork = true
		p.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprintf("192.168.0.%d", 1+slices.Index(someNodes, p.Spec.NodeName))}}
	} else {
		for range 1 + r.IntN(2) {
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: someAddrs[r.IntN(32)].String()})
		}
		slices.SortFunc(p.Status.PodIPs, func(a, b corev1.PodIP) int { return cmp.Compare(a.IP, b.IP) })
		p.Status.PodIPs = slices.Compact(p.Status.PodIPs)
	}
	p.Status.Phase = corev1.PodRunning
	if r.IntN(8) == 0 {
		p.Status.Phase = pick(r, []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed, corev1.PodPending})
	}
	for range 1 + r.IntN(2) {
		var ct corev1.Container
		for range r.IntN(3) {
			ct.Ports = append(ct.Ports, corev1.ContainerPort{Name: pick(r, somePortNames),
				ContainerPort: pick(r, somePorts), Protocol: pick(r, someProtocols)})
		}
		p.Spec.Containers = append(p.Spec.Containers, ct)
	}
	return p
}

func randomPolicy(r *rand.Rand, name string) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: pick(r, someNamespaces), Name: name}}
	if r.IntN(6) == 0 {
		np.Annotations = map[string]string{"sluice.dev/audit": "true"}
	}
	np.Spec.PodSelector = randomSelector(r)
	switch r.IntN(5) {
	case 0:
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	case 1:
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	case 2:
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress, networkingv1.PolicyTypeIngress}
	}
	for range r.IntN(3) {
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: randomPeers(r), Ports: randomPorts(r)})
	}
	for range r.IntN(3) {
		np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: randomPeers(r), Ports: randomPorts(r)})
	}
	return np
}

func randomSelector(r *rand.Rand) metav1.LabelSelector {
	var s metav1.LabelSelector
	for range r.IntN(2) {
		s.MatchLabels = map[string]string{pick(r, someKeys): pick(r, someValues)}
	}
	for range r.IntN(2) {
		e := metav1.LabelSelectorRequirement{Key: pick(r, someKeys), Operator: pick(r, []metav1.LabelSelectorOperator{
			metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist})}
		if e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn {
			for range 1 + r.IntN(2) {
				e.Values = append(e.Values, pick(r, someValues))
			}
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
	}
	return s
}

func randomPeers(r *rand.Rand) []networkingv1.NetworkPolicyPeer {
	var out []networkingv1.NetworkPolicyPeer
	for range r.IntN(3) {
		var p networkingv1.NetworkPolicyPeer
		kind := r.IntN(4)
		if kind == 0 {
			b := &networkingv1.IPBlock{CIDR: pick(r, someCIDRs)}
			outer := netip.MustParsePrefix(b.CIDR)
			for _, x := range someCIDRs {
				inner := netip.MustParsePrefix(x)
				if outer.Contains(inner.Addr()) && outer.Bits() < inner.Bits() && r.IntN(3) == 0 {
					b.Except = append(b.Except, x)
				}
			}
			p.IPBlock = b
		}
		if kind&1 != 0 {
			s := randomSelector(r)
			p.PodSelector = &s
		}
		if kind&2 != 0 {
			s := randomSelector(r)
			p.NamespaceSelector = &s
		}
		out = append(out, p)
	}
	return out
}

func randomPorts(r *rand.Rand) []networkingv1.NetworkPolicyPort {
	var out []networkingv1.NetworkPolicyPort
	for range r.IntN(3) {
		var p networkingv1.NetworkPolicyPort
		if r.IntN(3) > 0 {
			proto := pick(r, someProtocols)
			p.Protocol = &proto
		}
		switch r.IntN(4) {
		case 0:
			v := intstr.FromString(pick(r, somePortNames))
			p.Port = &v
		case 1:
			v := intstr.FromInt32(pick(r, somePorts))
			p.Port = &v
		case 2:
			from, to := pick(r, somePorts), pick(r, somePorts)
			from, to = min(from, to), max(from, to)
			v := intstr.FromInt32(from)
			p.Port, p.EndPort = &v, &to
		}
		out = append(out, p)
	}
	return out
}
