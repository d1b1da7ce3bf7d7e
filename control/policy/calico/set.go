package calico

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/control/policy"
)

// NetworkSet is a NetworkSet or a GlobalNetworkSet.
type NetworkSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		Nets []string `json:"nets,omitempty"`
	} `json:"spec"`
}

// metadataAnnotation holds, in crd.projectcalico.org/v1, the metadata that
// projectcalico.org/v3 shows.
const metadataAnnotation = "projectcalico.org/metadata"

// CIDRs returns the networks of a set, masked, sorted and unique, and its
// labels. What is no network is left out, as Calico does, and rejected.
func (s *NetworkSet) CIDRs(kind string) (nets []netip.Prefix, labels map[string]string, rejections []policy.Rejection) {
	o := policy.Origin{Kind: kind, Namespace: s.Namespace, Name: s.Name}
	reject := func(field, reason, effect string) {
		rejections = append(rejections, policy.Rejection{Object: o.String(), Field: field, Reason: reason, Effect: effect})
	}
	for i, text := range s.Spec.Nets {
		p, err := netip.ParsePrefix(text)
		if a, errAddr := netip.ParseAddr(text); err != nil && errAddr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			reject(fmt.Sprintf("spec.nets[%d]", i), fmt.Sprintf("Invalid value: %q: must be a CIDR or an address", text), "the set is without it")
			continue
		}
		nets = append(nets, unmapped(p).Masked())
	}
	slices.SortFunc(nets, netip.Prefix.Compare)
	labels = s.Labels
	if text, ok := s.Annotations[metadataAnnotation]; ok {
		var meta struct {
			Labels map[string]string `json:"labels"`
		}
		if err := json.Unmarshal([]byte(text), &meta); err != nil {
			reject("metadata.annotations["+metadataAnnotation+"]", err.Error(), "the set has the labels of the object itself")
		} else {
			labels = meta.Labels
		}
	}
	if _, ok := labels[labelNamespace]; ok {
		reject("metadata.labels", labelNamespace+" is not a valid label name", "the set is without it")
		labels = without(labels, labelNamespace)
	}
	return slices.Compact(nets), labels, rejections
}

func without(labels map[string]string, key string) map[string]string {
	out := map[string]string{}
	for k, v := range labels {
		if k != key {
			out[k] = v
		}
	}
	return out
}

// HostEndpoint is a HostEndpoint.
type HostEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              json.RawMessage `json:"spec,omitempty"`
}

// Refuse says that there are no host endpoints here.
func (h *HostEndpoint) Refuse() []policy.Rejection {
	return []policy.Rejection{{Object: policy.Origin{Kind: HostEndpointKind, Name: h.Name}.String(), Field: "spec",
		Reason: "HostEndpoint is not supported: policies are enforced on pods only", Effect: "it has no effect"}}
}
