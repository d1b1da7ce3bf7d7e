package resolve

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Emit spells the peers out into set: Peers, Identities, Addresses and Blocks.
// Addresses that match no peer are left out.
func (p *Peers) Emit(set *rule.Set) {
	set.Peers = len(p.list)
	byIdentity := map[*store.Identity]rule.Identity{}
	var bound []binding
	for i := range p.list {
		id, q := rule.PeerID(i), &p.list[i]
		for _, x := range q.identities {
			if x.HasAddrs() {
				byIdentity[x] = append(byIdentity[x], id) // ascending: ids are
			}
		}
		for _, a := range q.addrs {
			bound = append(bound, binding{a, append(p.unmanagedBlocks(a), id)})
		}
		if q.block != nil {
			set.Blocks = append(set.Blocks, rule.Block{Peer: id, Prefix: q.block.Prefix, Unbound: q.block.Unmanaged,
				Except: slices.Compact(slices.SortedFunc(slices.Values(q.block.Except), netip.Prefix.Compare))})
		}
	}
	for x, ids := range byIdentity {
		x.EachAddr(func(a netip.Addr) { bound = append(bound, binding{a, ids}) })
	}
	slices.SortFunc(bound, func(a, b binding) int { return a.addr.Compare(b.addr) })
	bound = mergeEqual(bound)
	set.Identities, set.Addresses = number(bound)
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
func number(bound []binding) ([]rule.Identity, []rule.Address) {
	index := map[string]uint32{}
	keys := make([]string, len(bound))
	var key []byte
	var last *rule.PeerID
	for i, b := range bound {
		if first := &b.ids[0]; i > 0 && first == last && len(b.ids) == len(bound[i-1].ids) {
			keys[i] = keys[i-1]
			continue
		}
		last = &b.ids[0]
		key = key[:0]
		for _, id := range b.ids {
			key = append(key, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
		}
		keys[i] = string(key)
		index[keys[i]] = 0
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
	return identities, addrs
}
