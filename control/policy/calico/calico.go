// Package calico turns Calico's policies, tiers and network sets, of
// crd.projectcalico.org/v1 and projectcalico.org/v3 alike, into the policy
// model, as Felix understands them and with what Calico's own validator
// refuses refused. Rejected by name is what has no meaning here: host
// endpoints, doNotTrack, preDNAT, applyOnForward, HTTP, and source ports, which
// the dataplane's rules don't see.
//
// Calico's tiers and orders are the frame of the model, so that a policy comes
// down to one Policy: its tier, which the store looks up, its order, its subject
// and its rules. What a rule asks of the end that the policy is about goes into
// Local, what it asks of the other end into Peers, And and Not.
//
// Everything here is pure and runs when an object is read. Selectors are parsed
// here and judged once per label set.
package calico

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/sluice-net/sluice/control/policy"
)

// The kinds, as Origin.Kind has them. Calico's NetworkPolicy has the same name
// as that of Kubernetes.
const (
	Kind                 = "CalicoNetworkPolicy"
	GlobalKind           = "GlobalNetworkPolicy"
	StagedKind           = "StagedNetworkPolicy"
	StagedGlobalKind     = "StagedGlobalNetworkPolicy"
	StagedKubernetesKind = "StagedKubernetesNetworkPolicy"
	TierKind             = "Tier"
	SetKind              = "NetworkSet"
	GlobalSetKind        = "GlobalNetworkSet"
	HostEndpointKind     = "HostEndpoint"
)

// AuditAnnotation set to "true" makes a policy's denials reports.
const AuditAnnotation = "sluice.dev/audit"

// Policy is a policy of any kind but StagedKubernetesKind. Its spec is read by
// Convert, which can say more about it than a JSON decoder.
type Policy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              json.RawMessage `json:"spec,omitempty"`
	Status            json.RawMessage `json:"status,omitempty"`
}

// shape is what tells the kinds of policies apart.
type shape struct {
	kind     string
	global   bool
	staged   bool
	replaces string // kind of what a staged one stands in for
}

var shapes = map[string]shape{
	Kind:             {kind: Kind},
	GlobalKind:       {kind: GlobalKind, global: true},
	StagedKind:       {kind: StagedKind, staged: true, replaces: Kind},
	StagedGlobalKind: {kind: StagedGlobalKind, global: true, staged: true, replaces: GlobalKind},
}

// IsKind reports whether policies of a kind are read here by Convert.
func IsKind(kind string) bool { return shapes[kind].kind != "" }

// Convert returns the conversion of policies of a kind. Of one that is not
// valid the model is what has to stay closed, with Rejected set, and there is a
// Rejection for each fault.
func Convert(kind string) func(*Policy) (*policy.Policy, []policy.Rejection) {
	s := shapes[kind]
	return func(p *Policy) (*policy.Policy, []policy.Rejection) { return convert(s, p, nil) }
}

// Salvage returns what makes the most of a policy of a kind that does not
// decode because of cause: what is legible of its subject and directions stays
// closed.
func Salvage(kind string) func(object []byte, cause error) (*policy.Policy, []policy.Rejection) {
	s := shapes[kind]
	return func(object []byte, cause error) (*policy.Policy, []policy.Rejection) {
		var outer struct {
			Metadata json.RawMessage `json:"metadata"`
			Spec     json.RawMessage `json:"spec"`
		}
		_ = kjson.UnmarshalCaseSensitivePreserveInts(object, &outer) // what is illegible stays empty
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
		p := &Policy{Spec: outer.Spec}
		p.Name, p.Namespace, p.Annotations = name.Name, namespace.Namespace, notes.Annotations
		return convert(s, p, cause)
	}
}

func convert(s shape, p *Policy, cause error) (*policy.Policy, []policy.Rejection) {
	origin := policy.Origin{Kind: s.kind, Namespace: p.Namespace, Name: p.Name}
	switch {
	case s.global:
		origin.Namespace = ""
	case origin.Namespace == "":
		origin.Namespace = metav1.NamespaceDefault
	}
	r := &reading{shape: s, namespace: origin.Namespace}
	if cause != nil {
		r.fault("", "%v", cause)
	}
	r.name(p.Name)
	spec := r.spec(p.Spec)
	out := &policy.Policy{Origin: origin, Tie: tie(spec.tier, origin), Order: policy.NoOrder,
		Audit: p.Annotations[AuditAnnotation] == "true", Staged: s.staged}
	if spec.order != nil {
		out.Order = *spec.order
	}
	byDefault := place(out, spec.tier)
	if s.staged {
		out.Replaces = policy.Origin{Kind: s.replaces, Namespace: origin.Namespace, Name: origin.Name}
	}
	out.Subject = []*policy.Selector{r.subject(spec)}
	if len(r.faults) > 0 {
		r.close(out, spec)
		return out, r.rejections(out)
	}
	if spec.stagedAction == "Delete" || spec.stagedAction == "Ignore" {
		if spec.stagedAction == "Ignore" {
			out.Replaces = policy.Origin{}
		}
		return out, nil
	}
	if spec.governs("Ingress") {
		out.Ingress = policy.Section{Applies: true, Default: byDefault, Rules: r.rules("spec.ingress", spec.ingress, false)}
	}
	if spec.governs("Egress") {
		out.Egress = policy.Section{Applies: true, Default: byDefault, Rules: r.rules("spec.egress", spec.egress, true)}
	}
	return out, nil
}

// close leaves of a policy that is not valid that it denies, where it stands or
// might stand, all that it would have judged; nothing of a staged one.
func (r *reading) close(p *policy.Policy, s *spec) {
	p.Rejected = true
	if p.Staged {
		p.Replaces = policy.Origin{}
		return
	}
	if s.unplaced {
		p.Tier, p.TierObject, p.TierName = policy.TierUnplaced, false, ""
	}
	deny := func(governed bool) policy.Section {
		if !governed {
			return policy.Section{}
		}
		return policy.Section{Applies: true, Default: policy.Deny,
			Rules: []policy.Rule{{Index: isolation, Action: policy.Deny, AnyPeer: true, AnyPort: true}}}
	}
	p.Ingress, p.Egress = deny(s.governs("Ingress")), deny(s.governs("Egress"))
}

// isolation is the index of a rule that is none of the user's.
const isolation = -1
