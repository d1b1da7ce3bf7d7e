package calico

import (
	"encoding/json"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/control/policy"
)

// Tier is a Tier.
type Tier struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		Order         *float64 `json:"order,omitempty"`
		DefaultAction *string  `json:"defaultAction,omitempty"`
	} `json:"spec"`
	Status json.RawMessage `json:"status,omitempty"`
}

// DefaultTier is the tier of policies that name none.
const DefaultTier = "default"

// builtin is a tier that Calico makes itself and that nobody can change.
type builtin struct {
	tier      policy.Tier
	byDefault policy.Action
}

// builtins are these tiers, two of them under older names as well.
var builtins = map[string]builtin{
	DefaultTier:                  {policy.TierNetworkPolicy, policy.Deny},
	"kube-admin":                 {policy.TierAdmin, policy.Pass},
	"adminnetworkpolicy":         {policy.TierAdmin, policy.Pass},
	"kube-baseline":              {policy.TierBaseline, policy.Pass},
	"baselineadminnetworkpolicy": {policy.TierBaseline, policy.Pass},
}

// place puts a policy into a tier and returns what holds at its end, as far as
// that is known here.
func place(p *policy.Policy, tier string) policy.Action {
	p.TierName = tier
	if b, ok := builtins[tier]; ok {
		p.Tier = b.tier
		return b.byDefault
	}
	p.Tier, p.TierObject = policy.Tier{Name: TierName(tier)}, true
	return policy.Deny
}

// TierName is what a tier is called in the model, which keeps the names of its own to
// itself.
func TierName(name string) string {
	switch name {
	case policy.TierAdmin.Name, policy.TierNetworkPolicy.Name, policy.TierBaseline.Name, policy.TierOwnNode.Name, policy.TierUnplaced.Name:
		return policy.CalicoPrefix + name
	}
	return name
}

// tie orders policies of equal order as their names in Calico's own storage
// do, which begin with the tier.
func tie(tier string, o policy.Origin) string {
	name := o.Name
	if !strings.HasPrefix(name, tier+".") {
		name = tier + "." + name
	}
	return fmt.Sprintf("%s/%s/%s", name, o.Namespace, strings.TrimPrefix(o.Kind, "Calico"))
}

// Value returns a tier's name in the model, its order and whether what reaches
// its end is passed on. ok is false for tiers that the model has anyway.
func (t *Tier) Value() (name string, order float64, pass, ok bool, rejections []policy.Rejection) {
	reject := func(field, reason, effect string) {
		rejections = append(rejections, policy.Rejection{Object: policy.Origin{Kind: TierKind, Name: t.Name}.String(),
			Field: field, Reason: reason, Effect: effect})
	}
	order = policy.NoOrder
	if t.Spec.Order != nil {
		order = *t.Spec.Order
	}
	switch a := t.Spec.DefaultAction; {
	case a == nil || *a == "Deny":
	case *a == "Pass":
		pass = true
	default:
		reject("spec.defaultAction", fmt.Sprintf("Unsupported value: %q: supported values: \"Deny\", \"Pass\"", *a), "its end is closed")
	}
	b, own := builtins[t.Name]
	if !own {
		return TierName(t.Name), order, pass, true, rejections
	}
	if order != b.tier.Order {
		reject("spec.order", fmt.Sprintf("Invalid value: the order of tier %s is %v", t.Name, b.tier.Order), "it stays there")
	}
	if pass != (b.byDefault == policy.Pass) {
		reject("spec.defaultAction", fmt.Sprintf("Invalid value: the default action of tier %s can't be changed", t.Name), "it stays as it is")
	}
	return "", 0, false, false, rejections
}
