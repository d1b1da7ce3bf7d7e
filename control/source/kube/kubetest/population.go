package kubetest

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Population makes the objects of a cluster: pods of some apps in each of some
// namespaces, and policies that name them. Object i is the same each time, but
// for its variant.
type Population struct {
	Namespaces, Apps int
	PodsPerNode      int
	Node             string // of the pods whose number divides by Local
	Local            int    // 0: no pod is on Node
}

func (p *Population) ns(i int) string { return fmt.Sprintf("ns-%d", i%p.Namespaces) }

// Namespace makes a namespace.
func (p *Population) Namespace(i, variant int) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: p.ns(i),
		Labels: map[string]string{"kubernetes.io/metadata.name": p.ns(i), "team": fmt.Sprintf("team-%d", (i+variant)%7)}}}
}

// IsLocal reports whether a pod is on Node.
func (p *Population) IsLocal(i int) bool { return p.Local > 0 && i%p.Local == 0 }

// Addrs are a pod's addresses.
func (p *Population) Addrs(i int) [2]netip.Addr {
	host, at := i/p.PodsPerNode, byte(2+i%p.PodsPerNode)
	return [2]netip.Addr{netip.AddrFrom4([4]byte{10, 128 + byte(host>>8), byte(host), at}),
		netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x80, 5: 1, 6: byte(host >> 8), 7: byte(host), 15: at})}
}

// Pod makes a pod as a Deployment's controller, the scheduler and a kubelet would
// leave it: with all that an agent has no use for.
func (p *Population) Pod(i, variant int) *corev1.Pod {
	app := fmt.Sprintf("app-%d", i/p.Namespaces%p.Apps)
	node := fmt.Sprintf("node-%d", i/p.PodsPerNode)
	if p.IsLocal(i) {
		node = p.Node
	}
	addrs := p.Addrs(i)
	// Three versions of each app, as Deployments that are being rolled out leave.
	version := (i/p.Namespaces/p.Apps + variant) % 3
	set := fmt.Sprintf("%s-6f7c9b%04x", app, version)
	name := fmt.Sprintf("%s-%d", app, i)
	yes := true
	env := make([]corev1.EnvVar, 8)
	for k := range env {
		env[k] = corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", k), Value: "a value of some length that nobody here reads"}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: p.ns(i), UID: types.UID(fmt.Sprintf("%08x-0000-4000-8000-%012x", i, variant)),
			Labels:          map[string]string{"app": app, "version": fmt.Sprintf("v%d", version), "pod-template-hash": fmt.Sprintf("6f7c9b%04x", version)},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: set, Controller: &yes}}},
		Spec: corev1.PodSpec{NodeName: node, ServiceAccountName: "default",
			Containers: []corev1.Container{{Name: app, Image: "registry.example.org/team/" + app + ":1.2.3", Env: env,
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: addrs[0].String(), PodIPs: []corev1.PodIP{{IP: addrs[0].String()}, {IP: addrs[1].String()}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}, {Type: corev1.PodInitialized, Status: corev1.ConditionTrue}}},
	}
}

// Policy makes a NetworkPolicy: in from two apps, one of them of another
// namespace, and from a block; every third one out to an app's port by its name.
func (p *Population) Policy(i, variant int) *networkingv1.NetworkPolicy {
	app := func(n int) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("app-%d", n%p.Apps)}}
	}
	other := &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": p.ns(i * 7)}}
	if i%4 == 0 {
		other = &metav1.LabelSelector{MatchLabels: map[string]string{"team": fmt.Sprintf("team-%d", i%7)}}
	}
	http, sql := intstr.FromString("http"), intstr.FromInt32(5432)
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: p.ns(i), Name: fmt.Sprintf("np-%d", i), Generation: int64(variant + 1)}}
	np.Spec.PodSelector = *app(i / p.Namespaces)
	np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{
		{From: []networkingv1.NetworkPolicyPeer{{PodSelector: app(i + 1 + variant)}, {PodSelector: app(i + 3), NamespaceSelector: other}}, Ports: []networkingv1.NetworkPolicyPort{{Port: &http}, {Port: &sql}}},
		{From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("172.%d.%d.0/24", 16+i>>8%16, (i+variant%2)%256)}}}},
	}
	if i%3 == 0 {
		np.Spec.PolicyTypes = append(np.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		np.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{
			{To: []networkingv1.NetworkPolicyPeer{{PodSelector: app(i + 2)}}, Ports: []networkingv1.NetworkPolicyPort{{Port: &http}}}}
	}
	return np
}

// Service makes a Service of an app of a namespace, and EndpointSlice its
// endpoints: pods, of which the variant leaves one out.
func (p *Population) Service(i int) *corev1.Service {
	ip := fmt.Sprintf("10.96.%d.%d", 1+i>>8, i%256)
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: p.ns(i), Name: fmt.Sprintf("svc-%d", i)},
		Spec: corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Selector: map[string]string{"app": fmt.Sprintf("app-%d", i/p.Namespaces%p.Apps)},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromString("http")}}}}
}

// EndpointSlice makes the endpoints of Service i: the first of its pods, of which
// the variant leaves one out.
func (p *Population) EndpointSlice(i, variant int) *discoveryv1.EndpointSlice {
	name, proto, port, ready := "http", corev1.ProtocolTCP, int32(8080), true
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: p.ns(i), Name: fmt.Sprintf("svc-%d-v4", i),
		Labels: map[string]string{discoveryv1.LabelServiceName: fmt.Sprintf("svc-%d", i)}}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: &name, Protocol: &proto, Port: &port}}}
	for k := range 5 {
		if k == variant%5 {
			continue
		}
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{p.Addrs(i + k*p.Namespaces*p.Apps)[0].String()},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
	}
	return s
}
