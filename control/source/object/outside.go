package object

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/cilium"
	"github.com/sluice-net/sluice/control/store"
)

// Service converts a Service.
func Service(s *corev1.Service) (*store.Service, []policy.Rejection) {
	f := faults{kind: "Service", namespace: s.Namespace, name: s.Name}
	f.needName()
	out := &store.Service{Namespace: s.Namespace, Name: s.Name, Labels: s.Labels, Selector: s.Spec.Selector}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return out, f.list
	}
	add := func(field string, list ...string) {
		for _, a := range list {
			if a != "" && a != corev1.ClusterIPNone {
				out.Addrs = f.addAddr(out.Addrs, field, a)
			}
		}
	}
	add("spec.clusterIP", s.Spec.ClusterIP)
	add("spec.clusterIPs", s.Spec.ClusterIPs...)
	add("spec.externalIPs", s.Spec.ExternalIPs...)
	for _, in := range s.Status.LoadBalancer.Ingress {
		if in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP {
			add("status.loadBalancer.ingress", in.IP)
		}
	}
	slices.SortFunc(out.Addrs, netip.Addr.Compare)
	out.Addrs = slices.Compact(out.Addrs)
	for i, p := range s.Spec.Ports {
		proto := protocols[p.Protocol]
		if proto == 0 || p.Port < 1 || p.Port > 65535 || p.NodePort < 0 || p.NodePort > 65535 {
			f.reject(fmt.Sprintf("spec.ports[%d]", i), fmt.Sprintf("Invalid value: %s %d: not a port", p.Protocol, p.Port), "without this port")
			continue
		}
		out.Exposed = append(out.Exposed, store.ServicePort{NodePort: uint16(p.NodePort),
			NamedPort: store.NamedPort{Name: p.Name, Protocol: proto, Port: uint16(p.Port)}})
		out.Ports = append(out.Ports, targetPort(p))
	}
	return out, f.list
}

// targetPort returns where a port of a Service leads to on a pod.
func targetPort(p corev1.ServicePort) store.TargetPort {
	t := store.TargetPort{Protocol: protocols[p.Protocol], Name: p.TargetPort.StrVal}
	switch number := p.TargetPort.IntVal; {
	case p.TargetPort.Type == intstr.String:
	case number > 0 && number <= 65535:
		t.Port = uint16(number)
	default:
		t.Port = uint16(p.Port)
	}
	return t
}

// EndpointSlice converts an EndpointSlice, with the endpoints that are said not
// to be ready set apart, and those of them that serve until they end.
func EndpointSlice(s *discoveryv1.EndpointSlice) (*store.EndpointSlice, []policy.Rejection) {
	f := faults{kind: "EndpointSlice", namespace: s.Namespace, name: s.Name}
	f.needName()
	out := &store.EndpointSlice{Namespace: s.Namespace, Name: s.Name, Service: s.Labels[discoveryv1.LabelServiceName]}
	for i, e := range s.Endpoints {
		at := &out.Addrs
		if e.Conditions.Ready != nil && !*e.Conditions.Ready {
			at = &out.NotReady
			if e.Conditions.Serving != nil && *e.Conditions.Serving {
				at = &out.Draining
			}
		}
		if s.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		for k, a := range e.Addresses {
			*at = f.addAddr(*at, fmt.Sprintf("endpoints[%d].addresses[%d]", i, k), a)
		}
	}
	slices.SortFunc(out.Addrs, netip.Addr.Compare)
	slices.SortFunc(out.Draining, netip.Addr.Compare)
	slices.SortFunc(out.NotReady, netip.Addr.Compare)
	for i, p := range s.Ports {
		proto := protocols[""]
		if p.Protocol != nil {
			proto = protocols[*p.Protocol]
		}
		if p.Port == nil { // all ports
			continue
		}
		if proto == 0 || *p.Port < 1 || *p.Port > 65535 {
			f.reject(fmt.Sprintf("ports[%d]", i), fmt.Sprintf("Invalid value: %d: not a port", *p.Port), "without this port")
			continue
		}
		port := store.NamedPort{Protocol: proto, Port: uint16(*p.Port)}
		if p.Name != nil {
			port.Name = *p.Name
		}
		out.Ports = append(out.Ports, port)
	}
	return out, f.list
}

// Group converts a CiliumCIDRGroup.
func Group(g *cilium.CIDRGroup) (*store.Group, []policy.Rejection) {
	f := faults{kind: cilium.GroupKind, name: g.Name}
	f.needName()
	cidrs, rejections := g.CIDRs()
	return &store.Group{Name: g.Name, Labels: g.Labels, CIDRs: cidrs}, append(f.list, rejections...)
}
