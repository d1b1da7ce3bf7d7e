// Package networkpolicy turns NetworkPolicy of networking.k8s.io/v1 into the
// policy model. It validates as the API server does, and fails closed: of an
// object that is not valid, the isolation stays and the rules do not hold.
package networkpolicy

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/labelselector"
)

// Kind is the Origin.Kind of what Convert returns.
const Kind = "NetworkPolicy"

// AuditAnnotation set to "true" on a policy, or on its namespace, makes its
// denials reports.
const AuditAnnotation = "sluice.dev/audit"

// TiePrefix is how Calico names a NetworkPolicy among its own of equal order.
const TiePrefix = "knp.default."

// Convert returns the model of np. If np is not valid, it returns what has to
// stay closed, with Rejected set, and one Rejection for each fault. known are
// faults that who read np has found.
func Convert(np *networkingv1.NetworkPolicy, known ...*field.Error) (*policy.Policy, []policy.Rejection) {
	faults := append(validate(np), known...)
	ingress, egress := directions(&np.Spec)
	p := &policy.Policy{
		Origin:  policy.Origin{Kind: Kind, Namespace: namespaceOf(np), Name: np.Name},
		Tier:    policy.TierNetworkPolicy,
		Order:   policy.OrderNetworkPolicy,
		Tie:     TiePrefix + np.Name,
		Ingress: policy.Section{Applies: ingress, Default: policy.Deny},
		Egress:  policy.Section{Applies: egress, Default: policy.Deny},
		Audit:   np.Annotations[AuditAnnotation] == "true",
	}
	subject := policy.SelectorSpec{Namespace: p.Origin.Namespace}
	if len(faults) > 0 {
		if len(labelselector.Validate(&np.Spec.PodSelector, field.NewPath("spec", "podSelector"))) == 0 {
			subject.Labels = labelselector.Requirements(&np.Spec.PodSelector)
		}
		p.Subject = []*policy.Selector{policy.NewSelector(subject)}
		p.Rejected = true
		return p, reject(p, faults)
	}
	subject.Labels = labelselector.Requirements(&np.Spec.PodSelector)
	p.Subject = []*policy.Selector{policy.NewSelector(subject)}
	if ingress {
		for i := range np.Spec.Ingress {
			r := &np.Spec.Ingress[i]
			p.Ingress.Rules = append(p.Ingress.Rules, convertRule(p.Origin.Namespace, i, r.From, r.Ports))
		}
	}
	if egress {
		for i := range np.Spec.Egress {
			r := &np.Spec.Egress[i]
			p.Egress.Rules = append(p.Egress.Rules, convertRule(p.Origin.Namespace, i, r.To, r.Ports))
		}
	}
	return p, nil
}

// Salvage makes the most of a JSON object that does not decode as a
// NetworkPolicy because of cause: what is legible of its subject and
// directions stays closed. Without a legible podSelector that is all pods of
// the namespace.
func Salvage(object []byte, cause error) (*policy.Policy, policy.Rejection) {
	var outer struct {
		Metadata json.RawMessage `json:"metadata"`
		Spec     json.RawMessage `json:"spec"`
	}
	_ = kjson.UnmarshalCaseSensitivePreserveInts(object, &outer) // what is illegible stays empty
	var meta struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	}
	_ = kjson.UnmarshalCaseSensitivePreserveInts(outer.Metadata, &meta)
	var notes struct {
		Annotations map[string]string `json:"annotations"`
	}
	_ = kjson.UnmarshalCaseSensitivePreserveInts(outer.Metadata, &notes)
	var spec struct {
		PodSelector json.RawMessage `json:"podSelector"`
		PolicyTypes json.RawMessage `json:"policyTypes"`
		Egress      json.RawMessage `json:"egress"`
	}
	legible := kjson.UnmarshalCaseSensitivePreserveInts(outer.Spec, &spec) == nil

	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{
		Name: meta.Name, Namespace: meta.Namespace, Annotations: notes.Annotations}}
	wide := !legible
	if spec.PodSelector != nil && kjson.UnmarshalCaseSensitivePreserveInts(spec.PodSelector, &np.Spec.PodSelector) != nil {
		np.Spec.PodSelector = metav1.LabelSelector{}
	}
	if spec.PolicyTypes != nil && kjson.UnmarshalCaseSensitivePreserveInts(spec.PolicyTypes, &np.Spec.PolicyTypes) != nil {
		wide = true
	}
	if wide {
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	}
	if e := strings.TrimSpace(string(spec.Egress)); e != "" && e != "null" && e != "[]" {
		np.Spec.Egress = make([]networkingv1.NetworkPolicyEgressRule, 1)
	}
	ingress, egress := directions(&np.Spec)
	subject := policy.SelectorSpec{Namespace: namespaceOf(np)}
	if len(labelselector.Validate(&np.Spec.PodSelector, nil)) == 0 {
		subject.Labels = labelselector.Requirements(&np.Spec.PodSelector)
	}
	p := &policy.Policy{
		Origin:   policy.Origin{Kind: Kind, Namespace: namespaceOf(np), Name: np.Name},
		Tier:     policy.TierNetworkPolicy,
		Order:    policy.OrderNetworkPolicy,
		Tie:      TiePrefix + np.Name,
		Subject:  []*policy.Selector{policy.NewSelector(subject)},
		Ingress:  policy.Section{Applies: ingress, Default: policy.Deny},
		Egress:   policy.Section{Applies: egress, Default: policy.Deny},
		Audit:    np.Annotations[AuditAnnotation] == "true",
		Rejected: true,
	}
	return p, policy.Rejection{Object: p.Origin.String(), Reason: cause.Error(), Effect: effect(p)}
}

