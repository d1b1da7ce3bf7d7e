package resolve

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// everything is all addresses of a family.
var everything = [2]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// local judges what a rule asks of its subject. It reports whether the rule
// can match, and limits it to one IP version if it does with that one only.
// closes: the rule denies, and not only in a report.
func (p *Peers) local(of policy.Origin, r *policy.Rule, subject Subject, closes bool, line *rule.Rule) bool {
	ok := p.families(of, r, subject, closes)
	switch {
	case ok[0] && !ok[1]:
		line.And = append(line.And, []rule.PeerID{p.Of(&policy.Peer{Block: &policy.Block{Prefix: everything[0]}})})
	case !ok[0] && ok[1]:
		line.And = append(line.And, []rule.PeerID{p.Of(&policy.Peer{Block: &policy.Block{Prefix: everything[1]}})})
	}
	return ok[0] || ok[1]
}

// Partly reports whether a rule holds at some of its subject's addresses of one
// family and not at others.
func (p *Peers) Partly(of policy.Origin, r *policy.Rule, subject Subject) bool {
	return len(subject.Addrs) > 0 && p.families(of, r, subject, true) != p.families(of, r, subject, false)
}

// families returns the families in which a rule holds for its subject. Rules
// don't see which of its addresses of one family a subject uses: if they differ,
// a rule that closes holds for all and any other for none.
func (p *Peers) families(of policy.Origin, r *policy.Rule, subject Subject, closes bool) [2]bool {
	ok := [2]bool{true, true}
	for _, list := range r.Local {
		p.narrow(of, list, subject, closes, true, &ok)
	}
	if len(r.NotLocal) > 0 {
		p.narrow(of, r.NotLocal, subject, closes, false, &ok)
	}
	return ok
}

// narrow takes those families out of ok in which the subject is not among the
// peers, or with want false, is.
func (p *Peers) narrow(of policy.Origin, list []policy.Peer, subject Subject, closes, want bool, ok *[2]bool) {
	var any, all, seen [2]bool
	for f := range all {
		all[f] = true
	}
	for _, a := range subject.Addrs {
		f := family(a)
		in := p.among(of, list, subject.Identity, a) == want
		any[f], all[f], seen[f] = any[f] || in, all[f] && in, true
	}
	bare := p.among(of, list, subject.Identity, netip.Addr{}) == want
	for f := range ok {
		holds := all[f]
		switch {
		case !seen[f] && seen[1-f]:
			holds = all[1-f] // no packet has an address of this family
			if closes {
				holds = any[1-f]
			}
		case !seen[f]:
			holds = bare
		case closes:
			holds = any[f]
		}
		ok[f] = ok[f] && holds
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// among reports whether a subject with an address, or without, is any of the
// peers.
func (p *Peers) among(of policy.Origin, list []policy.Peer, id *store.Identity, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(q policy.Peer) bool {
		switch {
		case q.Block != nil:
			return a.IsValid() && q.Block.Contains(a)
		case q.Selector == nil:
			return false
		case q.Selector.Matches(&id.Entity):
			return true
		case !q.Selector.NetworkSets():
			return false
		}
		at := p.placeOf(of, &q)
		return a.IsValid() && inNets(at.nets, a)
	})
}

// IsLocal reports whether a subject at an address is a peer, one of those that
// Rule.Local may have.
func IsLocal(v store.View, q *policy.Peer, id *store.Identity, a netip.Addr) bool {
	switch {
	case q.Block != nil:
		return a.IsValid() && q.Block.Contains(a)
	case q.Selector == nil:
		return false
	case q.Selector.Matches(&id.Entity):
		return true
	}
	return a.IsValid() && inNets(setsOf(v, q.Selector), a)
}

// ByAddress reports whether a rule asks for the addresses of its subject. of is
// the policy that it is from, which is told by Renamed when that changes.
func (p *Peers) ByAddress(of policy.Origin, r *policy.Rule) bool {
	asks := func(q policy.Peer) bool {
		return q.Block != nil || q.Selector != nil && q.Selector.NetworkSets() && len(p.placeOf(of, &q).nets) > 0
	}
	return slices.ContainsFunc(r.NotLocal, asks) ||
		slices.ContainsFunc(r.Local, func(list []policy.Peer) bool { return slices.ContainsFunc(list, asks) })
}

// Caller returns the identity that a rule looks names of ports up on, on its
// subject: without ports if what the rule asks of it holds only because a
// network set has its address.
func Caller(r *policy.Rule, id *store.Identity) *store.Identity {
	for _, list := range r.Local {
		if len(callers(list, []*store.Identity{id})) == 0 {
			bare := *id
			bare.Ports = nil
			return &bare
		}
	}
	return id
}

// Callers returns the identities of a remote end that a rule looks names of
// ports up on: those that it selects, if it selects any.
func Callers(r *policy.Rule, ids []*store.Identity) []*store.Identity {
	if r.AnyPeer {
		return ids
	}
	return callers(r.Peers, ids)
}

func callers(list []policy.Peer, ids []*store.Identity) []*store.Identity {
	if !slices.ContainsFunc(list, func(q policy.Peer) bool { return q.Selector != nil }) {
		return ids
	}
	var out []*store.Identity
	for _, id := range ids {
		if slices.ContainsFunc(list, func(q policy.Peer) bool { return q.Selector != nil && q.Selector.Matches(&id.Entity) }) {
			out = append(out, id)
		}
	}
	return out
}

func inNets(nets [][]netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(nets, func(set []netip.Prefix) bool {
		return slices.ContainsFunc(set, func(c netip.Prefix) bool { return c.Contains(a) })
	})
}

// setsOf returns the CIDRs of the network sets that a selector matches.
func setsOf(v store.View, s *policy.Selector) [][]netip.Prefix {
	var out [][]netip.Prefix
	for _, set := range v.NetworkSets(s) {
		if len(set.CIDRs) > 0 {
			out = append(out, set.CIDRs)
		}
	}
	return out
}
