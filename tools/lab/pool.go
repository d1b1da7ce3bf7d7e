package lab

import (
	"net/netip"
	"slices"
)

// pool gives addresses to pods that have none, the same ones for as long as
// the lab is up.
type pool struct {
	name  string       // of the lab's node
	node  []netip.Addr // its addresses
	next  [2]netip.Addr
	given map[string][]netip.Addr // by pod key
}

func newPool(name string, node []netip.Addr) *pool {
	return &pool{
		name:  name,
		node:  node,
		next:  [2]netip.Addr{netip.MustParseAddr("10.244.0.2"), netip.MustParseAddr("fd00:10:244::2")},
		given: map[string][]netip.Addr{},
	}
}

// fill returns the specs with an address for each pod, and which addresses are
// not from the manifests.
func (p *pool) fill(specs []podSpec) ([]podSpec, map[string][]netip.Addr) {
	taken := map[netip.Addr]bool{}
	for _, a := range p.node {
		taken[a] = true
	}
	for _, s := range specs {
		for _, a := range s.addrs {
			taken[a] = true
		}
	}
	for _, addrs := range p.given {
		for _, a := range addrs {
			taken[a] = true
		}
	}
	specs = slices.Clone(specs)
	given := map[string][]netip.Addr{}
	for i := range specs {
		s := &specs[i]
		if len(s.addrs) > 0 {
			continue
		}
		s.addrs = p.given[s.key]
		switch {
		case s.hostNetwork && len(s.hostAddrs) > 0:
			s.addrs = s.hostAddrs
		case s.sharesNode(p.name):
			s.addrs = p.node
		case s.addrs == nil:
			for f := range p.next {
				for taken[p.next[f]] {
					p.next[f] = p.next[f].Next()
				}
				taken[p.next[f]] = true
				s.addrs = append(s.addrs, p.next[f])
			}
			p.given[s.key] = s.addrs
		}
		given[s.key] = s.addrs
	}
	return specs, given
}
