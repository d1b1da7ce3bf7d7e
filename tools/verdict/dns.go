package verdict

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"

	"sigs.k8s.io/yaml"
)

// addresses is a list, or one of them without a list around it.
type addresses []string

func (a *addresses) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = addresses{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// ReadDomains reads what domain names resolve to: a YAML or JSON object of
// lists of addresses, or single ones, by name.
func ReadDomains(path string) (map[string][]netip.Addr, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read domains: %w", err)
	}
	var lists map[string]addresses
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
