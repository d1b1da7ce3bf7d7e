package resolve

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// emission is what has been handed out of the addresses.
type emission struct {
	emitted    bool
	identities map[string]uint32 // spelt out → index in Set.Identities
	base       []rule.Address    // of the Set; sorted
	since      map[netip.Addr]int
	peers      int // as far as Blocks are handed out
}

// unbound in emission.since says that an address matches no peer any more.
const unbound = -1

// Emit spells the peers out into set: Peers, Identities, Addresses and Blocks.
// Addresses that match no peer are left out.
func (p *Peers) Emit(set *rule.Set) {
	var bound []binding
	for x, m := range p.members {
		if len(m.ids) > 0 {
			x.EachAddr(func(a netip.Addr) { bound = append(bound, binding{a, m.ids}) })
		}
	}
	for a, listed := range p.listed {
		ids := slices.Concat(listed, p.openBlocks(a))
		slices.Sort(ids)
		bound = append(bound, binding{a, ids})
	}
	slices.SortFunc(bound, func(a, b binding) int { return a.addr.Compare(b.addr) })
	set.Peers = len(p.list)
	set.Identities, set.Addresses = p.number(mergeEqual(bound))
	set.Blocks = p.newBlocks(nil)
	p.base, p.since, p.emitted = set.Addresses, map[netip.Addr]int{}, true
	clear(p.changed)
	clear(p.dirty)
}

// newBlocks appends the blocks of peers that are new.
func (p *Peers) newBlocks(out []rule.Block) []rule.Block {
	for ; p.peers < len(p.list); p.peers++ {
		q := &p.list[p.peers]
		for _, c := range q.nets {
			out = append(out, rule.Block{Peer: rule.PeerID(p.peers), Prefix: c})
		}
		if q.block != nil && q.listed == nil {
			out = append(out, rule.Block{Peer: rule.PeerID(p.peers), Prefix: q.block.Prefix, Unbound: q.block.Unmanaged,
				Except: slices.Compact(slices.SortedFunc(slices.Values(q.block.Except), netip.Prefix.Compare))})
		}
	}
	return out
}

// Flush writes into d what has changed since Begin, given the blocks that were
// handed out so far.
func (p *Peers) Flush(d *rule.Delta, blocks []rule.Block) {
	d.Peers = len(p.list)
	if n := len(blocks); p.peers < len(p.list) {
		if more := p.newBlocks(slices.Clip(blocks)); len(more) > n {
			d.Blocks = more
		}
	}
	for a := range p.dirty {
		is, was := p.identityAt(a, d), p.boundTo(a)
		if is == was {
			continue
		}
		p.since[a] = is
		if is == unbound {
			d.Unbind = append(d.Unbind, a)
		} else {
			d.Bind = append(d.Bind, rule.Address{Addr: a, Identity: uint32(is)})
		}
	}
	slices.SortFunc(d.Bind, func(a, b rule.Address) int { return a.Addr.Compare(b.Addr) })
	slices.SortFunc(d.Unbind, netip.Addr.Compare)
	if len(p.since) > 1<<12+len(p.base)/4 {
		p.rebase()
	}
}

// rebase merges what was bound since into the base.
func (p *Peers) rebase() {
	var out []rule.Address
	for _, b := range p.base {
		if _, again := p.since[b.Addr]; !again {
			out = append(out, b)
		}
	}
	for a, i := range p.since {
		if i != unbound {
			out = append(out, rule.Address{Addr: a, Identity: uint32(i)})
		}
	}
	slices.SortFunc(out, func(a, b rule.Address) int { return a.Addr.Compare(b.Addr) })
	p.base, p.since = out, map[netip.Addr]int{}
}

// boundTo returns the identity that was handed out for an address.
func (p *Peers) boundTo(a netip.Addr) int {
	if i, ok := p.since[a]; ok {
		return i
	}
	if i, ok := slices.BinarySearchFunc(p.base, a, func(x rule.Address, a netip.Addr) int { return x.Addr.Compare(a) }); ok {
		return int(p.base[i].Identity)
	}
	return unbound
}

// identityAt returns the index of what an address matches now, appending to
// d.Identities if it is new.
func (p *Peers) identityAt(a netip.Addr, d *rule.Delta) int {
	var only *member
	several := false
	p.view.IdentitiesAt(a, func(x *store.Identity) {
		m := p.member(x)
		several = several || only != nil && only != m
		only = m
	})
	if listed := p.listed[a]; several || len(listed) > 0 {
		ids := slices.Concat(listed, p.openBlocks(a))
		p.view.IdentitiesAt(a, func(x *store.Identity) { ids = append(ids, p.member(x).ids...) })
		slices.Sort(ids)
		return p.indexOf(slices.Compact(ids), d)
	}
	if only == nil {
		return unbound
	}
	if only.index < 0 {
		i := p.indexOf(only.ids, d)
		if i < 0 {
			return i
		}
		only.index = i
	}
	return only.index
}

func (p *Peers) indexOf(ids rule.Identity, d *rule.Delta) int {
	if len(ids) == 0 {
		return unbound
	}
	key := string(spellIDs(nil, ids))
	i, ok := p.identities[key]
	if !ok {
		i = uint32(len(p.identities))
		p.identities[key] = i
		d.Identities = append(d.Identities, slices.Clone(ids))
	}
	return int(i)
}

type binding struct {
	addr netip.Addr
	ids  rule.Identity
}

// mergeEqual joins the bindings of equal addresses: an address that several
// identities claim matches what any of them does.
func mergeEqual(in []binding) []binding {
	out := in[:0]
	for _, b := range in {
		n := len(out)
		if n == 0 || out[n-1].addr != b.addr {
			out = append(out, b)
			continue
		}
		union := slices.Concat(out[n-1].ids, b.ids)
		slices.Sort(union)
		out[n-1].ids = slices.Compact(union)
	}
	return out
}

// number gives each distinct set of peers an index, in the order of their
// contents.
func (p *Peers) number(bound []binding) ([]rule.Identity, []rule.Address) {
	index := map[string]uint32{}
	byHead := map[*rule.PeerID]string{} // of slices that several addresses share
	keys := make([]string, len(bound))
	var key []byte
	for i, b := range bound {
		head := &b.ids[0]
		spelt, ok := byHead[head]
		if !ok || len(spelt) != 4*len(b.ids) {
			key = spellIDs(key[:0], b.ids)
			spelt = string(key)
			byHead[head] = spelt
			index[spelt] = 0
		}
		keys[i] = spelt
	}
	sorted := make([]string, 0, len(index))
	for k := range index {
		sorted = append(sorted, k)
	}
	slices.SortFunc(sorted, strings.Compare)
	identities := make([]rule.Identity, len(sorted))
	for i, k := range sorted {
		index[k] = uint32(i)
		ids := make(rule.Identity, len(k)/4)
		for j := range ids {
			ids[j] = rule.PeerID(k[4*j])<<24 | rule.PeerID(k[4*j+1])<<16 | rule.PeerID(k[4*j+2])<<8 | rule.PeerID(k[4*j+3])
		}
		identities[i] = ids
	}
	addrs := make([]rule.Address, len(bound))
	for i, b := range bound {
		addrs[i] = rule.Address{Addr: b.addr, Identity: index[keys[i]]}
	}
	p.identities = index
	return identities, addrs
}

func spellIDs(b []byte, ids rule.Identity) []byte {
	for _, id := range ids {
		b = append(b, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
	}
	return b
}
