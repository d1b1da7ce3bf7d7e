// Package resolve answers who a policy means: which identities a selector
// matches, which addresses that makes, and which numbers a named port has on
// which pods. It also judges single packets slowly and with all reasons given,
// for people who ask why.
//
// It is pure: its answers depend on the view and its arguments only. An Index
// and a Peers belong to one goroutine.
package resolve

import (
	"slices"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
)

// idleEpochs is for how many compiles an Index remembers an unused selector.
const idleEpochs = 64

// Index remembers which identities each selector matches. An identity never
// changes, so a selector looks at each one once: the first Match costs a look
// at all identities of the namespaces that can match, later ones a look at
// those that are new.
type Index struct {
	epoch   uint64
	matches map[string]*match
}

type match struct {
	ids  []*store.Identity
	seen uint64 // identities up to this ID have been looked at
	used uint64 // epoch of the last Match
}

// NewIndex returns an empty index for views of one store.
func NewIndex() *Index { return &Index{matches: map[string]*match{}} }

// Begin starts a compile: selectors that no recent one used are forgotten.
func (x *Index) Begin() {
	x.epoch++
	if x.epoch%idleEpochs != 0 {
		return
	}
	for k, m := range x.matches {
		if m.used+idleEpochs < x.epoch {
			delete(x.matches, k)
		}
	}
}

// Match returns the live identities that s matches, in no particular order.
// The slice is valid until the next Match of the same selector.
func (x *Index) Match(v store.View, s *policy.Selector) []*store.Identity {
	m := x.matches[s.Key()]
	if m == nil {
		m = &match{ids: matchAll(v, s)}
		x.matches[s.Key()] = m
	} else {
		m.ids = slices.DeleteFunc(m.ids, func(id *store.Identity) bool { return !id.Live() })
		for id := range v.IdentitiesSince(m.seen) {
			if s.Matches(&id.Entity) {
				m.ids = append(m.ids, id)
			}
		}
	}
	m.seen, m.used = v.LastIdentity(), x.epoch
	return m.ids
}

func matchAll(v store.View, s *policy.Selector) []*store.Identity {
	var out []*store.Identity
	add := func(id *store.Identity) {
		if s.Matches(&id.Entity) {
			out = append(out, id)
		}
	}
	switch {
	case s.Kind() != policy.KindPod:
		for id := range v.IdentitiesSince(0) {
			add(id)
		}
	case s.Namespace() != "":
		for id := range v.NamespaceIdentities(s.Namespace()) {
			add(id)
		}
	default:
		for ns := range v.Namespaces() {
			if !s.MatchesNamespace(ns, v.NamespaceLabels(ns)) {
				continue
			}
			for id := range v.NamespaceIdentities(ns) {
				add(id)
			}
		}
	}
	return out
}

// Selecting returns the policies that select an identity, in the order in
// which they are judged.
func Selecting(v store.View, id *store.Identity) []*policy.Policy {
	var out []*policy.Policy
	for _, ns := range [2]string{"", id.Entity.Namespace} {
		for p := range v.Policies(ns) {
			if p.Selects(&id.Entity) {
				out = append(out, p)
			}
		}
	}
	slices.SortStableFunc(out, (*policy.Policy).Compare)
	return out
}
