package resolve

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Peers numbers the sets of remote addresses that the rules of one rule.Set
// refer to, and in the end spells them out.
type Peers struct {
	view    store.View
	index   *Index
	domains map[string][]netip.Addr
	site    Site
	crowd   *crowd // who is managed; nil until some block asks
	seed    maphash.Seed
	ids     map[string]rule.PeerID
	list    []peer
}

// peer is one set: identities, or a block, or addresses.
type peer struct {
	identities []*store.Identity
	block      *policy.Block
	addrs      []netip.Addr
	hash       uint64
}

// anyPod matches every pod with an address of its own.
var anyPod = policy.NewSelector(policy.SelectorSpec{})

// NewPeers starts an empty numbering. domains holds what names resolve to.
// Hashes of equal memberships are equal under the same seed.
func NewPeers(v store.View, x *Index, domains map[string][]netip.Addr, site Site, seed maphash.Seed) *Peers {
	return &Peers{view: v, index: x, domains: domains, site: site, seed: seed, ids: map[string]rule.PeerID{}}
}

// Len returns how many peers there are.
func (p *Peers) Len() int { return len(p.list) }

// Hash returns a hash of the addresses that a peer stands for: as long as it
// is the same, no address has joined or left, but for a chance of 2^-64.
func (p *Peers) Hash(id rule.PeerID) uint64 { return p.list[id].hash }

// All returns the numbers that a policy's peer comes down to.
func (p *Peers) All(q *policy.Peer) []rule.PeerID {
	if !isPlace(q) {
		return []rule.PeerID{p.Of(q)}
	}
	var out []rule.PeerID
	at := placeOf(p.view, &p.site, p.domains, q)
	if len(at.addrs) > 0 {
		out = append(out, p.Addrs(at.addrs))
	}
	for _, s := range at.selectors {
		out = append(out, p.Of(&policy.Peer{Selector: s}))
	}
	for i := range at.blocks {
		out = append(out, p.Of(&policy.Peer{Block: &at.blocks[i]}))
	}
	return out
}

// Of returns the number of a policy's peer that is a selector, a block or a
// domain.
func (p *Peers) Of(q *policy.Peer) rule.PeerID {
	switch {
	case q.Selector != nil:
		return p.intern("s"+q.Selector.Key(), func() peer { return p.selected(q.Selector, policy.Port{}) })
	case q.Block != nil:
		if q.Block.Unmanaged {
			p.managed()
		}
		return p.intern("b"+blockKey(q.Block), func() peer {
			hash := maphash.String(p.seed, blockKey(q.Block))
			if q.Block.Unmanaged {
				hash += p.managed().within(q.Block)
			}
			return peer{block: q.Block, hash: hash}
		})
	}
	return p.intern("d"+q.Domain, func() peer { return p.addresses(resolveDomain(p.domains, q.Domain)) })
}

// Addrs returns the number of a plain set of addresses.
func (p *Peers) Addrs(addrs []netip.Addr) rule.PeerID {
	sorted := slices.Compact(slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare))
	return p.intern("a"+fmt.Sprint(sorted), func() peer { return p.addresses(sorted) })
}

// Named is one number that a port name stands for, and where.
type Named struct {
	Protocol policy.Protocol
	Port     uint16
	Peer     rule.PeerID
}

// Named resolves a named port on the destinations that q describes, or on any
// pod if q is nil: for each number that the name has on some of them, who
// these are.
func (p *Peers) Named(q *policy.Peer, port policy.Port) []Named {
	sel := anyPod
	if q != nil && isPlace(q) {
		var out []Named
		for _, s := range placeOf(p.view, &p.site, p.domains, q).selectors {
			out = append(out, p.Named(&policy.Peer{Selector: s}, port)...)
		}
		return out
	}
	if q != nil {
		if q.Block != nil && q.Block.Unmanaged {
			return nil
		}
		if q.Domain != "" {
			return nil
		}
		if q.Selector != nil {
			sel = q.Selector
		}
	}
	var out []Named
	for _, n := range numbers(p.index.Match(p.view, sel), port) {
		if q != nil && q.Block != nil {
			key := fmt.Sprintf("n%s %d/%d %s", port.Name, n.Protocol, n.From, blockKey(q.Block))
			id := p.intern(key, func() peer { return p.addresses(addrsInside(p.selected(sel, n), q.Block)) })
			out = append(out, Named{n.Protocol, n.From, id})
			continue
		}
		key := fmt.Sprintf("n%s %d/%d %s", port.Name, n.Protocol, n.From, sel.Key())
		id := p.intern(key, func() peer { return p.selected(sel, n) })
		out = append(out, Named{n.Protocol, n.From, id})
	}
	return out
}

// numbers lists the distinct meanings of a named port, each as a Port with
// Name, Protocol and From, sorted.
func numbers(ids []*store.Identity, port policy.Port) []policy.Port {
	var out []policy.Port
	for _, id := range ids {
		for _, np := range id.Ports {
			if np.Name == port.Name && (port.Protocol == 0 || np.Protocol == port.Protocol) {
				out = append(out, policy.Port{Name: np.Name, Protocol: np.Protocol, From: np.Port, To: np.Port})
			}
		}
	}
	slices.SortFunc(out, func(a, b policy.Port) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.From, b.From))
	})
	return slices.Compact(out)
}

func (p *Peers) intern(key string, build func() peer) rule.PeerID {
	if id, ok := p.ids[key]; ok {
		return id
	}
	id := rule.PeerID(len(p.list))
	p.ids[key] = id
	p.list = append(p.list, build())
	return id
}

// selected collects the identities that a selector matches and, if port has a
// name, on which the port has this name and number.
func (p *Peers) selected(s *policy.Selector, port policy.Port) peer {
	var out peer
	for _, id := range p.index.Match(p.view, s) {
		if port.Name == "" || id.HasPort(port.Name, port.Protocol, port.From) {
			out.identities = append(out.identities, id)
			out.hash += id.AddrSum()
		}
	}
	return out
}

func (p *Peers) addresses(addrs []netip.Addr) peer {
	out := peer{addrs: addrs}
	for _, a := range addrs {
		out.hash += maphash.Comparable(p.seed, a)
	}
	return out
}

func addrsInside(q peer, b *policy.Block) []netip.Addr {
	var out []netip.Addr
	for _, id := range q.identities {
		id.EachAddr(func(a netip.Addr) {
			if b.Contains(a) {
				out = append(out, a)
			}
		})
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func blockKey(b *policy.Block) string {
	key := make([]byte, 0, 64)
	if b.Unmanaged {
		key = append(key, 'u')
	}
	key, _ = b.Prefix.AppendBinary(key)
	key = append(key, byte(b.Prefix.Addr().BitLen()))
	except := slices.SortedFunc(slices.Values(b.Except), netip.Prefix.Compare)
	for _, x := range slices.Compact(except) {
		n := len(key)
		key, _ = x.AppendBinary(append(key, 0))
		key[n] = byte(len(key) - n)
	}
	return string(binary.AppendUvarint(key, uint64(len(except))))
}
