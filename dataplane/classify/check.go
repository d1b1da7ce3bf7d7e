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
	for t := range p.Tiers {
		tier := &p.Tiers[t]
		if tier.DefaultCause > maxCause || tier.Default > rule.Deny {
			return fmt.Errorf("tier %q: default %v of cause %d", tier.Name, tier.Default, tier.DefaultCause)
		}
		for i := range tier.Rules {
			if r := &tier.Rules[i]; r.Cause > maxCause || r.Action > rule.Deny {
				return fmt.Errorf("tier %q: rule %d: %v of cause %d", tier.Name, i, r.Action, r.Cause)
			}
		}
	}
	return nil
}
