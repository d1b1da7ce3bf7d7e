package compile_test

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// cluster is what the oracle judges by: API objects as a user writes them.
type cluster struct {
	namespaces map[string]map[string]string
	audited    map[string]bool
	pods       []*corev1.Pod
	nodes      []*corev1.Node
	policies   []*networkingv1.NetworkPolicy // sorted by namespace and name
}

// verdict of one direction.
type verdict struct {
	allow, audit bool
	refs         []rule.PolicyRef
}

// judge reads the API's text aloud: is the pod isolated in this direction by
// any policy that selects it and applies to the direction? If so, only what
// some rule of these policies lists is allowed.
func (c *cluster) judge(dir rule.Direction, pod *corev1.Pod, remote netip.Addr, proto corev1.Protocol, port uint16) verdict {
	if dir == rule.Ingress && c.isNode(pod.Spec.NodeName, remote) {
		return verdict{allow: true} // "cannot be used to block traffic from the node a pod is on"
	}
	var isolating []rule.PolicyRef
	audit := true
	for _, np := range c.policies {
		if np.Namespace != pod.Namespace || !selects(&np.Spec.PodSelector, pod.Labels) || !applies(np, dir) {
			continue
		}
		ref := rule.PolicyRef{Kind: "NetworkPolicy", Namespace: np.Namespace, Name: np.Name, Rule: rule.DefaultRule, Direction: dir}
		isolating = append(isolating, ref)
		audit = audit && (np.Annotations["sluice.dev/audit"] == "true" || c.audited[np.Namespace])
	}
	if len(isolating) == 0 {
		return verdict{allow: true}
	}
	for _, ref := range isolating {
		np := c.policy(ref)
		for i := range rulesOf(np, dir) {
			peers, ports := ruleOf(np, dir, i)
			if c.ruleMatches(dir, np.Namespace, peers, ports, pod, remote, proto, port) {
				ref.Rule = i
				return verdict{allow: true, refs: []rule.PolicyRef{ref}}
			}
		}
	}
	return verdict{allow: audit, audit: audit, refs: isolating}
}

func (c *cluster) policy(ref rule.PolicyRef) *networkingv1.NetworkPolicy {
	i := slices.IndexFunc(c.policies, func(p *networkingv1.NetworkPolicy) bool {
		return p.Namespace == ref.Namespace && p.Name == ref.Name
	})
	return c.policies[i]
}

func (c *cluster) isNode(name string, a netip.Addr) bool {
	for _, n := range c.nodes {
		for _, x := range n.Status.Addresses {
			if n.Name == name && x.Address == a.String() {
				return true
			}
		}
	}
	for _, p := range c.pods {
		if p.Spec.HostNetwork && p.Spec.NodeName == name && has(p, a) {
			return true
		}
	}
	return false
}

func applies(np *networkingv1.NetworkPolicy, dir rule.Direction) bool {
	if len(np.Spec.PolicyTypes) == 0 {
		return dir == rule.Ingress || len(np.Spec.Egress) > 0
	}
	want := networkingv1.PolicyTypeIngress
	if dir == rule.Egress {
		want = networkingv1.PolicyTypeEgress
	}
	return slices.Contains(np.Spec.PolicyTypes, want)
}

func rulesOf(np *networkingv1.NetworkPolicy, dir rule.Direction) []struct{} {
	if dir == rule.Egress {
		return make([]struct{}, len(np.Spec.Egress))
	}
	return make([]struct{}, len(np.Spec.Ingress))
}

func ruleOf(np *networkingv1.NetworkPolicy, dir rule.Direction, i int) ([]networkingv1.NetworkPolicyPeer, []networkingv1.NetworkPolicyPort) {
	if dir == rule.Egress {
		return np.Spec.Egress[i].To, np.Spec.Egress[i].Ports
	}
	return np.Spec.Ingress[i].From, np.Spec.Ingress[i].Ports
}

