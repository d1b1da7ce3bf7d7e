package resolve

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Begin starts to bring the peers to another view: Touch is to be called for
// each identity that has changed and TouchAddr for each address, before any
// new peer is asked for. Moved says that nodes have other addresses, or that
// Services, endpoints or groups of CIDRs have changed. heard lists the names
// in domains that resolve to something else, or nothing, now; nil: look at all.
func (p *Peers) Begin(v store.View, domains map[string][]netip.Addr, heard []string, site Site, moved bool) {
	p.view, p.moved, p.resets = v, moved, false
	clear(p.changed)
	clear(p.renamed)
	clear(p.dirty)
	clear(p.looked)
	p.resite(site)
	p.relearn(domains, heard)
}

// Resets says, after Begin, that network sets have changed.
func (p *Peers) Resets() { p.resets = true }

// Touch looks at an identity that has appeared, vanished or got other
// addresses.
func (p *Peers) Touch(x *store.Identity) {
	m := p.members[x]
	if !x.Live() {
		if m != nil {
			p.count(m, -m.sum)
			p.nameChanged(x, -1)
			delete(p.members, x)
		}
		return
	}
	if m == nil {
		m = p.member(x)
		m.sum = 0
		for _, ns := range p.scopes(x) {
			for _, id := range p.selectors[ns] {
				if q := &p.list[id]; q.selector.Matches(&x.Entity) && q.matches(x) {
					m.join(id)
				}
			}
		}
		slices.Sort(m.ids)
		p.nameChanged(x, 1)
	}
	p.count(m, x.AddrSum()-m.sum)
	m.sum = x.AddrSum()
}

// scopes lists under which namespaces selectors are kept that may match x.
func (p *Peers) scopes(x *store.Identity) []string {
	if x.Entity.Kind == policy.KindPod && x.Entity.Namespace != "" {
		return []string{x.Entity.Namespace, ""}
	}
	return []string{""}
}

// count adds what an identity's addresses have become to its peers' hashes.
func (p *Peers) count(m *member, by uint64) {
	if by == 0 {
		return
	}
	for _, id := range m.ids {
		p.list[id].hash += by
		p.changed[id] = struct{}{}
	}
}

// TouchAddr looks at an address that other pods or nodes have, once all
// identities are touched.
func (p *Peers) TouchAddr(a netip.Addr) {
	if _, ok := p.looked[a]; ok {
		return
	}
	p.looked[a], p.dirty[a] = struct{}{}, struct{}{}
	if p.crowd != nil {
		p.crowd.touch(p, a)
	}
	p.touchLearned(a)
	if len(p.inside) == 0 {
		return
	}
	for of, parts := range p.inside {
		has := false
		p.view.IdentitiesAt(a, func(x *store.Identity) {
			_, found := slices.BinarySearch(p.member(x).ids, of)
			has = has || found
		})
		for _, id := range parts {
			q := &p.list[id]
			if in := has && q.block.Contains(a); in {
				p.enlist(id, q, a)
			} else {
				p.delist(id, q, a)
			}
		}
	}
}

// resite takes other addresses of this node's own into account.
func (p *Peers) resite(site Site) {
	old := p.site
	p.site = site
	if old.Node == site.Node && slices.Equal(old.Addrs, site.Addrs) {
		return
	}
	p.moved = true
	p.late = slices.Concat(old.Addrs, site.Addrs)
}

// Touched ends what Begin began: all that has changed is touched.
func (p *Peers) Touched() {
	for _, a := range p.late {
		p.TouchAddr(a)
	}
	p.late = nil
	if p.moved && p.crowd != nil {
		p.relist(p.crowd.nodes, &p.list[p.crowd.nodes], p.nodeAddrs())
	}
	p.replace()
}

// Changed returns the peers whose addresses have changed since Begin, new ones
// included.
func (p *Peers) Changed() map[rule.PeerID]struct{} { return p.changed }

// member returns what is known of a live identity.
func (p *Peers) member(x *store.Identity) *member {
	m := p.members[x]
	if m == nil {
		m = &member{sum: x.AddrSum(), index: -1}
		p.members[x] = m
	}
	return m
}

func (m *member) join(id rule.PeerID) {
	m.ids = append(m.ids, id)
	m.index = -1
}

// spoil has Flush look at all addresses of an identity.
func (p *Peers) spoil(x *store.Identity) {
	if !p.emitted {
		return
	}
	x.EachAddr(func(a netip.Addr) { p.dirty[a] = struct{}{} })
}

// relist gives a list other addresses.
func (p *Peers) relist(id rule.PeerID, q *peer, addrs []netip.Addr) {
	for a := range q.listed {
		if _, keep := slices.BinarySearchFunc(addrs, a, netip.Addr.Compare); !keep {
			p.delist(id, q, a)
		}
	}
	for _, a := range addrs {
		p.enlist(id, q, a)
	}
}
