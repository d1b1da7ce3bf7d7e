package store

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
)

// NetworkSet is a set of CIDRs that has labels, as pods have.
type NetworkSet struct {
	Namespace string // empty: of the whole cluster
	Name      string
	Labels    map[string]string
	CIDRs     []netip.Prefix // masked, sorted, unique
}

// Key returns the set's key.
func (s *NetworkSet) Key() Key { return Key{s.Namespace, s.Name} }

func (s *NetworkSet) equal(t *NetworkSet) bool {
	return s.Key() == t.Key() && maps.Equal(s.Labels, t.Labels) && slices.Equal(s.CIDRs, t.CIDRs)
}

// SetNetworkSet adds or replaces a network set.
func (tx *Tx) SetNetworkSet(s *NetworkSet) {
	if old := tx.st.outside.sets[s.Key()]; old == nil || !old.equal(s) {
		tx.setsChanged()
		tx.st.outside.sets[s.Key()] = s
	}
}

// DeleteNetworkSet removes a network set.
func (tx *Tx) DeleteNetworkSet(key Key) {
	if _, ok := tx.st.outside.sets[key]; ok {
		tx.setsChanged()
		delete(tx.st.outside.sets, key)
	}
}

func (tx *Tx) setsChanged() {
	tx.changed = true
	tx.st.note(Change{NetworkSets: true})
}

// NetworkSets returns the network sets that a selector matches, by namespace
// and name.
func (v View) NetworkSets(s *policy.Selector) []*NetworkSet {
	if !s.Spec().NetworkSets {
		return nil
	}
	var out []*NetworkSet
	for key, set := range v.st.outside.sets {
		e := policy.Entity{Kind: policy.KindNetworkSet, Namespace: key.Namespace, Labels: set.Labels}
		if key.Namespace != "" {
			if e.NamespaceLabels = v.NamespaceLabels(key.Namespace); e.NamespaceLabels == nil {
				e.NamespaceLabels = map[string]string{NameLabel: key.Namespace}
			}
		}
		if s.Matches(&e) {
			out = append(out, set)
		}
	}
	slices.SortFunc(out, func(a, b *NetworkSet) int { return compareKeys(a.Key(), b.Key()) })
	return out
}
