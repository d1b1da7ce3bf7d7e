package resolve

import (
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
// refer to, spells them out, and keeps them in step with the store: a peer has
// its number for as long as Peers lives.
//
// Begin and Touch bring it to another view, Flush says what that has changed
// of the addresses. An identity costs a look at the selectors of its namespace
// and at those that don't name one when it appears, and nothing later.
type Peers struct {
	view  store.View
	index *Index
	learned
	site  Site
	crowd *crowd // who is managed; nil until some block asks
	seed  maphash.Seed
	ids   map[string]rule.PeerID
	list  []peer

	selectors map[string][]rule.PeerID      // peers by selector, by the only namespace they select, "" for any
	members   map[*store.Identity]*member   // identities that are known to match peers, and some that match none
	listed    map[netip.Addr][]rule.PeerID  // of peers that are lists of addresses
	inside    map[rule.PeerID][]rule.PeerID // parts of a selection that lie in a block
	names     map[string]*name
	places    map[string]*placed
	emission

	changed map[rule.PeerID]struct{} // hashes that changed since Begin
	renamed map[policy.Origin]struct{}
	moved   bool                    // places may come down to something else
	resets  bool                    // so may selectors that match network sets
	late    []netip.Addr            // of this node, to be touched after all others
	looked  map[netip.Addr]struct{} // addresses that TouchAddr has looked at since Begin
	dirty   map[netip.Addr]struct{} // addresses to be looked at by Flush
}

// peer is one set: what a selector matches, of that perhaps only who calls a
// port so, or only who is in a block; or a block, or several CIDRs; or a list of
// addresses.
type peer struct {
	selector *policy.Selector
	port     policy.Port   // with a Name: of identities that have it
	of       rule.PeerID   // with listed and block: the selection
	block    *policy.Block // alone, or what listed is limited to
	nets     []netip.Prefix
	name     *pattern // listed is what its names resolve to
	listed   map[netip.Addr]struct{}
	hash     uint64
}

// member is what is known of an identity.
type member struct {
	ids   rule.Identity // ascending
	sum   uint64        // its AddrSum as counted in the peers' hashes
	index int           // in Set.Identities, -1 if not known
}

// anyPod matches every pod with an address of its own.
var anyPod = policy.NewSelector(policy.SelectorSpec{})

// NewPeers starts an empty numbering. domains holds what names resolve to; a
// list of addresses, once handed over, must not change.
// Hashes of equal memberships are equal under the same seed.
func NewPeers(v store.View, x *Index, domains map[string][]netip.Addr, site Site, seed maphash.Seed) *Peers {
	p := &Peers{view: v, index: x, learned: newLearned(), site: site, seed: seed, ids: map[string]rule.PeerID{},
		selectors: map[string][]rule.PeerID{}, members: map[*store.Identity]*member{},
		listed: map[netip.Addr][]rule.PeerID{}, inside: map[rule.PeerID][]rule.PeerID{}, names: map[string]*name{}, places: map[string]*placed{},
		changed: map[rule.PeerID]struct{}{}, renamed: map[policy.Origin]struct{}{}, looked: map[netip.Addr]struct{}{}, dirty: map[netip.Addr]struct{}{}}
	p.relearn(domains, nil)
	return p
}

// Len returns how many things are remembered: peers, and names of ports and places,
// which may come down to none.
func (p *Peers) Len() int { return len(p.list) + len(p.names) + len(p.places) }

// Hash returns a hash of the addresses that a peer stands for: as long as it
// is the same, no address has joined or left, but for a chance of 2^-64.
func (p *Peers) Hash(id rule.PeerID) uint64 { return p.list[id].hash }

// All returns the numbers that a policy's peer comes down to. user is the
// policy that asks.
func (p *Peers) All(user policy.Origin, q *policy.Peer) []rule.PeerID {
	if !isPlace(q) || q.Name != nil {
		return []rule.PeerID{p.Of(q)}
	}
	var out []rule.PeerID
	at := p.placeOf(user, q)
	if len(at.addrs) > 0 {
		out = append(out, p.Addrs(at.addrs))
	}
	for _, s := range at.selectors {
		out = append(out, p.Of(&policy.Peer{Selector: s}))
	}
	for i := range at.blocks {
		out = append(out, p.Of(&policy.Peer{Block: &at.blocks[i]}))
	}
	for _, nets := range at.nets {
		out = append(out, p.nets(nets))
	}
	return out
}

// nets returns the number of a set of CIDRs.
func (p *Peers) nets(nets []netip.Prefix) rule.PeerID {
	key := fmt.Sprint("c", nets)
	return p.intern(key, func(rule.PeerID) peer { return peer{nets: nets, hash: maphash.String(p.seed, key)} })
}

// Of returns the number of a policy's peer that is a selector, a block, a
// domain or a name.
func (p *Peers) Of(q *policy.Peer) rule.PeerID {
	switch {
	case q.Selector != nil:
		return p.selected(q.Selector, policy.Port{})
	case q.Block != nil:
		key := blockKey(q.Block)
		if q.Block.Unmanaged {
			p.managed()
		}
		return p.intern("b"+key, func(id rule.PeerID) peer {
			hash := maphash.String(p.seed, key)
			if q.Block.Unmanaged {
				hash += p.crowd.join(p, id, q.Block)
			}
			return peer{block: q.Block, hash: hash}
		})
	}
	return p.taught(q)
}

// Addrs returns the number of a plain set of addresses.
func (p *Peers) Addrs(addrs []netip.Addr) rule.PeerID {
	sorted := slices.Compact(slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare))
	return p.intern("a"+fmt.Sprint(sorted), func(id rule.PeerID) peer { return p.listing(id, peer{}, sorted) })
}

