package cilium

import (
	"net/netip"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/control/policy"
)

// CIDRGroup is a CiliumCIDRGroup.
type CIDRGroup struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		ExternalCIDRs []string `json:"externalCIDRs"`
	} `json:"spec"`
}

// CIDRs returns the prefixes of a group, masked. What is no prefix is left
// out, as Cilium does, and rejected.
func (g *CIDRGroup) CIDRs() ([]netip.Prefix, []policy.Rejection) {
	r := &reading{}
	var out []netip.Prefix
	for i, s := range g.Spec.ExternalCIDRs {
		if p, ok := r.prefix("spec.externalCIDRs["+strconv.Itoa(i)+"]", s); ok {
			out = append(out, p)
		}
	}
	var rejections []policy.Rejection
	for _, f := range r.faults {
		rejections = append(rejections, policy.Rejection{Object: policy.Origin{Kind: GroupKind, Name: g.Name}.String(),
			Field: f.field, Reason: f.reason, Effect: "the group is without it"})
	}
	return out, rejections
}
