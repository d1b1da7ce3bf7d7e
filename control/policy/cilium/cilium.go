// Package cilium turns CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy and
// CiliumCIDRGroup of cilium.io/v2 into the policy model, as the policy engine
// of Cilium 1.20 understands them with the default settings of its agent: dual
// stack, policies of the local cluster, no CIDR matching of pods and nodes, no
// host firewall. Where Cilium's documentation and its engine differ, the engine
// is followed; the places say so.
//
// Cilium knows one order only: what any rule denies is denied, else what any
// rule allows is allowed, else it is denied if any rule that selects the pod
// asks for that. NetworkPolicies take part in it, so that all of them share
// policy.TierNetworkPolicy, in which denials come first.
//
// Everything here is pure and runs when an object is read. It never resolves
// names, services or groups: these are peers that the model knows.
package cilium

import (
	"encoding/json"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/sluice-net/sluice/control/policy"
)

// The kinds, as Origin.Kind has them.
const (
	Kind            = "CiliumNetworkPolicy"
	ClusterwideKind = "CiliumClusterwideNetworkPolicy"
	GroupKind       = "CiliumCIDRGroup"
)

// AuditAnnotation set to "true" makes a policy's denials reports.
const AuditAnnotation = "sluice.dev/audit"

// NetworkPolicy is a CiliumNetworkPolicy or a CiliumClusterwideNetworkPolicy
// whose specs are read by Convert, which can say more about them than a JSON
// decoder.
type NetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              json.RawMessage `json:"spec,omitempty"`
	Specs             json.RawMessage `json:"specs,omitempty"`
	Status            json.RawMessage `json:"status,omitempty"`
}

// Convert returns the model of a CiliumNetworkPolicy. If it is not valid, the
// model is what has to stay closed, with Rejected set, and there is one
// Rejection for each fault.
func Convert(np *NetworkPolicy) (*policy.Policy, []policy.Rejection) {
	ns := np.Namespace
	if ns == "" {
		ns = metav1.NamespaceDefault
	}
	return convert(np, policy.Origin{Kind: Kind, Namespace: ns, Name: np.Name}, nil)
}

// ConvertClusterwide returns the model of a CiliumClusterwideNetworkPolicy, as
// Convert does.
func ConvertClusterwide(np *NetworkPolicy) (*policy.Policy, []policy.Rejection) {
	return convert(np, policy.Origin{Kind: ClusterwideKind, Name: np.Name}, nil)
}

// Salvage makes the most of a CiliumNetworkPolicy that does not decode because
// of cause: what is legible of its specs stays closed.
func Salvage(object []byte, cause error) (*policy.Policy, []policy.Rejection) {
	np := salvage(object)
	ns := np.Namespace
	if ns == "" {
		ns = metav1.NamespaceDefault
	}
	return convert(np, policy.Origin{Kind: Kind, Namespace: ns, Name: np.Name}, cause)
}

// SalvageClusterwide is Salvage for a CiliumClusterwideNetworkPolicy.
func SalvageClusterwide(object []byte, cause error) (*policy.Policy, []policy.Rejection) {
	np := salvage(object)
	return convert(np, policy.Origin{Kind: ClusterwideKind, Name: np.Name}, cause)
}

// salvage reads what is legible: illegible parts stay empty.
func salvage(object []byte) *NetworkPolicy {
	var outer struct {
		Metadata json.RawMessage `json:"metadata"`
		Spec     json.RawMessage `json:"spec"`
		Specs    json.RawMessage `json:"specs"`
	}
	_ = kjson.UnmarshalCaseSensitivePreserveInts(object, &outer)
	np := &NetworkPolicy{Spec: outer.Spec, Specs: outer.Specs}
	var name struct {
		Name string `json:"name"`
	}
	var namespace struct {
		Namespace string `json:"namespace"`
	}
	var notes struct {
		Annotations map[string]string `json:"annotations"`
	}
	_ = kjson.UnmarshalCaseSensitivePreserveInts(outer.Metadata, &name)
	_ = kjson.UnmarshalCaseSensitivePreserveInts(outer.Metadata, &namespace)
	_ = kjson.UnmarshalCaseSensitivePreserveInts(outer.Metadata, &notes)
	np.Name, np.Namespace, np.Annotations = name.Name, namespace.Namespace, notes.Annotations
	return np
}

// convert reads, judges and turns an object into policies: one for each spec
// and action, as parts of the first.
func convert(np *NetworkPolicy, origin policy.Origin, cause error) (*policy.Policy, []policy.Rejection) {
	r := &reading{namespace: origin.Namespace}
	if cause != nil {
		r.faults = append(r.faults, fault{reason: cause.Error()})
	}
	specs := r.object(np)
	var parts []*policy.Policy
	for i := range specs {
		if len(r.faults) > 0 {
			parts = append(parts, r.closed(&specs[i])...)
		} else {
			parts = append(parts, r.open(&specs[i])...)
		}
	}
	if len(parts) == 0 {
		parts = []*policy.Policy{{Tier: policy.TierNetworkPolicy}}
	}
	audit := np.Annotations[AuditAnnotation] == "true"
	for _, p := range parts {
		p.Origin, p.Audit, p.Rejected = origin, audit, len(r.faults) > 0
	}
	first := parts[0]
	first.Parts = parts[1:]
	return first, r.rejections(origin, specs)
}

