package calico

import (
	"strings"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/calico/selector"
)

// The labels that Calico gives to what a policy can name, and the prefixes of
// those that pods inherit from their namespace and service account.
const (
	labelNamespace    = "projectcalico.org/namespace"
	labelOrchestrator = "projectcalico.org/orchestrator"
	labelAccount      = "projectcalico.org/serviceaccount"
	labelName         = "projectcalico.org/name"
	ofNamespace       = "pcns."
	ofAccount         = "pcsa."
	kubernetesName    = "kubernetes.io/metadata.name"
)

// labels shows an entity as Calico's selectors see it.
type labels struct{ *policy.Entity }

// Get implements selector.Labels. What is inherited comes from the namespace
// and the service account only: Calico lets a pod's own label of the same name
// speak for them, which would let a pod choose its namespace's labels.
func (l labels) Get(name string) (string, bool) {
	pod := l.Kind == policy.KindPod
	switch {
	case name == labelNamespace:
		return l.Namespace, l.Namespace != ""
	case pod && name == labelOrchestrator:
		return "k8s", true
	case pod && name == labelAccount:
		return l.ServiceAccount, l.ServiceAccount != "" && len(l.ServiceAccount) < 63
	}
	if key, ok := strings.CutPrefix(name, ofNamespace); ok {
		if l.Namespace == "" {
			return "", false
		}
		if key == labelName {
			return l.Namespace, true
		}
		v, ok := l.NamespaceLabels[key]
		return v, ok
	}
	if key, ok := strings.CutPrefix(name, ofAccount); ok && pod {
		if key == labelName {
			return l.ServiceAccount, l.ServiceAccount != ""
		}
		v, ok := l.AccountLabels[key]
		return v, ok
	}
	v, ok := l.Labels[name]
	return v, ok
}

// condition is a selector as the model asks it.
type condition struct{ *selector.Selector }

// Holds implements policy.Condition.
func (c condition) Holds(e *policy.Entity) bool { return c.Matches(labels{e}) }

// compile makes a selector of the model of one in Calico's language. What can
// only hold in one namespace is asked there only.
func compile(s *selector.Selector, sets bool) *policy.Selector {
	spec := policy.SelectorSpec{Where: []policy.Condition{condition{s}}, NetworkSets: sets}
	for _, label := range []string{labelNamespace, ofNamespace + labelName, ofNamespace + kubernetesName} {
		if values, ok := s.Values(label); ok && len(values) == 1 && values[0] != "" {
			spec.Namespace = values[0]
			break
		}
	}
	return policy.NewSelector(spec)
}
