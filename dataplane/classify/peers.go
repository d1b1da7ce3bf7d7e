package classify

import (
	"slices"
	"sort"

	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// unused marks a peer that no program of the node refers to.
const unused = ^uint32(0)

// peers numbers the peers that programs use, densely, for as long as the
// builder lives.
type peers struct {
	dense []uint32 // by PeerID
	count uint32
}

// use numbers the peers of programs that have no number yet and returns them.
func (p *peers) use(set *rule.Set, programs []rule.ProgramID) (added []rule.PeerID) {
	for len(p.dense) < set.Peers {
		p.dense = append(p.dense, unused)
	}
	for _, id := range programs {
		set.Programs[id].EachRule(func(r *rule.Rule) {
			r.EachPeer(func(peer rule.PeerID) {
				if p.dense[peer] == unused {
					p.dense[peer] = p.count
					p.count++
					added = append(added, peer)
				}
			})
		})
	}
	return added
}

// appendUsed appends the dense numbers of the used ones among ids, sorted.
func (p *peers) appendUsed(out []uint32, ids []rule.PeerID) []uint32 {
	start := len(out)
	for _, id := range ids {
		if d := p.dense[id]; d != unused {
			out = append(out, d)
		}
	}
	if !slices.IsSorted(out[start:]) {
		slices.Sort(out[start:])
	}
	return out
}

// classes numbers the distinct sets of used peers that an address may match.
type classes struct {
	sets     interner // of dense peers; class 0 is the empty set
	fixed    interner // what blocks add to the identity of a bound address; 0 is none
	identity []uint32 // index into Set.Identities → class
	scratch  []uint32

	// What bound has found since the last enter, by the identity's class.
	current, round uint32
	joint          []joint
}

type joint struct{ class, round uint32 }

func newClasses(set *rule.Set, p *peers) *classes {
	c := &classes{}
	c.sets.add(nil)
	c.fixed.add(nil)
	for _, ids := range set.Identities {
		c.identity = append(c.identity, c.of(ids, p))
	}
	return c
}

// of returns the class of an identity.
func (c *classes) of(ids rule.Identity, p *peers) uint32 {
	c.scratch = p.appendUsed(c.scratch[:0], ids)
	return c.sets.add(slices.Compact(c.scratch))
}

// settle finds the class of each of a family's points; both are sorted.
func (c *classes) settle(spans []span, points []point) {
	for i, s := range spans {
		n := len(points)
		if i+1 < len(spans) {
			n = sort.Search(n, func(k int) bool { return !points[k].addr.Less(spans[i+1].start) })
		}
		if n > 0 {
			c.enter(s.fixed)
		}
		for k := range points[:n] {
			points[k].class = c.bound(points[k].identity)
		}
		points = points[n:]
	}
}

// enter says what blocks add to the identities that bound is asked for next.
func (c *classes) enter(fixed uint32) {
	if fixed != c.current {
		c.current = fixed
		c.round++
	}
}

// bound returns the class of an address that has an identity and lies in the
// blocks last entered.
func (c *classes) bound(identity uint32) uint32 {
	class := c.identity[identity]
	if c.current == 0 {
		return class
	}
	for int(class) >= len(c.joint) {
		c.joint = append(c.joint, joint{})
	}
	if j := c.joint[class]; j.round == c.round {
		return j.class
	}
	c.scratch = append(append(c.scratch[:0], c.sets.at(class)...), c.fixed.at(c.current)...)
	slices.Sort(c.scratch)
	both := c.sets.add(slices.Compact(c.scratch))
	c.joint[class] = joint{both, c.round}
	return both
}

// members lists, for each dense peer, the classes that contain it.
func (c *classes) members(count uint32) (list, starts []uint32) {
	starts = make([]uint32, count+2)
	for _, peer := range c.sets.words {
		starts[peer+2]++
	}
	for i := 2; i < len(starts); i++ {
		starts[i] += starts[i-1]
	}
	list = make([]uint32, len(c.sets.words))
	for class := range uint32(c.sets.len()) {
		for _, peer := range c.sets.at(class) {
			list[starts[peer+1]] = class
			starts[peer+1]++
		}
	}
	return list, starts[:count+1]
}

// point is a bound address.
type point struct {
	addr            packet.Addr
	identity, class uint32
}

func comparePoints(a, b point) int {
	switch {
	case a.addr.Less(b.addr):
		return -1
	case b.addr.Less(a.addr):
		return 1
	}
	return 0
}

// points converts sorted addresses, by family: IPv4 sorts first.
func points(addresses []rule.Address) (v4, v6 []point) {
	n := sort.Search(len(addresses), func(i int) bool { return addresses[i].Addr.Is6() })
	out := make([]point, len(addresses))
	for i := range addresses {
		out[i] = point{addr: packet.AddrFrom(addresses[i].Addr), identity: addresses[i].Identity}
	}
	return out[:n:n], out[n:]
}
