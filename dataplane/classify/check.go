package classify

import (
	"fmt"
	"slices"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// maxEndpoint bounds the slots of local endpoints, and so the index of them.
const maxEndpoint = endpoint.ID(1 << 20)

func usedPrograms(set *rule.Set) ([]rule.ProgramID, error) {
	var out []rule.ProgramID
	for i, e := range set.Endpoints {
		if e.ID == endpoint.None || e.ID > maxEndpoint {
			return nil, fmt.Errorf("endpoint %d: want 1 to %d", e.ID, maxEndpoint)
		}
		for _, p := range []rule.ProgramID{e.Ingress, e.Egress} {
			if int(p) >= len(set.Programs) {
				return nil, fmt.Errorf("endpoint %d: program %d: the set has %d", e.ID, p, len(set.Programs))
			}
			out = append(out, p)
		}
		if i > 0 && e.ID <= set.Endpoints[i-1].ID {
			return nil, fmt.Errorf("endpoint %d: not in ascending order", e.ID)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	for _, p := range out {
		if err := checkProgram(&set.Programs[p]); err != nil {
			return nil, fmt.Errorf("program %d: %w", p, err)
		}
	}
	return out, nil
}

func checkProgram(p *rule.Program) error {
	for t := range len(p.Tiers) + len(p.Staged) {
		tier := tierAt(p, t)
		if tier.DefaultCause > maxCause || tier.Default > rule.Deny {
			return fmt.Errorf("tier %q: default %v of cause %d", tier.Name, tier.Default, tier.DefaultCause)
		}
		for i := range tier.Rules {
			if r := &tier.Rules[i]; r.Cause > maxCause || r.Action > rule.Next {
				return fmt.Errorf("tier %q: rule %d: %v of cause %d", tier.Name, i, r.Action, r.Cause)
			}
		}
	}
	return nil
}

func tierAt(p *rule.Program, t int) *rule.Tier {
	if t < len(p.Tiers) {
		return &p.Tiers[t]
	}
	return &p.Staged[t-len(p.Tiers)]
}

// checkPeers reports peers that the set doesn't have, in programs, in the
// identities from one on, and in blocks.
func checkPeers(set *rule.Set, programs []rule.ProgramID, identity int, blocks bool) error {
	for _, id := range programs {
		var err error
		set.Programs[id].EachRule(func(r *rule.Rule) {
			r.EachPeer(func(p rule.PeerID) {
				if err == nil {
					err = checkIDs(set, []rule.PeerID{p})
				}
			})
		})
		if err != nil {
			return fmt.Errorf("program %d: %w", id, err)
		}
	}
	for i, ids := range set.Identities[identity:] {
		if err := checkIDs(set, ids); err != nil {
			return fmt.Errorf("identity %d: %w", identity+i, err)
		}
	}
	for i, b := range set.Blocks {
		if !blocks {
			break
		}
		if !b.Prefix.IsValid() {
			return fmt.Errorf("block %d of peer %d: not a prefix", i, b.Peer)
		}
		if int(b.Peer) >= set.Peers {
			return fmt.Errorf("block %s: peer %d: the set has %d", b.Prefix, b.Peer, set.Peers)
		}
	}
	return nil
}

func checkIDs(set *rule.Set, ids []rule.PeerID) error {
	for _, id := range ids {
		if int64(id) >= int64(set.Peers) {
			return fmt.Errorf("peer %d: the set has %d", id, set.Peers)
		}
	}
	return nil
}

func checkAddress(set *rule.Set, a rule.Address) error {
	if !a.Addr.IsValid() {
		return fmt.Errorf("address of identity %d: not an address", a.Identity)
	}
	if int64(a.Identity) >= int64(len(set.Identities)) {
		return fmt.Errorf("address %s: identity %d: the set has %d", a.Addr, a.Identity, len(set.Identities))
	}
	return nil
}

// sortedAddresses returns the addresses of a set, unmapped, in order.
func sortedAddresses(set *rule.Set) ([]rule.Address, error) {
	list, inOrder := set.Addresses, true
	for i, a := range list {
		if err := checkAddress(set, a); err != nil {
			return nil, err
		}
		inOrder = inOrder && !a.Addr.Is4In6() && a.Addr.Zone() == "" && (i == 0 || list[i-1].Addr.Less(a.Addr))
	}
	if inOrder {
		return list, nil
	}
	list = slices.Clone(list)
	for i := range list {
		list[i].Addr = list[i].Addr.Unmap().WithZone("")
	}
	slices.SortFunc(list, func(a, b rule.Address) int { return a.Addr.Compare(b.Addr) })
	for i := 1; i < len(list); i++ {
		if list[i].Addr == list[i-1].Addr {
			return nil, fmt.Errorf("address %s: bound twice", list[i].Addr)
		}
	}
	return list, nil
}
