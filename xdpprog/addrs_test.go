package xdpprog_test

import (
	"testing"

	"github.com/sluice-net/sluice/xdpprog"
)

// TestAddrsAdopted changes addresses that an earlier agent set.
func TestAddrsAdopted(t *testing.T) {
	cfg := smallConfig(bpffs(t))
	o, _ := load(t, cfg)
	list := func(n ...uint64) (out []xdpprog.Addr) {
		for _, lo := range n {
			out = append(out, xdpprog.Addr{Lo: lo})
		}
		return out
	}
	both := func(slot uint32, addrs []xdpprog.Addr) {
		t.Helper()
		check(t, o.SetOwnAddrs(slot, addrs))
		check(t, o.SetPodAddrs(slot, addrs))
	}
	count := func(when string, own, pods int) {
		t.Helper()
		all, err := o.Maps()
		check(t, err)
		for _, m := range all {
			if want, ok := map[string]int{"own_addrs": own, "pods": pods}[m.Name]; ok && m.Entries != want {
				t.Errorf("%s: %s has %d entries, want %d", when, m.Name, m.Entries, want)
			}
		}
	}
	both(1, list(1, 2, 3))
	both(2, list(3, 4)) // 3 is the second pod's from now on
	count("at first", 5, 4)
	check(t, o.Close())

	o, _ = load(t, cfg)
	t.Cleanup(func() { check(t, o.Close()) })
	both(1, list(2, 5, 5))
	count("others", 4, 4) // 3 stays the second pod's
	both(1, nil)
	count("none", 2, 2)
	both(2, list(3, 4))
	count("the same", 2, 2)
	both(2, nil)
	count("nothing left", 0, 0)
}