func (p *Peers) intern(key string, build func(rule.PeerID) peer) rule.PeerID {
	if id, ok := p.ids[key]; ok {
		return id
	}
	id := rule.PeerID(len(p.list))
	p.ids[key] = id
	p.list = append(p.list, peer{})
	p.list[id] = build(id)
	p.changed[id] = struct{}{}
	return id
}

// selected numbers the identities that a selector matches and, if port has a
// name, on which the port has this name and number.
func (p *Peers) selected(s *policy.Selector, port policy.Port) rule.PeerID {
	key := "s" + s.Key()
	if port.Name != "" {
		key = fmt.Sprintf("n%s %d/%d %s", port.Name, port.Protocol, port.From, s.Key())
	}
	return p.intern(key, func(id rule.PeerID) peer {
		out := peer{selector: s, port: port}
		for _, x := range p.index.Match(p.view, s) {
			if out.matches(x) {
				m := p.member(x)
				m.join(id)
				out.hash += m.sum
				p.spoil(x)
			}
		}
		p.selectors[s.Namespace()] = append(p.selectors[s.Namespace()], id)
		return out
	})
}

// insideOf numbers the addresses of a selection that lie in a block.
func (p *Peers) insideOf(of rule.PeerID, b *policy.Block) rule.PeerID {
	return p.intern(fmt.Sprintf("i%d %s", of, blockKey(b)), func(id rule.PeerID) peer {
		q := &p.list[of]
		var addrs []netip.Addr
		for _, x := range p.index.Match(p.view, q.selector) {
			if q.matches(x) {
				x.EachAddr(func(a netip.Addr) {
					if b.Contains(a) {
						addrs = append(addrs, a)
					}
				})
			}
		}
		p.inside[of] = append(p.inside[of], id)
		slices.SortFunc(addrs, netip.Addr.Compare)
		return p.listing(id, peer{of: of, block: b}, slices.Compact(addrs))
	})
}

// listing makes a peer of addresses, which are sorted and unique.
func (p *Peers) listing(id rule.PeerID, out peer, addrs []netip.Addr) peer {
	out.listed = make(map[netip.Addr]struct{}, len(addrs))
	for _, a := range addrs {
		p.enlist(id, &out, a)
	}
	return out
}

func (q *peer) matches(x *store.Identity) bool {
	return q.port.Name == "" || x.HasPort(q.port.Name, q.port.Protocol, q.port.From)
}

func blockKey(b *policy.Block) string {
	key := make([]byte, 0, 64)
	key, _ = b.Prefix.AppendBinary(key)
	key = append(key, byte(b.Prefix.Addr().BitLen()))
	except := slices.SortedFunc(slices.Values(b.Except), netip.Prefix.Compare)
	for _, x := range slices.Compact(except) {
		n := len(key)
		key, _ = x.AppendBinary(append(key, 0))
		key[n] = byte(len(key) - n)
	}
	if b.Unmanaged {
		key = append(key, 'u')
	}
	return string(binary.AppendUvarint(key, uint64(len(except))))
}