// directions applies the API's default for policyTypes. A type that it does
// not know could be either, so both are closed.
func directions(spec *networkingv1.NetworkPolicySpec) (ingress, egress bool) {
	if len(spec.PolicyTypes) == 0 {
		return true, len(spec.Egress) > 0
	}
	for _, t := range spec.PolicyTypes {
		switch t {
		case networkingv1.PolicyTypeIngress:
			ingress = true
		case networkingv1.PolicyTypeEgress:
			egress = true
		default:
			return true, true
		}
	}
	return ingress, egress
}

func reject(p *policy.Policy, faults field.ErrorList) []policy.Rejection {
	out := make([]policy.Rejection, 0, len(faults))
	for _, f := range faults {
		out = append(out, policy.Rejection{Object: p.Origin.String(), Field: f.Field,
			Reason: f.ErrorBody(), Effect: effect(p)})
	}
	// Maps are validated in random order.
	slices.SortStableFunc(out, func(a, b policy.Rejection) int {
		if c := strings.Compare(a.Field, b.Field); c != 0 {
			return c
		}
		return strings.Compare(a.Reason, b.Reason)
	})
	return out
}

func effect(p *policy.Policy) string {
	var dirs []string
	if p.Ingress.Applies {
		dirs = append(dirs, "ingress")
	}
	if p.Egress.Applies {
		dirs = append(dirs, "egress")
	}
	return "the pods that it selects are isolated for " + strings.Join(dirs, " and ")
}

func convertRule(namespace string, index int, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) policy.Rule {
	r := policy.Rule{Index: index, Action: policy.Allow, AnyPeer: len(peers) == 0, AnyPort: len(ports) == 0}
	for i := range peers {
		r.Peers = append(r.Peers, convertPeer(namespace, &peers[i]))
	}
	for i := range ports {
		r.Ports = append(r.Ports, convertPort(&ports[i]))
	}
	return r
}

func convertPeer(namespace string, p *networkingv1.NetworkPolicyPeer) policy.Peer {
	if b := p.IPBlock; b != nil {
		block := &policy.Block{Prefix: netip.MustParsePrefix(b.CIDR).Masked()}
		for _, x := range b.Except {
			block.Except = append(block.Except, netip.MustParsePrefix(x).Masked())
		}
		return policy.Peer{Block: block}
	}
	var spec policy.SelectorSpec
	if p.NamespaceSelector != nil {
		spec.NamespaceLabels = labelselector.Requirements(p.NamespaceSelector)
	} else {
		spec.Namespace = namespace
	}
	if p.PodSelector != nil {
		spec.Labels = labelselector.Requirements(p.PodSelector)
	}
	return policy.Peer{Selector: policy.NewSelector(spec)}
}

var protocols = map[corev1.Protocol]policy.Protocol{
	corev1.ProtocolTCP: policy.TCP, corev1.ProtocolUDP: policy.UDP, corev1.ProtocolSCTP: policy.SCTP,
}

func convertPort(p *networkingv1.NetworkPolicyPort) policy.Port {
	proto := policy.TCP
	if p.Protocol != nil {
		proto = protocols[*p.Protocol]
	}
	switch {
	case p.Port == nil:
		return policy.AllPorts(proto)
	case p.Port.Type == intstr.String:
		return policy.Port{Protocol: proto, Name: p.Port.StrVal}
	}
	from := uint16(p.Port.IntVal)
	to := from
	if p.EndPort != nil {
		to = uint16(*p.EndPort)
	}
	return policy.Port{Protocol: proto, From: from, To: to}
}

func namespaceOf(np *networkingv1.NetworkPolicy) string {
	if np.Namespace == "" {
		return metav1.NamespaceDefault
	}
	return np.Namespace
}
