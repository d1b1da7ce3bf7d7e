package networkpolicy

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sluice-net/sluice/control/policy/labelselector"
)

var knownTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress, networkingv1.PolicyTypeIngress}

// validate reports every fault, with the API server's paths and words.
func validate(np *networkingv1.NetworkPolicy) field.ErrorList {
	var faults field.ErrorList
	meta := field.NewPath("metadata")
	if np.Name == "" {
		faults = append(faults, field.Required(meta.Child("name"), "name or generateName is required"))
	} else {
		for _, msg := range validation.IsDNS1123Subdomain(np.Name) {
			faults = append(faults, field.Invalid(meta.Child("name"), np.Name, msg))
		}
	}
	if np.Namespace != "" {
		for _, msg := range validation.IsDNS1123Label(np.Namespace) {
			faults = append(faults, field.Invalid(meta.Child("namespace"), np.Namespace, msg))
		}
	}
	spec := field.NewPath("spec")
	faults = append(faults, labelselector.Validate(&np.Spec.PodSelector, spec.Child("podSelector"))...)
	for i := range np.Spec.Ingress {
		at, r := spec.Child("ingress").Index(i), &np.Spec.Ingress[i]
		faults = append(faults, validatePorts(r.Ports, at.Child("ports"))...)
		faults = append(faults, validatePeers(r.From, at.Child("from"))...)
	}
	for i := range np.Spec.Egress {
		at, r := spec.Child("egress").Index(i), &np.Spec.Egress[i]
		faults = append(faults, validatePorts(r.Ports, at.Child("ports"))...)
		faults = append(faults, validatePeers(r.To, at.Child("to"))...)
	}
	types := spec.Child("policyTypes")
	if len(np.Spec.PolicyTypes) > len(knownTypes) {
		return append(faults, field.Invalid(types, np.Spec.PolicyTypes, "may not specify more than two policyTypes"))
	}
	for _, t := range np.Spec.PolicyTypes {
		if !slices.Contains(knownTypes, t) {
			faults = append(faults, field.NotSupported(types, t, knownTypes))
		}
	}
	return faults
}

func validatePorts(ports []networkingv1.NetworkPolicyPort, at *field.Path) field.ErrorList {
	var faults field.ErrorList
	for i := range ports {
		faults = append(faults, validatePort(&ports[i], at.Index(i))...)
	}
	return faults
}

func validatePort(p *networkingv1.NetworkPolicyPort, at *field.Path) field.ErrorList {
	var faults field.ErrorList
	if p.Protocol != nil {
		if _, ok := protocols[*p.Protocol]; !ok {
			faults = append(faults, field.NotSupported(at.Child("protocol"), *p.Protocol,
				[]corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}))
		}
	}
	end := at.Child("endPort")
	if p.Port == nil {
		if p.EndPort != nil {
			faults = append(faults, field.Invalid(end, *p.EndPort, "may not be specified when `port` is not specified"))
		}
		return faults
	}
	if p.Port.Type == intstr.String {
		if p.EndPort != nil {
			faults = append(faults, field.Invalid(end, *p.EndPort, "may not be specified when `port` is non-numeric"))
		}
		for _, msg := range validation.IsValidPortName(p.Port.StrVal) {
			faults = append(faults, field.Invalid(at.Child("port"), p.Port.StrVal, msg))
		}
		return faults
	}
	for _, msg := range validation.IsValidPortNum(int(p.Port.IntVal)) {
		faults = append(faults, field.Invalid(at.Child("port"), p.Port.IntVal, msg))
	}
	if p.EndPort == nil {
		return faults
	}
	if *p.EndPort < p.Port.IntVal {
		faults = append(faults, field.Invalid(end, *p.EndPort, "must be greater than or equal to `port`"))
	}
	for _, msg := range validation.IsValidPortNum(int(*p.EndPort)) {
		faults = append(faults, field.Invalid(end, *p.EndPort, msg))
	}
	return faults
}

func validatePeers(peers []networkingv1.NetworkPolicyPeer, at *field.Path) field.ErrorList {
	var faults field.ErrorList
	for i := range peers {
		faults = append(faults, validatePeer(&peers[i], at.Index(i))...)
	}
	return faults
}

func validatePeer(p *networkingv1.NetworkPolicyPeer, at *field.Path) field.ErrorList {
	var faults field.ErrorList
	n := 0
	if p.PodSelector != nil {
		n++
		faults = append(faults, labelselector.Validate(p.PodSelector, at.Child("podSelector"))...)
	}
	if p.NamespaceSelector != nil {
		n++
		faults = append(faults, labelselector.Validate(p.NamespaceSelector, at.Child("namespaceSelector"))...)
	}
	if p.IPBlock != nil {
		n++
		faults = append(faults, validateBlock(p.IPBlock, at.Child("ipBlock"))...)
	}
	switch {
	case n == 0:
		faults = append(faults, field.Required(at, "must specify a peer"))
	case n > 1 && p.IPBlock != nil:
		faults = append(faults, field.Forbidden(at, "may not specify both ipBlock and another peer"))
	}
	return faults
}

func validateBlock(b *networkingv1.IPBlock, at *field.Path) field.ErrorList {
	if b.CIDR == "" {
		return field.ErrorList{field.Required(at.Child("cidr"), "")}
	}
	outer, faults := validatePrefix(b.CIDR, at.Child("cidr"))
	for i, x := range b.Except {
		xAt := at.Child("except").Index(i)
		inner, f := validatePrefix(x, xAt)
		faults = append(faults, f...)
		if len(f) > 0 || !outer.IsValid() {
			continue
		}
		if !outer.Contains(inner.Addr()) || outer.Bits() >= inner.Bits() {
			faults = append(faults, field.Invalid(xAt, x, "must be a strict subset of `cidr`"))
		}
	}
	return faults
}

// validatePrefix takes what can mean one thing only: bits beyond the prefix
// length are let pass, as the API server does for stored objects.
func validatePrefix(s string, at *field.Path) (netip.Prefix, field.ErrorList) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, field.ErrorList{field.Invalid(at, s,
			"must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")}
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, field.ErrorList{field.Invalid(at, s, "must not have an IPv4-mapped IPv6 address")}
	}
	return p.Masked(), nil
}
