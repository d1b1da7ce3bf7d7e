package calico

import (
	"fmt"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/calico/selector"
)

// parse reads a selector. global says whether global() may be in it.
func (r *reading) parse(at, text string, global bool) (*selector.Selector, bool) {
	s, err := selector.Parse(text)
	if err != nil {
		r.fault(at, "Invalid value: %q: %v", text, err)
		return nil, false
	}
	if !global && strings.Contains(text, "global(") {
		r.fault(at, "Invalid value: %q: global() can only be used in the namespaceSelector of a rule", text)
		return nil, false
	}
	return s, true
}

func must(text string) *selector.Selector {
	s, err := selector.Parse(text)
	if err != nil {
		panic(err)
	}
	return s
}

// What Calico makes of all() where a namespace or a service account is meant,
// and of global().
var (
	namespaced = must("has(" + labelNamespace + ")")
	accounted  = must("has(" + labelAccount + ")")
	global     = must("!has(" + labelNamespace + ")")
)

// inNamespace is what is in one namespace.
func inNamespace(name string) *selector.Selector { return selector.Equal(labelNamespace, name) }

// subject returns the pods that a policy is about. What is illegible of it
// limits nothing.
func (r *reading) subject(s *spec) *policy.Selector {
	var parts []*selector.Selector
	add := func(at, text, prefix string, all *selector.Selector) {
		if text == "" {
			return
		}
		p, ok := r.parse(at, text, false)
		if !ok || r.faulty(at) {
			return
		}
		if prefix != "" {
			p = p.Prefixed(prefix)
		}
		parts = append(parts, p)
		if all != nil {
			for i := range parts {
				parts[i] = parts[i].ReplaceAll(all, nil)
			}
		}
	}
	add("spec.selector", s.selector, "", nil)
	if r.global {
		add("spec.namespaceSelector", s.namespaceSelector, ofNamespace, namespaced)
		add("spec.serviceAccountSelector", s.serviceAccountSelector, ofAccount, accounted)
	} else {
		parts = append(parts, inNamespace(r.namespace))
		add("spec.serviceAccountSelector", s.serviceAccountSelector, ofAccount, nil)
	}
	if len(parts) == 0 {
		return policy.NewSelector(policy.SelectorSpec{})
	}
	return compile(selector.And(parts...), false)
}

// ends returns which ends an entity of a rule means by its selectors: pos, or
// all if that is nil, but not neg.
func (r *reading) ends(e *entity) (pos, neg *selector.Selector) {
	var parts []*selector.Selector
	add := func(s *selector.Selector) { parts = append(parts, s) }
	if a := e.ServiceAccounts; a != nil {
		if a.Selector != "" {
			if s, ok := r.parse(e.at+".serviceAccounts.selector", a.Selector, true); ok {
				add(s.Prefixed(ofAccount))
			}
		}
		for i, name := range a.Names {
			if strings.Contains(name, "'") { // would end the text that it is put into
				r.fault(fmt.Sprintf("%s.serviceAccounts.names[%d]", e.at, i), "Invalid value: %q: not the name of a service account", name)
			}
		}
		if len(a.Names) > 0 && !r.faulty(e.at+".serviceAccounts.names") {
			text := labelAccount + " in {'" + strings.Join(a.Names, "', '") + "'}"
			if s, ok := r.parse(e.at+".serviceAccounts.names", text, true); ok {
				add(s)
			}
		}
	}
	if e.Selector != "" {
		if s, ok := r.parse(e.at+".selector", e.Selector, false); ok {
			add(s)
		}
	}
	if e.NotSelector != "" {
		neg, _ = r.parse(e.at+".notSelector", e.NotSelector, true)
	}
	switch {
	case e.NamespaceSelector != "":
		if s, ok := r.parse(e.at+".namespaceSelector", e.NamespaceSelector, true); ok {
			if s.HasGlobal() && s.String() != "global()" {
				r.fault(e.at+".namespaceSelector", "Invalid value: %q: global() cannot be combined with other selectors", e.NamespaceSelector)
			}
			add(s.Prefixed(ofNamespace).ReplaceAll(namespaced, global))
		}
	case r.namespace != "" && (len(parts) > 0 || e.NotSelector != ""):
		add(inNamespace(r.namespace))
	}
	if len(parts) == 0 {
		return nil, neg
	}
	if neg != nil {
		add(selector.Not(neg))
	}
	return selector.And(parts...), nil
}
