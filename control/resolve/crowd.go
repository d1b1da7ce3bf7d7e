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
	addrs []netip.Addr // sorted, unique
	sums  []uint64     // of the hashes of addrs up to that one, itself left out
}

// managed returns the crowd. Its addresses are among the Set's from then on,
// as peers that no rule needs to name: an address that is not bound there is
// nobody's.
func (p *Peers) managed() *crowd {
	if p.crowd != nil {
		return p.crowd
	}
	c := &crowd{}
	p.crowd = c
	collect := func(id rule.PeerID) {
		for _, x := range p.list[id].identities {
			x.EachAddr(func(a netip.Addr) { c.addrs = append(c.addrs, a) })
		}
		c.addrs = append(c.addrs, p.list[id].addrs...)
	}
	collect(p.Of(&policy.Peer{Selector: anyPod}))
	collect(p.Addrs(slices.Concat(p.site.own(p.view), p.site.others(p.view))))
	c.addrs = sortedAddrs(c.addrs)
	c.sums = make([]uint64, len(c.addrs)+1)
	for i, a := range c.addrs {
		c.sums[i+1] = c.sums[i] + maphash.Comparable(p.seed, a)
	}
	return c
}

// within returns a sum over those in a block, less its exceptions: it changes,
// but for a chance of 2^-64, whenever an address there comes to somebody or is
// given up.
func (c *crowd) within(b *policy.Block) uint64 {
	sum := c.in(b.Prefix)
	for _, x := range b.Except {
		sum -= c.in(x)
	}
	return sum
}

func (c *crowd) in(p netip.Prefix) uint64 {
	first, _ := slices.BinarySearchFunc(c.addrs, p.Addr(), netip.Addr.Compare)
	n, _ := slices.BinarySearchFunc(c.addrs[first:], p, func(a netip.Addr, p netip.Prefix) int {
		if p.Contains(a) {
			return -1
		}
		return 1
	})
	return c.sums[first+n] - c.sums[first]
}

// unmanagedBlocks returns the peers that are blocks of what nobody manages and
// contain an address, if nobody manages it.
func (p *Peers) unmanagedBlocks(a netip.Addr) (out rule.Identity) {
	if p.crowd == nil {
		return nil
	}
	if _, ok := slices.BinarySearchFunc(p.crowd.addrs, a, netip.Addr.Compare); ok {
		return nil
	}
	for i := range p.list {
		if b := p.list[i].block; b != nil && b.Unmanaged && b.Contains(a) {
			out = append(out, rule.PeerID(i))
		}
	}
	return out
}
