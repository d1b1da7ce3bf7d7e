// Package adminnetworkpolicy turns AdminNetworkPolicy and
// BaselineAdminNetworkPolicy of policy.networking.k8s.io/v1alpha1,
// experimental fields included, into the policy model.
package adminnetworkpolicy

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/network-policy-api/apis/v1alpha1"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/clusterrule"
)

// The Origin.Kinds of what Convert and ConvertBaseline return.
const (
	Kind         = "AdminNetworkPolicy"
	BaselineKind = "BaselineAdminNetworkPolicy"
)

var spec = field.NewPath("spec")

// limits are the CRDs'.
var limits = clusterrule.Limits{Rules: 100, Peers: 100, Ports: 100, Values: 25}

// Absent returns a fault for each field that an AdminNetworkPolicy in JSON has
// to have, and that Convert can't miss.
func Absent(doc []byte) field.ErrorList {
	return clusterrule.Absent(doc, []string{"priority"}, []string{"namespaceSelector", "podSelector"})
}

// AbsentBaseline is Absent for a BaselineAdminNetworkPolicy.
func AbsentBaseline(doc []byte) field.ErrorList {
	return clusterrule.Absent(doc, nil, []string{"namespaceSelector", "podSelector"})
}

// Convert returns the model of anp, and what of it doesn't hold as written.
// known are faults that who read anp has found.
func Convert(anp *v1alpha1.AdminNetworkPolicy, known ...*field.Error) (*policy.Policy, []policy.Rejection) {
	p := &clusterrule.Policy{
		Origin: policy.Origin{Kind: Kind, Name: anp.Name}, Tier: policy.TierAdmin, Priority: anp.Spec.Priority,
		Audit:   anp.Annotations[clusterrule.AuditAnnotation] == "true",
		Subject: peer(anp.Spec.Subject.Namespaces, anp.Spec.Subject.Pods),
		Limits:  limits, Faults: known,
	}
	for i, r := range anp.Spec.Ingress {
		p.Ingress = append(p.Ingress, ingress(i, r.Name, string(r.Action), true, r.From, r.Ports))
	}
	for i, r := range anp.Spec.Egress {
		out := rule("egress", "to", i, r.Name, string(r.Action), true, r.Ports)
		for _, x := range r.To {
			out.Peers = append(out.Peers, egressPeer(x))
		}
		p.Egress = append(p.Egress, out)
	}
	return clusterrule.Build(p)
}

// ConvertBaseline is Convert for a BaselineAdminNetworkPolicy.
func ConvertBaseline(banp *v1alpha1.BaselineAdminNetworkPolicy, known ...*field.Error) (*policy.Policy, []policy.Rejection) {
	p := &clusterrule.Policy{
		Origin: policy.Origin{Kind: BaselineKind, Name: banp.Name}, Tier: policy.TierBaseline,
		Audit:   banp.Annotations[clusterrule.AuditAnnotation] == "true",
		Subject: peer(banp.Spec.Subject.Namespaces, banp.Spec.Subject.Pods),
		Limits:  limits, Faults: known,
	}
	if banp.Name != "default" {
		p.Faults = append(p.Faults, field.Invalid(field.NewPath("metadata", "name"), banp.Name,
			`Only one baseline admin network policy with metadata.name="default" can be created in the cluster`))
	}
	for i, r := range banp.Spec.Ingress {
		p.Ingress = append(p.Ingress, ingress(i, r.Name, string(r.Action), false, r.From, r.Ports))
	}
	for i, r := range banp.Spec.Egress {
		out := rule("egress", "to", i, r.Name, string(r.Action), false, r.Ports)
		for _, x := range r.To {
			out.Peers = append(out.Peers, egressPeer(v1alpha1.AdminNetworkPolicyEgressPeer{
				Namespaces: x.Namespaces, Pods: x.Pods, Nodes: x.Nodes, Networks: x.Networks}))
		}
		p.Egress = append(p.Egress, out)
	}
	return clusterrule.Build(p)
}

func ingress(i int, name, action string, mayPass bool, from []v1alpha1.AdminNetworkPolicyIngressPeer, ports *[]v1alpha1.AdminNetworkPolicyPort) clusterrule.Rule {
	out := rule("ingress", "from", i, name, action, mayPass, ports)
	for _, x := range from {
		out.Peers = append(out.Peers, peer(x.Namespaces, x.Pods))
	}
	return out
}

func rule(section, peers string, i int, name, action string, mayPass bool, ports *[]v1alpha1.AdminNetworkPolicyPort) clusterrule.Rule {
	at := spec.Child(section).Index(i)
	out := clusterrule.Rule{At: at, Name: name, PeersAt: at.Child(peers), Action: policy.Deny, Said: action, PortsAt: at.Child("ports")}
	switch {
	case action == string(v1alpha1.AdminNetworkPolicyRuleActionAllow):
		out.Action = policy.Allow
	case action == string(v1alpha1.AdminNetworkPolicyRuleActionPass) && mayPass:
		out.Action = policy.Pass
	case action != string(v1alpha1.AdminNetworkPolicyRuleActionDeny):
		out.Unknown = true
	}
	if ports != nil {
		out.NoPorts = len(*ports) == 0
		for j := range *ports {
			out.Ports = append(out.Ports, port(&(*ports)[j], at.Child("ports").Index(j)))
		}
	}
	return out
}

var protocols = map[corev1.Protocol]policy.Protocol{
	"": policy.TCP, corev1.ProtocolTCP: policy.TCP, corev1.ProtocolUDP: policy.UDP, corev1.ProtocolSCTP: policy.SCTP,
}

// port converts a port; one of a protocol that is not known is itself unknown.
func port(p *v1alpha1.AdminNetworkPolicyPort, at *field.Path) clusterrule.Port {
	kinds := 0
	for _, set := range []bool{p.PortNumber != nil, p.PortRange != nil, p.NamedPort != nil} {
		if set {
			kinds++
		}
	}
	switch {
	case kinds > 1:
		return clusterrule.Port{At: at, Fault: field.Forbidden(at, "may not specify more than one kind of port")}
	case p.PortNumber != nil:
		proto, known := protocols[p.PortNumber.Protocol]
		return clusterrule.Port{At: at.Child("portNumber"), Known: known, Protocol: proto, From: p.PortNumber.Port, To: p.PortNumber.Port}
	case p.PortRange != nil:
		proto, known := protocols[p.PortRange.Protocol]
		return clusterrule.Port{At: at.Child("portRange"), Known: known, Protocol: proto, From: p.PortRange.Start, To: p.PortRange.End}
	case p.NamedPort != nil:
		return clusterrule.Port{At: at.Child("namedPort"), Known: *p.NamedPort != "", Name: *p.NamedPort}
	}
	return clusterrule.Port{At: at}
}

func peer(namespaces *metav1.LabelSelector, pods *v1alpha1.NamespacedPod) clusterrule.Peer {
	p := clusterrule.Peer{Namespaces: namespaces}
	if pods != nil {
		p.PodNamespaces, p.Pods = &pods.NamespaceSelector, &pods.PodSelector
	}
	return p
}

func egressPeer(x v1alpha1.AdminNetworkPolicyEgressPeer) clusterrule.Peer {
	p := peer(x.Namespaces, x.Pods)
	p.Nodes = x.Nodes
	for _, s := range x.Networks {
		p.Networks = append(p.Networks, string(s))
	}
	for _, s := range x.DomainNames {
		p.Domains = append(p.Domains, string(s))
	}
	return p
}
