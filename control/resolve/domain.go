package resolve

import (
	"net/netip"
	"slices"
	"strings"
)

// resolveDomain returns the addresses that a domain pattern stands for, sorted
// and unique. "*.a.b" stands for every known name below a.b, at any depth, but
// not for a.b itself. Case and a final dot don't matter.
func resolveDomain(domains map[string][]netip.Addr, pattern string) []netip.Addr {
	var out []netip.Addr
	for name, addrs := range domains {
		if domainMatches(pattern, name) {
			out = append(out, addrs...)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func domainMatches(pattern, name string) bool {
	pattern, name = normalDomain(pattern), normalDomain(name)
	if below, ok := strings.CutPrefix(pattern, "*"); ok {
		return len(name) > len(below) && strings.HasSuffix(name, below)
	}
	return pattern == name
}

func normalDomain(s string) string { return strings.ToLower(strings.TrimSuffix(s, ".")) }
