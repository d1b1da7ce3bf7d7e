package resolve

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// learned is what names resolve to, and to which peers that matters. A name
// that resolves to something else costs a look at the peers that it matches;
// which ones these are costs a match of each pattern when it is first seen.
type learned struct {
	known    map[string][]netip.Addr
	teaches  map[string][]rule.PeerID // peers by the names that they match
	patterns []rule.PeerID
}

// pattern is a domain or a name of a policy.
type pattern struct {
	matches   func(name string) bool
	unmanaged bool               // its names mean only addresses that nobody manages
	heard     map[netip.Addr]int // how many of its names resolve to the address
}

func newLearned() learned {
	return learned{known: map[string][]netip.Addr{}, teaches: map[string][]rule.PeerID{}}
}

// taught returns the number of a peer that is a domain or a name.
func (p *Peers) taught(q *policy.Peer) rule.PeerID {
	key, pat := "d"+q.Domain, &pattern{heard: map[netip.Addr]int{}}
	if q.Name != nil {
		key, pat.matches, pat.unmanaged = "f"+q.Name.Key(), q.Name.Matches, true
	} else {
		pat.matches = func(name string) bool { return domainMatches(q.Domain, name) }
	}
	return p.intern(key, func(id rule.PeerID) peer {
		p.patterns = append(p.patterns, id)
		for name, addrs := range p.known {
			if pat.matches(name) {
				p.teaches[name] = append(p.teaches[name], id)
				for _, a := range addrs {
					pat.heard[a]++
				}
			}
		}
		addrs := slices.SortedFunc(maps.Keys(pat.heard), netip.Addr.Compare)
		return p.listing(id, peer{name: pat}, slices.DeleteFunc(addrs, func(a netip.Addr) bool { return !p.means(pat, a) }))
	})
}

// means reports whether a pattern that has heard of an address means it.
func (p *Peers) means(pat *pattern, a netip.Addr) bool {
	return !pat.unmanaged || !p.site.managed(p.view, a)
}

// relearn takes over what names resolve to: those in heard, or all if it is
// nil.
func (p *Peers) relearn(domains map[string][]netip.Addr, heard []string) {
	for _, name := range heard {
		p.learn(name, domains[name])
	}
	if heard != nil {
		return
	}
	for name := range p.known {
		if _, still := domains[name]; !still {
			p.learn(name, nil)
		}
	}
	for name, addrs := range domains {
		p.learn(name, addrs)
	}
}

// learn takes over what one name resolves to.
func (p *Peers) learn(name string, addrs []netip.Addr) {
	old, known := p.known[name]
	if slices.Equal(old, addrs) && known == (len(addrs) > 0) {
		return
	}
	if !known && len(p.patterns) > 0 {
		var ids []rule.PeerID
		for _, id := range p.patterns {
			if p.list[id].name.matches(name) {
				ids = append(ids, id)
			}
		}
		if ids != nil {
			p.teaches[name] = ids
		}
	}
	for _, id := range p.teaches[name] {
		q := &p.list[id]
		for _, a := range addrs {
			q.name.heard[a]++
			p.relistHeard(id, q, a)
		}
		for _, a := range old {
			if q.name.heard[a]--; q.name.heard[a] == 0 {
				delete(q.name.heard, a)
			}
			p.relistHeard(id, q, a)
		}
	}
	if len(addrs) > 0 {
		p.known[name] = addrs
		return
	}
	delete(p.known, name)
	delete(p.teaches, name)
}

// relistHeard brings an address of a pattern in step with what is known of it.
func (p *Peers) relistHeard(id rule.PeerID, q *peer, a netip.Addr) {
	if q.name.heard[a] > 0 && p.means(q.name, a) {
		p.enlist(id, q, a)
	} else {
		p.delist(id, q, a)
	}
}

// touchLearned looks at an address that somebody has got or given up.
func (p *Peers) touchLearned(a netip.Addr) {
	for _, id := range p.patterns {
		if q := &p.list[id]; q.name.heard[a] > 0 {
			p.relistHeard(id, q, a)
		}
	}
}
