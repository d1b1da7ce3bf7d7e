package object

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/networkpolicy"
	"github.com/sluice-net/sluice/control/store"
)

// AddressAnnotation on a Pod or Node gives it addresses, comma-separated,
// beside those of its status. In a cluster it does so on Nodes only.
const AddressAnnotation = "sluice.dev/ips"

// Namespace converts a Namespace.
func Namespace(ns *corev1.Namespace) (*store.Namespace, []policy.Rejection) {
	f := faults{kind: "Namespace", name: ns.Name}
	f.needName()
	return &store.Namespace{Name: ns.Name, Labels: ns.Labels,
		Audit: ns.Annotations[networkpolicy.AuditAnnotation] == "true"}, f.list
}

// Node converts a Node.
func Node(n *corev1.Node) (*store.Node, []policy.Rejection) {
	f := faults{kind: "Node", name: n.Name}
	f.needName()
	node := &store.Node{Name: n.Name, Labels: n.Labels}
	for i, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP {
			node.Addrs = f.addAddr(node.Addrs, fmt.Sprintf("status.addresses[%d].address", i), a.Address)
		}
	}
	node.Addrs = f.addAnnotated(node.Addrs, n.Annotations)
	return node, f.list
}

// Pod converts a Pod.
func Pod(p *corev1.Pod) (*store.Pod, []policy.Rejection) {
	f := faults{kind: "Pod", namespace: p.Namespace, name: p.Name}
	f.needName()
	pod := &store.Pod{
		Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Labels: p.Labels,
		ServiceAccount: p.Spec.ServiceAccountName, NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork,
		Workload: workload(&p.ObjectMeta),
	}
	if pod.ServiceAccount == "" {
		pod.ServiceAccount = "default"
	}
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		pod.Phase = store.Finished
	}
	if p.Status.PodIP != "" {
		pod.IPs = f.addAddr(pod.IPs, "status.podIP", p.Status.PodIP)
	}
	for i := range p.Status.PodIPs {
		pod.IPs = f.addAddr(pod.IPs, fmt.Sprintf("status.podIPs[%d].ip", i), p.Status.PodIPs[i].IP)
	}
	pod.IPs = f.addAnnotated(pod.IPs, p.Annotations)
	if p.Spec.HostNetwork && len(pod.IPs) == 0 { // they will be the same
		if p.Status.HostIP != "" {
			pod.IPs = f.addAddr(pod.IPs, "status.hostIP", p.Status.HostIP)
		}
		for i := range p.Status.HostIPs {
			pod.IPs = f.addAddr(pod.IPs, fmt.Sprintf("status.hostIPs[%d].ip", i), p.Status.HostIPs[i].IP)
		}
	}
	for i := range p.Spec.InitContainers {
		// Only a sidecar lives long enough to be talked to.
		if c := &p.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			pod.Ports = f.addPorts(pod.Ports, fmt.Sprintf("spec.initContainers[%d]", i), c.Ports)
		}
	}
	for i := range p.Spec.Containers {
		pod.Ports = f.addPorts(pod.Ports, fmt.Sprintf("spec.containers[%d]", i), p.Spec.Containers[i].Ports)
	}
	return pod, f.list
}

// faults collects what of one object doesn't hold as written.
type faults struct {
	kind, namespace, name string
	list                  []policy.Rejection
}

func (f *faults) reject(field, reason, effect string) {
	o := policy.Origin{Kind: f.kind, Namespace: f.namespace, Name: f.name}
	f.list = append(f.list, policy.Rejection{Object: o.String(), Field: field, Reason: reason, Effect: effect})
}

func (f *faults) needName() {
	if f.name == "" {
		f.reject("metadata.name", "Required value: name or generateName is required", "kept under an empty name")
	}
}

func (f *faults) addAnnotated(addrs []netip.Addr, annotations map[string]string) []netip.Addr {
	for s := range strings.SplitSeq(annotations[AddressAnnotation], ",") {
		if s = strings.TrimSpace(s); s != "" {
			addrs = f.addAddr(addrs, "metadata.annotations["+AddressAnnotation+"]", s)
		}
	}
	return addrs
}

func (f *faults) addAddr(addrs []netip.Addr, field, s string) []netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		f.reject(field, fmt.Sprintf("Invalid value: %q: must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)", s),
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

func (f *faults) addPorts(out []store.NamedPort, field string, ports []corev1.ContainerPort) []store.NamedPort {
	for i, p := range ports {
		if p.Name == "" {
			continue
		}
		proto, known := protocols[p.Protocol]
		if !known || p.ContainerPort < 1 || p.ContainerPort > 65535 {
			f.reject(fmt.Sprintf("%s.ports[%d]", field, i),
				fmt.Sprintf("Invalid value: %d/%s: not a port", p.ContainerPort, p.Protocol), "without this named port")
			continue
		}
		out = append(out, store.NamedPort{Name: p.Name, Protocol: proto, Port: uint16(p.ContainerPort)})
	}
	return out
}
