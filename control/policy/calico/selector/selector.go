// Package selector is Calico's selector language: conditions on labels, as in
//
//	has(app) && tier in {"web", "api"} && !(env starts with "test")
//
// It follows libcalico-go's parser in what is an error, in what an absent
// label means (!= and not in hold, all else doesn't), in precedence (!, then
// &&, then ||) and in the canonical form, to the byte.
//
// A Selector is immutable. Parsing costs a few allocations for each condition,
// judging none. It is done once per set of labels, never per packet.
package selector

import (
	"slices"
	"strings"
)

// Labels are what a selector looks at.
type Labels interface {
	Get(name string) (value string, present bool)
}

// Map is a set of labels.
type Map map[string]string

// Get implements Labels.
func (m Map) Get(name string) (string, bool) {
	v, ok := m[name]
	return v, ok
}

// Selector is a parsed selector.
type Selector struct {
	root node
	text string
}

func compile(n node) *Selector {
	return &Selector{n, string(n.spell(nil))}
}

// String returns the canonical form.
func (s *Selector) String() string { return s.text }

// Matches reports whether labels fulfil the selector.
func (s *Selector) Matches(l Labels) bool { return s.root.holds(l) }

// Prefixed returns the selector with a prefix before the name of each label.
func (s *Selector) Prefixed(prefix string) *Selector {
	return compile(s.root.rename(func(name string) string { return prefix + name }))
}

// replacement returns what stands for a part that has no parts.
type replacement = func(n node) node

// ReplaceAll returns the selector with another in place of each all() and
// global(); nil leaves them.
func (s *Selector) ReplaceAll(ofAll, ofGlobal *Selector) *Selector {
	return compile(s.root.replace(func(n node) node {
		switch n.(type) {
		case all:
			if ofAll != nil {
				return ofAll.root
			}
		case global:
			if ofGlobal != nil {
				return ofGlobal.root
			}
		}
		return n
	}))
}

// HasGlobal reports whether global() is a part of the selector.
func (s *Selector) HasGlobal() bool {
	found := false
	s.root.replace(func(n node) node {
		if _, ok := n.(global); ok {
			found = true
		}
		return n
	})
	return found
}

// And returns what fulfils all of the selectors; there has to be one.
func And(list ...*Selector) *Selector {
	if len(list) == 1 {
		return list[0]
	}
	var nodes and
	for _, s := range list {
		nodes = append(nodes, s.root)
	}
	return compile(nodes)
}

// Values returns the only values that a label can have where the selector
// holds. ok is false if it may have any other, or be absent.
func (s *Selector) Values(label string) (values []string, ok bool) {
	return valuesOf(s.root, label)
}

func valuesOf(n node, label string) (out []string, ok bool) {
	switch n := n.(type) {
	case compare:
		return []string{n.value}, n.label == label && n.op == tokEqual
	case member:
		return n.values, n.label == label && !n.not
	case and:
		for _, x := range n {
			if out, ok := valuesOf(x, label); ok {
				return out, true
			}
		}
	case or:
		for _, x := range n {
			some, ok := valuesOf(x, label)
			if !ok {
				return nil, false
			}
			out = append(out, some...)
		}
		slices.Sort(out)
		return slices.Compact(out), true
	}
	return nil, false
}

// quote is canonical: double quotes unless the value has some.
func quote(b []byte, s string) []byte {
	q := byte('"')
	if strings.Contains(s, `"`) {
		q = '\''
	}
	return append(append(append(b, q), s...), q)
}

// Equal returns what has a label of that value, whatever characters are in it.
func Equal(label, value string) *Selector { return compile(compare{label, tokEqual, value}) }

// Not returns what fulfils a selector's contrary.
func Not(s *Selector) *Selector { return compile(not{s.root}) }
