package cilium

import (
	"testing"

	"github.com/sluice-net/sluice/control/policy"
)

// What patterns match, from the comments of Cilium's FQDNSelector.
func TestPattern(t *testing.T) {
	for pattern, names := range map[string]map[string]bool{
		"*":               {"cilium.io": true, "a.b.c": true},
		"*.cilium.io":     {"app.cilium.io": true, "cilium.io": false, "a.b.cilium.io": false},
		"*cilium.io":      {"cilium.io": true, "sub-cilium.io": true, "a.cilium.io": false},
		"sub*.cilium.io":  {"subdomain.cilium.io": true, "sub.cilium.io": true, "a.cilium.io": false},
		"**.cilium.io":    {"app.cilium.io": true, "test.app.cilium.io": true, "cilium.io": false, "a.cilium.io.b": false},
		"**.a*.cilium.io": {"x.ab.cilium.io": true, "x.y.a.cilium.io": true, "x.b.cilium.io": false},
	} {
		n := policy.NewName(pattern, patternRegexp(pattern))
		for name, want := range names {
			if got := n.Matches(name); got != want {
				t.Errorf("%s matches %s: %v, want %v", pattern, name, got, want)
			}
		}
	}
}
