package selector

import (
	"slices"
	"strings"
)

// node is a part of a selector.
type node interface {
	holds(l Labels) bool
	spell(b []byte) []byte
	rename(name func(string) string) node
	replace(f replacement) node
}

type (
	all     struct{}
	global  struct{}
	has     struct{ label string }
	compare struct {
		label string
		op    kind
		value string
	}
	member struct {
		label  string
		values []string // sorted
		not    bool
	}
	not struct{ operand node }
	and []node
	or  []node
)

func (all) holds(Labels) bool    { return true }
func (global) holds(Labels) bool { return true }

func (n has) holds(l Labels) bool {
	_, ok := l.Get(n.label)
	return ok
}

func (n compare) holds(l Labels) bool {
	v, ok := l.Get(n.label)
	switch n.op {
	case tokEqual:
		return ok && v == n.value
	case tokNotEqual:
		return !ok || v != n.value
	case tokContains:
		return ok && strings.Contains(v, n.value)
	case tokStartsWith:
		return ok && strings.HasPrefix(v, n.value)
	}
	return ok && strings.HasSuffix(v, n.value)
}

func (n member) holds(l Labels) bool {
	v, ok := l.Get(n.label)
	if ok {
		_, ok = slices.BinarySearch(n.values, v)
	}
	return ok != n.not
}

func (n not) holds(l Labels) bool { return !n.operand.holds(l) }

func (n and) holds(l Labels) bool {
	for _, x := range n {
		if !x.holds(l) {
			return false
		}
	}
	return true
}

func (n or) holds(l Labels) bool {
	for _, x := range n {
		if x.holds(l) {
			return true
		}
	}
	return false
}

var spelled = map[kind]string{tokEqual: " == ", tokNotEqual: " != ", tokContains: " contains ",
	tokStartsWith: " starts with ", tokEndsWith: " ends with "}

func (all) spell(b []byte) []byte    { return append(b, "all()"...) }
func (global) spell(b []byte) []byte { return append(b, "global()"...) }
func (n has) spell(b []byte) []byte  { return append(append(append(b, "has("...), n.label...), ')') }
func (n not) spell(b []byte) []byte  { return n.operand.spell(append(b, '!')) }
func (n and) spell(b []byte) []byte  { return spellList(b, n, " && ") }
func (n or) spell(b []byte) []byte   { return spellList(b, n, " || ") }

func (n compare) spell(b []byte) []byte {
	return quote(append(append(b, n.label...), spelled[n.op]...), n.value)
}

func (n member) spell(b []byte) []byte {
	op := " in {"
	if n.not {
		op = " not in {"
	}
	b = append(append(b, n.label...), op...)
	for i, v := range n.values {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = quote(b, v)
	}
	return append(b, '}')
}

func spellList(b []byte, list []node, between string) []byte {
	b = append(b, '(')
	for i, x := range list {
		if i > 0 {
			b = append(b, between...)
		}
		b = x.spell(b)
	}
	return append(b, ')')
}

func (n all) rename(func(string) string) node    { return n }
func (n global) rename(func(string) string) node { return n }

func (n has) rename(name func(string) string) node { return has{name(n.label)} }
func (n compare) rename(name func(string) string) node {
	return compare{name(n.label), n.op, n.value}
}
func (n member) rename(name func(string) string) node { return member{name(n.label), n.values, n.not} }
func (n not) rename(name func(string) string) node    { return not{n.operand.rename(name)} }
func (n and) rename(name func(string) string) node {
	return and(each(n, func(x node) node { return x.rename(name) }))
}
func (n or) rename(name func(string) string) node {
	return or(each(n, func(x node) node { return x.rename(name) }))
}

func (n all) replace(f replacement) node     { return f(n) }
func (n global) replace(f replacement) node  { return f(n) }
func (n has) replace(f replacement) node     { return f(n) }
func (n compare) replace(f replacement) node { return f(n) }
func (n member) replace(f replacement) node  { return f(n) }
func (n not) replace(f replacement) node     { return not{n.operand.replace(f)} }
func (n and) replace(f replacement) node {
	return and(each(n, func(x node) node { return x.replace(f) }))
}
func (n or) replace(f replacement) node {
	return or(each(n, func(x node) node { return x.replace(f) }))
}

func each(list []node, f func(node) node) []node {
	out := make([]node, len(list))
	for i, x := range list {
		out[i] = f(x)
	}
	return out
}
