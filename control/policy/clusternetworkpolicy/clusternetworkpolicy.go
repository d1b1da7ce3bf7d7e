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

// limits are the CRD's.
var limits = clusterrule.Limits{Rules: 25, Peers: 25, Ports: 25, Values: 25}

// Absent returns a fault for each field that a policy in JSON has to have, and
// that Convert can't miss.
func Absent(doc []byte) field.ErrorList {
	return clusterrule.Absent(doc, []string{"priority"}, []string{"podSelector"})
}

// Convert returns the model of cnp, and what of it doesn't hold as written.
// known are faults that who read cnp has found.
func Convert(cnp *v1alpha2.ClusterNetworkPolicy, known ...*field.Error) (*policy.Policy, []policy.Rejection) {
	spec := field.NewPath("spec")
	p := &clusterrule.Policy{
		Origin: policy.Origin{Kind: Kind, Name: cnp.Name}, Tier: policy.TierAdmin, Priority: cnp.Spec.Priority,
		Audit:   cnp.Annotations[clusterrule.AuditAnnotation] == "true",
		Subject: peer(cnp.Spec.Subject.Namespaces, cnp.Spec.Subject.Pods),
		Limits:  limits, Faults: known,
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
		out := rule(at, "from", r.Name, r.Action, r.Protocols)
		for _, x := range r.From {
			out.Peers = append(out.Peers, peer(x.Namespaces, x.Pods))
		}
		p.Ingress = append(p.Ingress, out)
	}
	for i, r := range cnp.Spec.Egress {
		at := spec.Child("egress").Index(i)
		out := rule(at, "to", r.Name, r.Action, r.Protocols)
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

// rule converts all of a rule but its peers.
func rule(at *field.Path, peers, name string, a v1alpha2.ClusterNetworkPolicyRuleAction, list []v1alpha2.ClusterNetworkPolicyProtocol) clusterrule.Rule {
	out := clusterrule.Rule{At: at, Name: name, PeersAt: at.Child(peers), Said: string(a), PortsAt: at.Child("protocols"),
		Ports: ports(list, at.Child("protocols")), NoPorts: list != nil && len(list) == 0}
	out.Action, out.Unknown = action(a)
	return out
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
		var set []clusterrule.Port
		if p.TCP != nil {
			set = append(set, port(policy.TCP, p.TCP.DestinationPort, at.Child("tcp", "destinationPort")))
		}
		if p.UDP != nil {
			set = append(set, port(policy.UDP, p.UDP.DestinationPort, at.Child("udp", "destinationPort")))
		}
		if p.SCTP != nil {
			set = append(set, port(policy.SCTP, p.SCTP.DestinationPort, at.Child("sctp", "destinationPort")))
		}
		if p.DestinationNamedPort != "" {
			set = append(set, clusterrule.Port{At: at.Child("destinationNamedPort"), Known: true, Name: p.DestinationNamedPort})
		}
		switch len(set) {
		case 0:
			out = append(out, clusterrule.Port{At: at})
		case 1:
			out = append(out, set[0])
		default:
			out = append(out, clusterrule.Port{At: at, Fault: field.Forbidden(at, "may not specify more than one kind of protocol")})
		}
	}
	return out
}

func port(proto policy.Protocol, p *v1alpha2.Port, at *field.Path) clusterrule.Port {
	switch {
	case p == nil:
		return clusterrule.Port{At: at, Protocol: proto}
	case p.Range == nil:
		return clusterrule.Port{At: at.Child("number"), Known: true, Protocol: proto, From: p.Number, To: p.Number}
	case p.Number != 0:
		return clusterrule.Port{At: at, Fault: field.Forbidden(at, "may not specify both number and range")}
	}
	out := clusterrule.Port{At: at.Child("range"), Known: true, Protocol: proto, From: p.Range.Start, To: p.Range.End}
	if out.From == out.To {
		out.Fault = field.Invalid(out.At, out.To, clusterrule.EmptyRange)
	}
	return out
}
