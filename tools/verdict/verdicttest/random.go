// Package verdicttest makes random clusters for tests: small ones, in which
// everything overlaps, as the API objects that users write.
package verdicttest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Cluster is what a cluster's users wrote.
type Cluster struct {
	Namespaces []*corev1.Namespace
	Nodes      []*corev1.Node
	Pods       []*corev1.Pod
	Policies   []*networkingv1.NetworkPolicy
}

// What clusters are made of.
var (
	Protocols = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
	Ports     = []int32{53, 80, 81, 8080, 65535}
	Outside   = []string{"192.0.2.1", "198.51.100.9", "2001:db8::1", "10.0.0.200", "fd00::200"}

	namespaces = []string{"a", "b", "c"}
	keys       = []string{"app", "tier"}
	values     = []string{"x", "y"}
	names      = []string{"http", "dns"}
	cidrs      = []string{"0.0.0.0/0", "10.0.0.0/24", "10.0.0.0/29", "192.168.0.0/16", "198.51.100.0/24",
		"::/0", "fd00::/120", "fd00::/125", "2001:db8::/32"}
)

// Random returns a cluster of up to a dozen pods. Pod i has addresses of its
// own, so that no packet is ambiguous.
func Random(r *rand.Rand) *Cluster {
	c := &Cluster{}
	for _, name := range namespaces {
		if r.IntN(4) > 0 { // else it is there by its pods only
			c.Namespaces = append(c.Namespaces, &corev1.Namespace{
				TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
				ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels(r)}})
		}
	}
	for i, name := range []string{"n1", "n2"} {
		n := &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: name}}
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.168.0.%d", i+1)}}
		c.Nodes = append(c.Nodes, n)
	}
	for i := range 3 + r.IntN(8) {
		c.Pods = append(c.Pods, pod(r, i))
	}
	for i := range 1 + r.IntN(6) {
		c.Policies = append(c.Policies, RandomPolicy(r, fmt.Sprintf("np%d", i)))
	}
	return c
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func labels(r *rand.Rand) map[string]string {
	out := map[string]string{}
	for _, k := range keys {
		if r.IntN(4) > 0 {
			out[k] = pick(r, values)
		}
	}
	return out
}

func pod(r *rand.Rand, i int) *corev1.Pod {
	p := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: pick(r, namespaces), Name: fmt.Sprintf("p%d", i), Labels: labels(r)}}
	p.Spec.NodeName = pick(r, []string{"n1", "n2", ""})
	four, six := corev1.PodIP{IP: fmt.Sprintf("10.0.0.%d", i+1)}, corev1.PodIP{IP: fmt.Sprintf("fd00::%x", i+1)}
	switch {
	case r.IntN(10) == 0:
		p.Spec.HostNetwork = true
		p.Status.PodIPs = []corev1.PodIP{{IP: "192.168.0.3"}}
		if p.Spec.NodeName != "" {
			p.Status.PodIPs[0].IP = "192.168.0." + p.Spec.NodeName[1:]
		}
	default:
		p.Status.PodIPs = pick(r, [][]corev1.PodIP{{four}, {six}, {four, six}, {six, four}, {four, six}})
	}
	var ct corev1.Container
	for range r.IntN(3) {
		ct.Ports = append(ct.Ports, corev1.ContainerPort{Name: pick(r, names), ContainerPort: pick(r, Ports), Protocol: pick(r, Protocols)})
	}
	p.Spec.Containers = []corev1.Container{ct}
	return p
}

// RandomPolicy returns a valid policy.
func RandomPolicy(r *rand.Rand, name string) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{Namespace: pick(r, namespaces), Name: name}}
	if r.IntN(8) == 0 {
		np.Annotations = map[string]string{"sluice.dev/audit": "true"}
	}
	np.Spec.PodSelector = selector(r)
	np.Spec.PolicyTypes = pick(r, [][]networkingv1.PolicyType{nil, {"Ingress"}, {"Egress"}, {"Ingress", "Egress"}})
	for range r.IntN(4) {
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: peers(r), Ports: ports(r)})
	}
	for range r.IntN(4) {
		np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: peers(r), Ports: ports(r)})
	}
	return np
}

func selector(r *rand.Rand) metav1.LabelSelector {
	var s metav1.LabelSelector
	if r.IntN(2) == 0 {
		s.MatchLabels = map[string]string{pick(r, keys): pick(r, values)}
	}
	if r.IntN(3) == 0 {
		s.MatchExpressions = []metav1.LabelSelectorRequirement{pick(r, []metav1.LabelSelectorRequirement{
			{Key: pick(r, keys), Operator: metav1.LabelSelectorOpIn, Values: values},
			{Key: pick(r, keys), Operator: metav1.LabelSelectorOpNotIn, Values: values[:1]},
			{Key: pick(r, keys), Operator: metav1.LabelSelectorOpExists},
			{Key: pick(r, keys), Operator: metav1.LabelSelectorOpDoesNotExist},
		})}
	}
	return s
}

func peers(r *rand.Rand) (out []networkingv1.NetworkPolicyPeer) {
	for range r.IntN(3) {
		var p networkingv1.NetworkPolicyPeer
		pods, spaces := selector(r), selector(r)
		switch r.IntN(4) {
		case 0:
			p.IPBlock = &networkingv1.IPBlock{CIDR: pick(r, cidrs)}
			switch {
			case r.IntN(2) == 0:
			case p.IPBlock.CIDR == "0.0.0.0/0":
				p.IPBlock.Except = []string{"10.0.0.4/30"}
			case p.IPBlock.CIDR == "::/0":
				p.IPBlock.Except = []string{"fd00::4/126", "2001:db8::/64"}
			}
		case 1:
			p.PodSelector = &pods
		case 2:
			p.NamespaceSelector = &spaces
		case 3:
			p.PodSelector, p.NamespaceSelector = &pods, &spaces
		}
		out = append(out, p)
	}
	return out
}

func ports(r *rand.Rand) (out []networkingv1.NetworkPolicyPort) {
	for range r.IntN(3) {
		var p networkingv1.NetworkPolicyPort
		if proto := pick(r, Protocols); r.IntN(3) > 0 {
			p.Protocol = &proto
		}
		from, to := pick(r, Ports), pick(r, Ports)
		from, to = min(from, to), max(from, to)
		number, name := intstr.FromInt32(from), intstr.FromString(pick(r, names))
		switch r.IntN(4) {
		case 0:
			p.Port = &name
		case 1:
			p.Port = &number
		case 2:
			p.Port, p.EndPort = &number, &to
		}
		out = append(out, p)
	}
	return out
}

// Write writes the cluster as manifests into a folder and returns the path.
func (c *Cluster) Write(dir string) (string, error) {
	list := map[string]any{"apiVersion": "v1", "kind": "List"}
	items := []any{}
	for _, n := range c.Namespaces {
		items = append(items, n)
	}
	for _, n := range c.Nodes {
		items = append(items, n)
	}
	for _, p := range c.Pods {
		items = append(items, p)
	}
	for _, p := range c.Policies {
		items = append(items, p)
	}
	list["items"] = items
	data, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "cluster.json")
	return path, os.WriteFile(path, data, 0o644)
}
