package compile_test

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/sluice-net/sluice/dataplane/rule"
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// render writes a Set out, causes by what they say, for goldens and
// comparisons. Generations are left out.
func render(set *rule.Set) string {
	var b strings.Builder
	fmt.Fprintf(&b, "peers %d\n", set.Peers)
	for _, e := range set.Endpoints {
		fmt.Fprintf(&b, "endpoint %d ingress %d egress %d\n", e.ID, e.Ingress, e.Egress)
	}
	for i, p := range set.Programs {
		fmt.Fprintf(&b, "program %d\n", i)
		for _, t := range p.Tiers {
			fmt.Fprintf(&b, "  tier %q default %s%s%s\n", t.Name, t.Default, mark(t.DefaultAudit, " audit"), renderCause(set, t.DefaultCause))
			for _, r := range t.Rules {
				fmt.Fprintf(&b, "    %s%s%s peers %s ports %s%s\n", r.Action, mark(r.Log, " log"), mark(r.Audit, " audit"),
					either(r.AnyPeer, r.Peers), either(r.AnyPort, r.Ports), renderCause(set, r.Cause))
			}
		}
	}
	for i, id := range set.Identities {
		fmt.Fprintf(&b, "identity %d %v\n", i, id)
	}
	for _, a := range set.Addresses {
		fmt.Fprintf(&b, "address %s %d\n", a.Addr, a.Identity)
	}
	for _, x := range set.Blocks {
		fmt.Fprintf(&b, "block %d %s except %v%s\n", x.Peer, x.Prefix, x.Except, mark(x.Unbound, " unbound"))
	}
	return b.String()
}

func mark(on bool, s string) string {
	if on {
		return s
	}
	return ""
}

func either(all bool, list any) string {
	if all {
		return "any"
	}
	return fmt.Sprint(list)
}

func renderCause(set *rule.Set, id rule.CauseID) string {
	c := set.Causes[id]
	if c.Text != "" {
		return fmt.Sprintf(" (%s)", c.Text)
	}
	return renderRefs(c.Refs)
}

func renderRefs(refs []rule.PolicyRef) string {
	var b strings.Builder
	for _, r := range refs {
		fmt.Fprintf(&b, " [%s%s %s/%s %d %s]", r.Tier, r.Kind, r.Namespace, r.Name, r.Rule, r.Direction)
	}
	return b.String()
}
