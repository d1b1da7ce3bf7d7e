package verdict

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
)

// Mismatch says why a selector does not match an entity.
func Mismatch(s *policy.Selector, e *policy.Entity) string {
	if e.Kind != s.Kind() {
		if s.Kind() == policy.KindNode {
			return "not a node"
		}
		return "not a pod"
	}
	spec, err := specOf(s)
	switch {
	case err != nil:
		return "not selected by " + s.Key()
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
	return unmet("label", spec.Labels, e.Labels)
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
				return fmt.Sprintf("%s %s missing", what, requirementText(r))
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
func SelectorText(s *policy.Selector) string {
	spec, err := specOf(s)
	switch {
	case err != nil:
		return s.Key()
	case spec.Nothing:
		return "nothing"
	}
	kind, every := "pods", "all pods"
	if spec.Kind == policy.KindNode {
		kind, every = "nodes", "all nodes"
	}
	text := every
	if len(spec.Labels) > 0 {
		text = kind + " with " + requirementsText(spec.Labels)
	}
	if len(spec.ServiceAccounts) > 0 {
		text += " of service account " + strings.Join(spec.ServiceAccounts, " or ")
	}
	if spec.Namespace != "" {
		text += " in namespace " + spec.Namespace
	}
	if len(spec.NamespaceLabels) > 0 {
		text += " in namespaces with " + requirementsText(spec.NamespaceLabels)
	}
	return text
}

func requirementsText(reqs []policy.Requirement) string {
	out := make([]string, len(reqs))
	for i := range reqs {
		out[i] = requirementText(&reqs[i])
	}
	return strings.Join(out, ", ")
}

func requirementText(r *policy.Requirement) string {
	switch {
	case r.Operator == policy.Exists:
		return r.Key
	case r.Operator == policy.DoesNotExist:
		return "!" + r.Key
	case r.Operator == policy.NotIn:
		return r.Key + " notin (" + strings.Join(r.Values, ", ") + ")"
	case len(r.Values) == 1:
		return r.Key + "=" + r.Values[0]
	}
	return r.Key + " in (" + strings.Join(r.Values, ", ") + ")"
}

// NamespaceNames returns the namespaces that a selector asks for by name, or
// nil if it asks for none.
func NamespaceNames(s *policy.Selector, nameLabel string) []string {
	spec, err := specOf(s)
	if err != nil {
		return nil
	}
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

var errKey = errors.New("selector key not understood")

// specOf reads a selector's spec back from its Key, which spells it out. It
// never guesses: the spec that it returns has the same Key.
func specOf(s *policy.Selector) (policy.SelectorSpec, error) {
	if s.Key() == "nothing" {
		return policy.SelectorSpec{Kind: s.Kind(), Nothing: true}, nil
	}
	k := &keyReader{rest: s.Key()}
	spec := policy.SelectorSpec{Kind: s.Kind()}
	if s.Kind() == policy.KindNode {
		k.skip("node")
	} else {
		k.skip("pod")
	}
	k.skip(" ns=")
	spec.Namespace = k.quoted()
	k.skip(" nslabels")
	spec.NamespaceLabels = k.requirements()
	k.skip(" labels")
	spec.Labels = k.requirements()
	k.skip(" sa")
	for k.ok() && k.rest != "" {
		spec.ServiceAccounts = append(spec.ServiceAccounts, k.quoted())
	}
	if !k.ok() || policy.NewSelector(spec).Key() != s.Key() {
		return policy.SelectorSpec{}, errKey
	}
	return spec, nil
}

type keyReader struct {
	rest string
	bad  bool
}

func (k *keyReader) ok() bool { return !k.bad }

func (k *keyReader) skip(text string) {
	rest, ok := strings.CutPrefix(k.rest, text)
	k.rest, k.bad = rest, k.bad || !ok
}

func (k *keyReader) quoted() string {
	q, err := strconv.QuotedPrefix(k.rest)
	if err != nil {
		k.bad = true
		return ""
	}
	k.rest = k.rest[len(q):]
	s, _ := strconv.Unquote(q) // a quoted prefix is a quoted string
	return s
}

func (k *keyReader) requirements() (out []policy.Requirement) {
	for k.ok() && len(k.rest) > 1 && k.rest[0] == '(' {
		r := policy.Requirement{Operator: policy.Operator(k.rest[1] - '0')}
		k.rest = k.rest[2:]
		r.Key = k.quoted()
		for k.ok() && strings.HasPrefix(k.rest, `"`) {
			r.Values = append(r.Values, k.quoted())
		}
		k.skip(")")
		out = append(out, r)
	}
	return out
}
