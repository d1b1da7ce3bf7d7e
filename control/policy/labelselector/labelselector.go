// Package labelselector turns the label selectors of the Kubernetes API into
// those of the policy model. It is shared by the front-ends.
package labelselector

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sluice-net/sluice/control/policy"
)

var operators = map[metav1.LabelSelectorOperator]policy.Operator{
	metav1.LabelSelectorOpIn:           policy.In,
	metav1.LabelSelectorOpNotIn:        policy.NotIn,
	metav1.LabelSelectorOpExists:       policy.Exists,
	metav1.LabelSelectorOpDoesNotExist: policy.DoesNotExist,
}

// Validate reports what the API server would.
func Validate(sel *metav1.LabelSelector, at *field.Path) field.ErrorList {
	return validation.ValidateLabelSelector(sel, validation.LabelSelectorValidationOptions{}, at)
}

// Requirements converts a valid selector. An empty one has no requirements and
// so matches everything.
func Requirements(sel *metav1.LabelSelector) []policy.Requirement {
	var reqs []policy.Requirement
	for k, v := range sel.MatchLabels {
		reqs = append(reqs, policy.Requirement{Key: k, Operator: policy.In, Values: []string{v}})
	}
	for _, e := range sel.MatchExpressions {
		values := slices.Compact(slices.Sorted(slices.Values(e.Values)))
		reqs = append(reqs, policy.Requirement{Key: e.Key, Operator: operators[e.Operator], Values: values})
	}
	return reqs
}
