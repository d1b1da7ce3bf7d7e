package resolve

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
)

// Site is the node that peers are resolved for.
type Site struct {
	Node  string
	Addrs []netip.Addr // its own, beside what the store has
}

// own returns all addresses of the node.
func (s *Site) own(v store.View) []netip.Addr {
	return sortedAddrs(slices.Concat(s.Addrs, v.NodeAddrs(s.Node)))
}

// others returns the addresses of all other nodes.
func (s *Site) others(v store.View) []netip.Addr {
	own := s.own(v)
	var out []netip.Addr
	for name := range v.NodeNames() {
		if name != s.Node {
			out = append(out, v.NodeAddrs(name)...)
		}
	}
	out = slices.DeleteFunc(out, func(a netip.Addr) bool { return slices.Contains(own, a) })
	return sortedAddrs(out)
}

// managed reports whether a pod or a node has an address.
func (s *Site) managed(v store.View, a netip.Addr) bool {
	return v.Managed(a) || slices.Contains(s.Addrs, a)
}

// place is what a peer that is no selector, block or domain comes down to.
type place struct {
	addrs     []netip.Addr // sorted; none of them is a pod's, unless it is a node's too
	selectors []*policy.Selector
	blocks    []policy.Block
	nets      [][]netip.Prefix // sets of CIDRs, whoever has the addresses
	served    []served         // of Endpoints
}

var worlds = []struct {
	zone policy.Zone
	all  netip.Prefix
}{
	{policy.ZoneWorldIPv4, netip.MustParsePrefix("0.0.0.0/0")},
	{policy.ZoneWorldIPv6, netip.MustParsePrefix("::/0")},
}

// placeOf resolves zones, groups, Services, names and selectors that match
// network sets. Names resolve to those
// of their addresses that nobody manages.
func placeOf(v store.View, s *Site, domains map[string][]netip.Addr, q *policy.Peer) (out place) {
	switch {
	case q.Selector != nil:
		return place{selectors: []*policy.Selector{q.Selector.Pods()}, nets: setsOf(v, q.Selector)}
	case q.Endpoints != nil:
		return endpointsPlace(v, q.Endpoints)
	case q.Group != nil:
		for _, c := range v.CIDRs(q.Group) {
			out.blocks = append(out.blocks, policy.Block{Prefix: c, Except: q.Group.Except, Unmanaged: true})
		}
	case q.Services != nil:
		return servicePlace(v, q.Services)
	case q.Name != nil:
		for name, addrs := range domains {
			if q.Name.Matches(name) {
				out.addrs = append(out.addrs, addrs...)
			}
		}
		out.addrs = slices.DeleteFunc(sortedAddrs(out.addrs), func(a netip.Addr) bool { return s.managed(v, a) })
	default:
		return zonePlace(v, s, q)
	}
	return out
}

func zonePlace(v store.View, s *Site, q *policy.Peer) (out place) {
	zone := q.Zone
	if zone == 0 && q.APIServer == policy.Only {
		zone = policy.ZoneOwnNode | policy.ZoneOtherNodes | policy.ZoneWorldIPv4 | policy.ZoneWorldIPv6
	}
	if zone&policy.ZoneOwnNode != 0 {
		out.addrs = append(out.addrs, s.own(v)...)
	}
	if zone&policy.ZoneOtherNodes != 0 {
		out.addrs = append(out.addrs, s.others(v)...)
	}
	var api []netip.Addr
	if q.APIServer != policy.Whether {
		api = v.APIServer()
		out.addrs = slices.DeleteFunc(out.addrs, func(a netip.Addr) bool {
			return slices.Contains(api, a) != (q.APIServer == policy.Only)
		})
	}
	out.addrs = sortedAddrs(out.addrs)
	for _, w := range worlds {
		if zone&w.zone == 0 {
			continue
		}
		var some []netip.Prefix
		for _, a := range api {
			if w.all.Contains(a) {
				some = append(some, netip.PrefixFrom(a, a.BitLen()))
			}
		}
		if q.APIServer != policy.Only {
			out.blocks = append(out.blocks, policy.Block{Prefix: w.all, Except: some, Unmanaged: true})
			continue
		}
		for _, p := range some {
			out.blocks = append(out.blocks, policy.Block{Prefix: p, Unmanaged: true})
		}
	}
	return out
}

func servicePlace(v store.View, q *policy.ServicePods) (out place) {
	for _, svc := range v.Services(q) {
		if len(svc.Selector) > 0 {
			out.selectors = append(out.selectors, servicePods(svc))
			continue
		}
		for _, a := range v.ServiceAddrs(svc.Key()) {
			out.blocks = append(out.blocks, policy.Block{Prefix: netip.PrefixFrom(a, a.BitLen()), Unmanaged: true})
		}
	}
	return out
}

// isPlace reports whether placeOf resolves the peer.
func isPlace(q *policy.Peer) bool {
	return q.Selector == nil && q.Block == nil && q.Domain == "" || q.Selector != nil && q.Selector.NetworkSets()
}

func sortedAddrs(addrs []netip.Addr) []netip.Addr {
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// PlaceMatches reports whether a peer that is a zone, a group, Services, a name
// or a selector that matches network sets matches a remote end: an address that pods of these identities have.
func PlaceMatches(v store.View, s *Site, domains map[string][]netip.Addr, q *policy.Peer, a netip.Addr, ids []*store.Identity) bool {
	p := placeOf(v, s, domains, q)
	if _, ok := slices.BinarySearchFunc(p.addrs, a, netip.Addr.Compare); ok {
		return true
	}
	for _, sel := range p.selectors {
		if slices.ContainsFunc(ids, func(id *store.Identity) bool { return sel.Matches(&id.Entity) }) {
			return true
		}
	}
	if a.IsValid() && inNets(p.nets, a) {
		return true
	}
	return slices.ContainsFunc(p.blocks, func(b policy.Block) bool { return BlockMatches(v, s, &b, a) })
}

// BlockMatches reports whether a block matches an address.
func BlockMatches(v store.View, s *Site, b *policy.Block, a netip.Addr) bool {
	return a.IsValid() && b.Contains(a) && !(b.Unmanaged && s.managed(v, a))
}
