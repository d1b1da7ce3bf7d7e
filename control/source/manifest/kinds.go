package manifest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/adminnetworkpolicy"
	"github.com/sluice-net/sluice/control/policy/clusternetworkpolicy"
	"github.com/sluice-net/sluice/control/policy/networkpolicy"
	"github.com/sluice-net/sluice/control/store"
)

// AddressAnnotation on a Pod or Node gives it addresses, comma-separated,
// beside those of its status.
const AddressAnnotation = "sluice.dev/ips"

// kinds are the kinds of objects that are read, by apiVersion and kind.
var kinds = map[string]kindOf{
	"v1 Namespace":                       read("Namespace", false, convertNamespace, nil),
	"v1 Node":                            read("Node", false, convertNode, nil),
	"v1 Pod":                             read("Pod", true, convertPod, nil),
	"v1 ServiceAccount":                  read("ServiceAccount", true, convertServiceAccount, nil),
	"networking.k8s.io/v1 NetworkPolicy": read("NetworkPolicy", true, converted(networkpolicy.Convert), networkpolicy.Salvage),

	"policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy":       read(clusternetworkpolicy.Kind, false, converted(clusternetworkpolicy.Convert), nil),
	"policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy":         read(adminnetworkpolicy.Kind, false, converted(adminnetworkpolicy.Convert), nil),
	"policy.networking.k8s.io/v1alpha1 BaselineAdminNetworkPolicy": read(adminnetworkpolicy.BaselineKind, false, converted(adminnetworkpolicy.ConvertBaseline), nil),
}

// converted adapts a front-end.
func converted[T any](convert func(T) (*policy.Policy, []policy.Rejection)) func(*file, object, T) any {
	return func(f *file, o object, obj T) any {
		p, rejections := convert(obj)
		for _, r := range rejections {
			r.Source = o.source
			f.rejections = append(f.rejections, r)
		}
		return p
	}
}

func convertNamespace(f *file, o object, ns *corev1.Namespace) any {
	f.needName(o)
	return &store.Namespace{Name: ns.Name, Labels: ns.Labels,
		Audit: ns.Annotations[networkpolicy.AuditAnnotation] == "true"}
}

// convertServiceAccount keeps nothing: pods name their account themselves.
func convertServiceAccount(f *file, o object, _ *corev1.ServiceAccount) any {
	f.needName(o)
	return nil
}

func convertNode(f *file, o object, n *corev1.Node) any {
	f.needName(o)
	node := &store.Node{Name: n.Name, Labels: n.Labels}
	for i, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP {
			node.Addrs = f.addAddr(node.Addrs, o, fmt.Sprintf("status.addresses[%d].address", i), a.Address)
		}
	}
	node.Addrs = f.addAnnotated(node.Addrs, o, n.Annotations)
	return node
}

func convertPod(f *file, o object, p *corev1.Pod) any {
	f.needName(o)
	pod := &store.Pod{
		Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Labels: p.Labels,
		ServiceAccount: p.Spec.ServiceAccountName, NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork,
	}
	if pod.ServiceAccount == "" {
		pod.ServiceAccount = "default"
	}
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		pod.Phase = store.Finished
	}
	if p.Status.PodIP != "" {
		pod.IPs = f.addAddr(pod.IPs, o, "status.podIP", p.Status.PodIP)
	}
	for i, ip := range p.Status.PodIPs {
		pod.IPs = f.addAddr(pod.IPs, o, fmt.Sprintf("status.podIPs[%d].ip", i), ip.IP)
	}
	pod.IPs = f.addAnnotated(pod.IPs, o, p.Annotations)
	for i := range p.Spec.InitContainers {
		// Only a sidecar lives long enough to be talked to.
		if c := &p.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			pod.Ports = f.addPorts(pod.Ports, o, fmt.Sprintf("spec.initContainers[%d]", i), c.Ports)
		}
	}
	for i := range p.Spec.Containers {
		pod.Ports = f.addPorts(pod.Ports, o, fmt.Sprintf("spec.containers[%d]", i), p.Spec.Containers[i].Ports)
	}
	return pod
}

func (f *file) needName(o object) {
	if o.origin.Name == "" {
		f.reject(o, "metadata.name", "Required value: name or generateName is required", "kept under an empty name")
	}
}

func (f *file) addAnnotated(addrs []netip.Addr, o object, annotations map[string]string) []netip.Addr {
	for s := range strings.SplitSeq(annotations[AddressAnnotation], ",") {
		if s = strings.TrimSpace(s); s != "" {
			addrs = f.addAddr(addrs, o, "metadata.annotations["+AddressAnnotation+"]", s)
		}
	}
	return addrs
}

func (f *file) addAddr(addrs []netip.Addr, o object, field, s string) []netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		f.reject(o, field, fmt.Sprintf("Invalid value: %q: must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)", s),
			"without this address")
		return addrs
	}
	if a = a.Unmap(); !slices.Contains(addrs, a) {
		addrs = append(addrs, a)
	}
	return addrs
}

var protocols = map[corev1.Protocol]policy.Protocol{
	"": policy.TCP, corev1.ProtocolTCP: policy.TCP, corev1.ProtocolUDP: policy.UDP, corev1.ProtocolSCTP: policy.SCTP,
}

func (f *file) addPorts(out []store.NamedPort, o object, field string, ports []corev1.ContainerPort) []store.NamedPort {
	for i, p := range ports {
		if p.Name == "" {
			continue
		}
		proto, known := protocols[p.Protocol]
		if !known || p.ContainerPort < 1 || p.ContainerPort > 65535 {
			f.reject(o, fmt.Sprintf("%s.ports[%d]", field, i),
				fmt.Sprintf("Invalid value: %d/%s: not a port", p.ContainerPort, p.Protocol), "without this named port")
			continue
		}
		out = append(out, store.NamedPort{Name: p.Name, Protocol: proto, Port: uint16(p.ContainerPort)})
	}
	return out
}
