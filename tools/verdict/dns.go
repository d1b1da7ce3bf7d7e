package verdict

import (
	"fmt"
	"net/netip"
	"os"

	"sigs.k8s.io/yaml"
)

// ReadDomains reads what domain names resolve to: a YAML or JSON object of
// lists of addresses by name.
func ReadDomains(path string) (map[string][]netip.Addr, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read domains: %w", err)
	}
	var lists map[string][]string
	if err := yaml.UnmarshalStrict(data, &lists); err != nil {
		return nil, fmt.Errorf("read domains from %s: want lists of addresses by name: %w", path, err)
	}
	out := map[string][]netip.Addr{}
	for name, list := range lists {
		for _, s := range list {
			a, err := netip.ParseAddr(s)
			if err != nil || a.Zone() != "" {
				return nil, fmt.Errorf("read domains from %s: %s: %q: must be a valid IP address", path, name, s)
			}
			out[name] = append(out[name], a.Unmap())
		}
	}
	return out, nil
}
