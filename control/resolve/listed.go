package resolve

import (
	"hash/maphash"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// enlist adds an address to a list, unless it is on it.
func (p *Peers) enlist(id rule.PeerID, q *peer, a netip.Addr) {
	if _, ok := q.listed[a]; ok {
		return
	}
	q.listed[a] = struct{}{}
	p.listed[a] = append(slices.Clip(p.listed[a]), id)
	p.relisted(id, q, a, maphash.Comparable(p.seed, a))
}

// delist takes an address off a list, if it is on it.
func (p *Peers) delist(id rule.PeerID, q *peer, a netip.Addr) {
	if _, ok := q.listed[a]; !ok {
		return
	}
	delete(q.listed, a)
	left := slices.DeleteFunc(slices.Clone(p.listed[a]), func(x rule.PeerID) bool { return x == id })
	if len(left) == 0 {
		delete(p.listed, a)
	} else {
		p.listed[a] = left
	}
	p.relisted(id, q, a, -maphash.Comparable(p.seed, a))
}

func (p *Peers) relisted(id rule.PeerID, q *peer, a netip.Addr, by uint64) {
	q.hash += by
	p.changed[id] = struct{}{}
	p.dirty[a] = struct{}{}
}