// closed isolates what a spec selects in the directions that it names, and
// denies there what it denies: the allowances of other policies would open that.
func (r *reading) closed(s *spec) []*policy.Policy {
	if !s.ingress.named && !s.egress.named || s.node != nil {
		return nil
	}
	deny, node := r.denials(s)
	deny.Ingress.Applies, deny.Ingress.Default = s.ingress.named, policy.Deny
	deny.Egress.Applies, deny.Egress.Default = s.egress.named, policy.Deny
	return saying(deny, node)
}

// The orders of the parts of a policy within the tier: NetworkPolicies
// are at orderAllow and never deny by a rule.
const (
	orderDeny  = policy.OrderNetworkPolicy - 0.5
	orderAllow = policy.OrderNetworkPolicy
)

// open returns what a valid spec says: its denials, to be judged before all
// that is allowed; those of them that its own node is not exempt from, to be
// judged before that exemption; and the rest.
func (r *reading) open(s *spec) []*policy.Policy {
	if s.node != nil { // the host firewall is off
		return nil
	}
	deny, node := r.denials(s)
	r.lookups = nil
	allow := &policy.Policy{Tier: policy.TierNetworkPolicy, Order: orderAllow, Subject: deny.Subject}
	allow.Ingress = r.section(&s.ingress)
	allow.Egress = r.section(&s.egress)
	allow.Lookups = r.lookups
	return append([]*policy.Policy{allow}, saying(deny, node)...)
}

// denials returns what a spec denies, and what of it holds for the pod's own
// node: not that all is denied in place of what is not understood.
func (r *reading) denials(s *spec) (deny, node *policy.Policy) {
	subject := []*policy.Selector{r.subject(s)}
	r.init = s.subject != nil && s.subject.has(sourceReserved, "init")
	deny = &policy.Policy{Tier: policy.TierNetworkPolicy, Order: orderDeny, Subject: subject}
	node = &policy.Policy{Tier: policy.TierOwnNode, Subject: subject}
	for i := range s.ingress.deny {
		rule, ok := r.denial(&s.ingress.deny[i])
		if !ok {
			continue
		}
		deny.Ingress.Rules = append(deny.Ingress.Rules, rule)
		if own, ok := onOwnNode(rule); ok && !r.faulty(s.ingress.deny[i].at) {
			node.Ingress.Rules = append(node.Ingress.Rules, own)
		}
	}
	for i := range s.egress.deny {
		if rule, ok := r.denial(&s.egress.deny[i]); ok {
			deny.Egress.Rules = append(deny.Egress.Rules, rule)
		}
	}
	for _, p := range []*policy.Policy{deny, node} {
		p.Ingress.Applies, p.Egress.Applies = len(p.Ingress.Rules) > 0, len(p.Egress.Rules) > 0
	}
	return deny, node
}

// denial turns an entry that denies into a rule. One that is not understood
// denies all.
func (r *reading) denial(e *entry) (policy.Rule, bool) {
	if r.faulty(e.at) {
		return policy.Rule{Index: e.index, Path: e.path(), Action: policy.Deny, AnyPeer: true, AnyPort: true}, true
	}
	return r.rule(e, policy.Deny)
}

// saying leaves out those that say nothing.
func saying(list ...*policy.Policy) []*policy.Policy {
	return slices.DeleteFunc(list, func(p *policy.Policy) bool { return !p.Ingress.Applies && !p.Egress.Applies })
}

// section returns the allow rules of a direction. A direction without rules
// says nothing: default deny comes with the rules that ask for it, so that
// enableDefaultDeny on a direction without rules does nothing.
func (r *reading) section(d *direction) policy.Section {
	if len(d.allow) == 0 && len(d.deny) == 0 {
		return policy.Section{}
	}
	s := policy.Section{Applies: true, Default: policy.Pass, Rules: r.rules(d.allow, policy.Allow)}
	if d.defaultDeny == nil || *d.defaultDeny {
		s.Default = policy.Deny
	}
	return s
}

// onOwnNode returns what a rule says of the node that the pod runs on.
func onOwnNode(rule policy.Rule) (policy.Rule, bool) {
	own := policy.Peer{Zone: policy.ZoneOwnNode}
	if rule.AnyPeer {
		rule.AnyPeer, rule.Peers = false, []policy.Peer{own}
		return rule, true
	}
	peers := rule.Peers
	rule.Peers = nil
	for _, p := range peers {
		if p.Zone&policy.ZoneOwnNode != 0 {
			own.APIServer = p.APIServer
			rule.Peers = append(rule.Peers, own)
		}
		if p.Zone == 0 && p.APIServer == policy.Only {
			rule.Peers = append(rule.Peers, policy.Peer{Zone: policy.ZoneOwnNode, APIServer: policy.Only})
		}
	}
	return rule, len(rule.Peers) > 0
}
