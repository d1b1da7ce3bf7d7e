package classify

import (
	"fmt"

	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// applyDelta returns the set after a delta, but for its addresses.
func applyDelta(d *rule.Delta, set rule.Set) rule.Set {
	set.Generation = d.Generation
	set.Peers = max(set.Peers, d.Peers)
	if len(d.Identities) > 0 {
		set.Identities = append(set.Identities, d.Identities...)
	}
	if d.Programs != nil {
		set.Programs = d.Programs
	}
	if d.Endpoints != nil {
		set.Endpoints = d.Endpoints
	}
	if d.Blocks != nil {
		set.Blocks = d.Blocks
	}
	if d.Causes != nil {
		set.Causes = d.Causes
	}
	return set
}

// checkDelta returns the programs in use after a delta, if they may be others than
// before, or what is wrong with it.
func checkDelta(d *rule.Delta, next *rule.Set) ([]rule.ProgramID, error) {
	for _, a := range d.Bind {
		if err := checkAddress(next, a); err != nil {
			return nil, err
		}
	}
	for _, a := range d.Unbind {
		if !a.IsValid() {
			return nil, fmt.Errorf("address to unbind: not an address")
		}
	}
	if d.Programs == nil && d.Endpoints == nil {
		return nil, checkPeers(next, nil, len(next.Identities)-len(d.Identities), d.Blocks != nil)
	}
	programs, err := usedPrograms(next)
	if err != nil {
		return nil, err
	}
	return programs, checkPeers(next, programs, len(next.Identities)-len(d.Identities), d.Blocks != nil)
}

// deltaPoints lists the addresses that a delta binds and unbinds.
func deltaPoints(d *rule.Delta) []point {
	var out []point
	for _, a := range d.Unbind {
		out = append(out, point{addr: packet.AddrFrom(a), identity: unbound})
	}
	for _, a := range d.Bind {
		out = append(out, point{addr: packet.AddrFrom(a.Addr), identity: a.Identity})
	}
	return out
}
