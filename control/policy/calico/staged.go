package calico

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/networkpolicy"
)

// StagedKubernetes is a StagedKubernetesNetworkPolicy.
type StagedKubernetes struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		StagedAction                   string `json:"stagedAction,omitempty"`
		networkingv1.NetworkPolicySpec `json:",inline"`
	} `json:"spec"`
}

// ConvertStagedKubernetes returns the model of a StagedKubernetesNetworkPolicy:
// a NetworkPolicy as it would be in force. known are faults that who read it has
// found.
func ConvertStagedKubernetes(s *StagedKubernetes, known ...*field.Error) (*policy.Policy, []policy.Rejection) {
	np := &networkingv1.NetworkPolicy{ObjectMeta: s.ObjectMeta, Spec: s.Spec.NetworkPolicySpec}
	p, rejections := networkpolicy.Convert(np, known...)
	replaces := p.Origin
	p.Origin.Kind, p.Staged = StagedKubernetesKind, true
	for i := range rejections {
		rejections[i].Object, rejections[i].Effect = p.Origin.String(), "it is staged, so nothing is closed for it"
	}
	switch s.Spec.StagedAction {
	case "", "Set", "Learn":
		p.Replaces = replaces
	case "Delete":
		p.Replaces, p.Ingress, p.Egress = replaces, policy.Section{}, policy.Section{}
	case "Ignore":
		p.Ingress, p.Egress = policy.Section{}, policy.Section{}
	default:
		p.Rejected = true
		rejections = append(rejections, policy.Rejection{Object: p.Origin.String(), Field: "spec.stagedAction",
			Reason: "Unsupported value: \"" + s.Spec.StagedAction + "\": supported values: \"Set\", \"Delete\", \"Learn\", \"Ignore\"",
			Effect: "it is staged, so nothing is closed for it"})
	}
	if p.Rejected {
		p.Replaces, p.Ingress, p.Egress = policy.Origin{}, policy.Section{}, policy.Section{}
	}
	return p, rejections
}
