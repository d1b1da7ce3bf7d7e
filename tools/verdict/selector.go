package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/text"
)

// Mismatch says why a selector does not match an entity.
func Mismatch(s *policy.Selector, e *policy.Entity) string {
	if e.Kind != s.Kind() {
		if s.Kind() == policy.KindNode {
			return "not a node"
		}
		return "not a pod"
	}
	spec := s.Spec()
	switch {
	case spec.Nothing:
		return "the selector matches nothing"
	case spec.Namespace != "" && spec.Namespace != e.Namespace:
		return fmt.Sprintf("namespace is %s, not %s", e.Namespace, spec.Namespace)
	}
	if e.Kind == policy.KindPod {
		if why := unmet("namespace label", spec.NamespaceLabels, e.NamespaceLabels); why != "" {
			return why
		}
	}
	if len(spec.ServiceAccounts) > 0 && !slices.Contains(spec.ServiceAccounts, e.ServiceAccount) {
		return fmt.Sprintf("service account is %s, not %s", e.ServiceAccount, strings.Join(spec.ServiceAccounts, " or "))
	}
	if why := unmet("service account", spec.Account, map[string]string{"": e.ServiceAccount}); why != "" {
		return why
	}
	if why := unmet("label", spec.Labels, e.Labels); why != "" {
		return why
	}
	for _, c := range spec.Where {
		if !c.Holds(e) {
			return "does not hold: " + c.String()
		}
	}
	return ""
}

// unmet names the first requirement that doesn't hold.
func unmet(what string, reqs []policy.Requirement, labels map[string]string) string {
	for i := range reqs {
		r := &reqs[i]
		if r.Matches(labels) {
			continue
		}
		value, present := labels[r.Key]
		switch r.Operator {
		case policy.In:
			if !present {
				return fmt.Sprintf("%s %s missing", what, text.Requirement(r))
			}
			return fmt.Sprintf("%s %s=%s, not %s", what, r.Key, value, strings.Join(r.Values, " or "))
		case policy.Exists:
			return fmt.Sprintf("%s %s missing", what, r.Key)
		default:
			return fmt.Sprintf("%s %s=%s, which the selector excludes", what, r.Key, value)
		}
	}
	return ""
}

// SelectorText describes a selector in a few words.
func SelectorText(s *policy.Selector) string { return text.Selector(s) }

// NamespaceNames returns the namespaces that a selector asks for by name, or
// nil if it asks for none.
func NamespaceNames(s *policy.Selector, nameLabel string) []string {
	spec := s.Spec()
	for _, r := range spec.NamespaceLabels {
		if r.Key == nameLabel && r.Operator == policy.In {
			return r.Values
		}
	}
	if spec.Namespace != "" {
		return []string{spec.Namespace}
	}
	return nil
}
