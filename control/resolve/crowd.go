package resolve

import (
	"hash/maphash"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// crowd is all addresses that pods or nodes have, so that blocks that leave
// these out know of them.
type crowd struct {
	addrs  map[netip.Addr]struct{}
	nodes  rule.PeerID   // a list of the addresses of all nodes, and of pods on a node's network
	blocks []rule.PeerID // that leave the crowd out
}

// managed begins to follow the crowd. Its addresses are among the Set's from
// then on, by peers that no rule needs to name: an address that is not bound
// there is nobody's.
func (p *Peers) managed() {
	if p.crowd != nil {
		return
	}
	c := &crowd{addrs: map[netip.Addr]struct{}{}}
	p.crowd = c
	p.selected(anyPod, policy.Port{})
	for _, x := range p.index.Match(p.view, anyPod) {
		x.EachAddr(func(a netip.Addr) { c.addrs[a] = struct{}{} })
	}
	nodes := p.nodeAddrs()
	c.nodes = p.intern("nodes", func(id rule.PeerID) peer { return p.listing(id, peer{}, nodes) })
	for _, a := range nodes {
		c.addrs[a] = struct{}{}
	}
}

func (p *Peers) nodeAddrs() []netip.Addr {
	return sortedAddrs(slices.Concat(p.site.own(p.view), p.site.others(p.view), p.view.UnplacedAddrs()))
}

// join adds a block and returns a sum over who is in it: it changes, but for a
// chance of 2^-64, whenever an address there comes to somebody or is given up.
func (c *crowd) join(p *Peers, id rule.PeerID, b *policy.Block) (sum uint64) {
	c.blocks = append(c.blocks, id)
	for a := range p.listed { // they are bound and may be nobody's all the same
		p.dirty[a] = struct{}{}
	}
	for a := range c.addrs {
		if b.Contains(a) {
			sum += maphash.Comparable(p.seed, a)
		}
	}
	return sum
}

// touch looks whether an address belongs to the crowd.
func (c *crowd) touch(p *Peers, a netip.Addr) {
	_, was := c.addrs[a]
	is := p.site.managed(p.view, a)
	if is == was {
		return
	}
	by := maphash.Comparable(p.seed, a)
	if is {
		c.addrs[a] = struct{}{}
	} else {
		delete(c.addrs, a)
		by = -by
	}
	for _, id := range c.blocks {
		if q := &p.list[id]; q.block.Contains(a) {
			q.hash += by
			p.changed[id] = struct{}{}
		}
	}
}

// openBlocks returns the peers that are blocks of what nobody manages and
// contain an address, if nobody manages it.
func (p *Peers) openBlocks(a netip.Addr) (out rule.Identity) {
	if p.crowd == nil {
		return nil
	}
	if _, ok := p.crowd.addrs[a]; ok {
		return nil
	}
	for _, id := range p.crowd.blocks {
		if p.list[id].block.Contains(a) {
			out = append(out, id)
		}
	}
	return out
}
