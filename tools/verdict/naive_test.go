package verdict_test

import (
	"net"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-net/sluice/tools/verdict/verdicttest"
)

// naive judges as one who reads the API's text and the manifests would, with
// no help from Sluice.
type naive struct{ *verdicttest.Cluster }

// allowed: src and dst are pods, or nil for addresses outside.
func (n naive) allowed(src, dst *corev1.Pod, srcIP, dstIP string, proto corev1.Protocol, port int32) bool {
	if src == dst && src != nil {
		return true
	}
	return n.direction(networkingv1.PolicyTypeEgress, src, dst, dstIP, dst, proto, port) &&
		(n.fromOwnNode(dst, srcIP) || n.direction(networkingv1.PolicyTypeIngress, dst, src, srcIP, dst, proto, port))
}

func (n naive) fromOwnNode(pod *corev1.Pod, ip string) bool {
	if pod == nil {
		return false
	}
	for _, node := range n.Nodes {
		if node.Name == pod.Spec.NodeName && node.Status.Addresses[0].Address == ip {
			return true
		}
	}
	return slices.ContainsFunc(n.Pods, func(p *corev1.Pod) bool {
		return p.Spec.HostNetwork && p.Spec.NodeName == pod.Spec.NodeName && p.Status.PodIPs[0].IP == ip
	})
}

// direction: is the subject isolated, and if so, does any rule list the
// traffic with remote? The destination is what named ports are looked up on.
func (n naive) direction(t networkingv1.PolicyType, subject, remote *corev1.Pod, remoteIP string, dst *corev1.Pod, proto corev1.Protocol, port int32) bool {
	if subject == nil || subject.Spec.HostNetwork {
		return true
	}
	isolated, listed, enforced := false, false, false
	for _, np := range n.Policies {
		types := np.Spec.PolicyTypes
		if len(types) == 0 {
			types = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
			if len(np.Spec.Egress) > 0 {
				types = append(types, networkingv1.PolicyTypeEgress)
			}
		}
		if np.Namespace != subject.Namespace || !slices.Contains(types, t) || !matches(&np.Spec.PodSelector, subject.Labels) {
			continue
		}
		isolated = true
		enforced = enforced || np.Annotations["sluice.dev/audit"] != "true"
		if t == networkingv1.PolicyTypeIngress {
			for _, r := range np.Spec.Ingress {
				listed = listed || n.peer(np.Namespace, r.From, remote, remoteIP) && portListed(r.Ports, dst, proto, port)
			}
			continue
		}
		for _, r := range np.Spec.Egress {
			listed = listed || n.peer(np.Namespace, r.To, remote, remoteIP) && portListed(r.Ports, dst, proto, port)
		}
	}
	return !isolated || listed || !enforced
}

func (n naive) peer(ns string, peers []networkingv1.NetworkPolicyPeer, remote *corev1.Pod, ip string) bool {
	if len(peers) == 0 {
		return true
	}
	return slices.ContainsFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool {
		if b := p.IPBlock; b != nil {
			return inCIDR(b.CIDR, ip) && !slices.ContainsFunc(b.Except, func(x string) bool { return inCIDR(x, ip) })
		}
		if remote == nil || remote.Spec.HostNetwork {
			return false
		}
		if p.NamespaceSelector == nil {
			return remote.Namespace == ns && matches(p.PodSelector, remote.Labels)
		}
		return matches(p.NamespaceSelector, n.namespaceLabels(remote.Namespace)) &&
			(p.PodSelector == nil || matches(p.PodSelector, remote.Labels))
	})
}

func (n naive) namespaceLabels(name string) map[string]string {
	out := map[string]string{"kubernetes.io/metadata.name": name}
	for _, ns := range n.Namespaces {
		if ns.Name == name {
			for k, v := range ns.Labels {
				out[k] = v
			}
		}
	}
	return out
}

func portListed(ports []networkingv1.NetworkPolicyPort, dst *corev1.Pod, proto corev1.Protocol, port int32) bool {
	if len(ports) == 0 {
		return true
	}
	return slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		want := corev1.ProtocolTCP
		if p.Protocol != nil {
			want = *p.Protocol
		}
		switch {
		case want != proto:
			return false
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			return dst != nil && !dst.Spec.HostNetwork && slices.ContainsFunc(dst.Spec.Containers[0].Ports, func(cp corev1.ContainerPort) bool {
				return cp.Name == p.Port.StrVal && cp.Protocol == proto && cp.ContainerPort == port
			})
		case p.EndPort != nil:
			return p.Port.IntVal <= port && port <= *p.EndPort
		}
		return p.Port.IntVal == port
	})
}

func matches(sel *metav1.LabelSelector, set map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(sel)
	if err != nil {
		panic(err)
	}
	return s.Matches(labels.Set(set))
}

func inCIDR(cidr, ip string) bool {
	_, n, err := net.ParseCIDR(cidr)
	if err != nil {
		panic(err)
	}
	return strings.Contains(cidr, ":") == strings.Contains(ip, ":") && n.Contains(net.ParseIP(ip))
}