// ruleMatches: "matches traffic that matches both ports and from/to"; an empty
// list "matches all". A port by name is the destination pod's, so the
// destination is looked at for each pair of a peer and a port.
func (c *cluster) ruleMatches(dir rule.Direction, ns string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort,
	pod *corev1.Pod, remote netip.Addr, proto corev1.Protocol, port uint16) bool {
	if len(peers) == 0 {
		peers = []networkingv1.NetworkPolicyPeer{{}} // stands for any
	}
	for _, peer := range peers {
		if len(ports) == 0 && c.anyEnd(ns, peer, remote, func(*corev1.Pod) bool { return true }) {
			return true
		}
		for _, p := range ports {
			want := corev1.ProtocolTCP
			if p.Protocol != nil {
				want = *p.Protocol
			}
			if want != proto {
				continue
			}
			ok := c.anyEnd(ns, peer, remote, func(other *corev1.Pod) bool {
				if dir == rule.Ingress {
					return portMatches(p, pod, proto, port)
				}
				return portMatches(p, other, proto, port)
			})
			if ok {
				return true
			}
		}
	}
	return false
}

// anyEnd asks whether the remote end, as a pod or as a mere address (nil), is
// what the peer describes and also fits.
func (c *cluster) anyEnd(ns string, peer networkingv1.NetworkPolicyPeer, remote netip.Addr, fits func(*corev1.Pod) bool) bool {
	ends := []*corev1.Pod{nil}
	for _, p := range c.pods {
		if !p.Spec.HostNetwork && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed && has(p, remote) {
			ends = append(ends, p)
		}
	}
	for _, end := range ends {
		if c.isPeer(ns, peer, end, remote) && fits(end) {
			return true
		}
	}
	return false
}

func (c *cluster) isPeer(ns string, peer networkingv1.NetworkPolicyPeer, end *corev1.Pod, remote netip.Addr) bool {
	if b := peer.IPBlock; b != nil {
		if !inCIDR(b.CIDR, remote) {
			return false
		}
		return !slices.ContainsFunc(b.Except, func(x string) bool { return inCIDR(x, remote) })
	}
	if peer.PodSelector == nil && peer.NamespaceSelector == nil {
		return true
	}
	if end == nil {
		return false
	}
	if peer.NamespaceSelector == nil {
		return end.Namespace == ns && selects(peer.PodSelector, end.Labels)
	}
	nsLabels := map[string]string{"kubernetes.io/metadata.name": end.Namespace}
	for k, v := range c.namespaces[end.Namespace] {
		if k != "kubernetes.io/metadata.name" {
			nsLabels[k] = v
		}
	}
	return selects(peer.NamespaceSelector, nsLabels) && (peer.PodSelector == nil || selects(peer.PodSelector, end.Labels))
}

// portMatches: absent is all, a name is that of a container's port, a number
// is itself or the start of a range.
func portMatches(p networkingv1.NetworkPolicyPort, dst *corev1.Pod, proto corev1.Protocol, port uint16) bool {
	if p.Port == nil {
		return true
	}
	if p.Port.Type == intstr.Int {
		end := p.Port.IntVal
		if p.EndPort != nil {
			end = *p.EndPort
		}
		return p.Port.IntVal <= int32(port) && int32(port) <= end
	}
	if dst == nil {
		return false
	}
	for _, ct := range dst.Spec.Containers {
		for _, cp := range ct.Ports {
			if cp.Name == p.Port.StrVal && cp.Protocol == proto && cp.ContainerPort == int32(port) {
				return true
			}
		}
	}
	return false
}

func selects(sel *metav1.LabelSelector, set map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(sel)
	if err != nil {
		panic(err)
	}
	return s.Matches(labels.Set(set))
}

func has(p *corev1.Pod, a netip.Addr) bool {
	return slices.ContainsFunc(p.Status.PodIPs, func(ip corev1.PodIP) bool { return ip.IP == a.String() })
}

func inCIDR(cidr string, a netip.Addr) bool {
	_, n, err := net.ParseCIDR(cidr)
	if err != nil {
		panic(err)
	}
	return strings.Contains(cidr, ":") == a.Is6() && n.Contains(net.IP(a.AsSlice()))
}
