// Package clusternetworkpolicy turns ClusterNetworkPolicy of
// policy.networking.k8s.io/v1alpha2, experimental fields included, into the
// policy model.
package clusternetworkpolicy

import (
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/clusterrule"
)

// Kind is the Origin.Kind of what Convert returns.
const Kind = "ClusterNetworkPolicy"

// Convert returns the model of cnp, and what of it doesn't hold as written.
func Convert(cnp *v1alpha2.ClusterNetworkPolicy) (*policy.Policy, []policy.Rejection) {
	spec := field.NewPath("spec")
	p := &clusterrule.Policy{
		Origin: policy.Origin{Kind: Kind, Name: cnp.Name}, Tier: policy.TierAdmin, Priority: cnp.Spec.Priority,
		Audit:   cnp.Annotations[clusterrule.AuditAnnotation] == "true",
		Subject: peer(cnp.Spec.Subject.Namespaces, cnp.Spec.Subject.Pods),
	}
	switch cnp.Spec.Tier {
	case v1alpha2.AdminTier:
	case v1alpha2.BaselineTier:
		p.Tier = policy.TierBaseline
	default:
		p.Faults = append(p.Faults, field.NotSupported(spec.Child("tier"), cnp.Spec.Tier,
			[]v1alpha2.Tier{v1alpha2.AdminTier, v1alpha2.BaselineTier}))
	}
	for i, r := range cnp.Spec.Ingress {
		at := spec.Child("ingress").Index(i)
		out := clusterrule.Rule{At: at, PeersAt: at.Child("from"), Said: string(r.Action), Ports: ports(r.Protocols, at.Child("protocols"))}
		out.Action, out.Unknown = action(r.Action)
		for _, x := range r.From {
			out.Peers = append(out.Peers, peer(x.Namespaces, x.Pods))
		}
		p.Ingress = append(p.Ingress, out)
	}
	for i, r := range cnp.Spec.Egress {
		at := spec.Child("egress").Index(i)
		out := clusterrule.Rule{At: at, PeersAt: at.Child("to"), Said: string(r.Action), Ports: ports(r.Protocols, at.Child("protocols"))}
		out.Action, out.Unknown = action(r.Action)
		for _, x := range r.To {
			q := peer(x.Namespaces, x.Pods)
			q.Nodes = x.Nodes
			for _, s := range x.Networks {
				q.Networks = append(q.Networks, string(s))
			}
			for _, s := range x.DomainNames {
				q.Domains = append(q.Domains, string(s))
			}
			out.Peers = append(out.Peers, q)
		}
		p.Egress = append(p.Egress, out)
	}
	return clusterrule.Build(p)
}

func action(a v1alpha2.ClusterNetworkPolicyRuleAction) (_ policy.Action, unknown bool) {
	switch a {
	case v1alpha2.ClusterNetworkPolicyRuleActionAccept:
		return policy.Allow, false
	case v1alpha2.ClusterNetworkPolicyRuleActionPass:
		return policy.Pass, false
	}
	return policy.Deny, a != v1alpha2.ClusterNetworkPolicyRuleActionDeny
}

func ports(in []v1alpha2.ClusterNetworkPolicyProtocol, at *field.Path) []clusterrule.Port {
	var out []clusterrule.Port
	for i := range in {
		p, at := &in[i], at.Index(i)
		switch {
		case p.TCP != nil:
			out = append(out, port(policy.TCP, p.TCP.DestinationPort, at.Child("tcp", "destinationPort")))
		case p.UDP != nil:
			out = append(out, port(policy.UDP, p.UDP.DestinationPort, at.Child("udp", "destinationPort")))
		case p.SCTP != nil:
			out = append(out, port(policy.SCTP, p.SCTP.DestinationPort, at.Child("sctp", "destinationPort")))
		default:
			out = append(out, clusterrule.Port{At: at, Known: p.DestinationNamedPort != "", Name: p.DestinationNamedPort})
		}
	}
	return out
}

func port(proto policy.Protocol, p *v1alpha2.Port, at *field.Path) clusterrule.Port {
	switch {
	case p == nil:
		return clusterrule.Port{At: at, Protocol: proto}
	case p.Range != nil:
		return clusterrule.Port{At: at.Child("range"), Known: true, Protocol: proto, From: p.Range.Start, To: p.Range.End}
	}
	return clusterrule.Port{At: at.Child("number"), Known: true, Protocol: proto, From: p.Number, To: p.Number}
}
