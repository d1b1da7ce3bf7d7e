package store

import (
	"slices"

	"github.com/sluice-net/sluice/control/policy"
)

// Tier is a tier that is an object of its own.
type Tier struct {
	Name  string
	Order float64
	Pass  bool // what no rule matches is left to the next tier
}

// SetTier adds or replaces a tier.
func (tx *Tx) SetTier(t *Tier) {
	if old := tx.st.tiers[t.Name]; old == nil || *old != *t {
		tx.changed = true
		tx.st.tiers[t.Name] = t
		tx.retier(t.Name)
	}
}

// DeleteTier removes a tier; policies that are in it stay.
func (tx *Tx) DeleteTier(name string) {
	if _, ok := tx.st.tiers[name]; ok {
		tx.changed = true
		delete(tx.st.tiers, name)
		tx.retier(name)
	}
}

// retier has the policies of a tier follow it.
func (tx *Tx) retier(name string) {
	in := func(p *policy.Policy) bool { return p.TierObject && p.Tier.Name == name }
	for _, e := range tx.st.policies {
		if slices.ContainsFunc(e.parts, in) {
			e.settle(tx.st)
			tx.st.note(Change{Policy: e.origin})
		}
	}
}

// settle lists what is in force of an object, each in its tier.
func (e *policyEntry) settle(st *state) {
	e.parts = nil
	for _, p := range []*policy.Policy{e.good, e.rejected} {
		if p == nil {
			continue
		}
		if p.Tier == policy.TierUnplaced && e.good != nil { // in its tier as far as is known
			q := *p
			q.Tier, q.TierObject, q.TierName = e.good.Tier, e.good.TierObject, e.good.TierName
			p = &q
		}
		if p.Order == policy.OrderUnplaced && e.good != nil && p.Tier.Name == e.good.Tier.Name {
			q := *p
			q.Order = e.good.Order
			p = &q
		}
		e.parts = append(e.parts, st.inTier(p))
		for _, part := range p.Parts {
			e.parts = append(e.parts, st.inTier(part))
		}
	}
}

// inTier returns a policy as its tier has it.
func (st *state) inTier(p *policy.Policy) *policy.Policy {
	if !p.TierObject {
		return p
	}
	q := *p
	q.Tier.Order = policy.LastOrder
	if t := st.tiers[p.Tier.Name]; t != nil {
		q.Tier.Order = t.Order
		if t.Pass && !p.Rejected {
			q.Ingress.Default, q.Egress.Default = policy.Pass, policy.Pass
		}
	}
	return &q
}

// Tier returns a tier, or nil.
func (v View) Tier(name string) *Tier { return v.st.tiers[name] }
