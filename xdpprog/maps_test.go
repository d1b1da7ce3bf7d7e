package xdpprog_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/xdpprog"
)

func keys(n int) []xdpprog.FlowKey {
	k := make([]xdpprog.FlowKey, n)
	for i := range k {
		k[i] = xdpprog.FlowKey{A: xdpprog.Addr{Lo: uint64(i + 1)}, B: xdpprog.Addr{Lo: 1 << 20}, Proto: 17}
	}
	return k
}

func TestFlowBatches(t *testing.T) {
	o, _ := load(t, smallConfig(bpffs(t)))
	t.Cleanup(func() { check(t, o.Close()) })
	k := keys(100)
	values := make([]xdpprog.FlowValue, len(k))
	for i := range values {
		values[i] = xdpprog.FlowValue{Slot: [2]uint32{uint32(i)}, Gen: [2]uint32{1, 2}, Packets: [2]uint64{3, 4}}
	}
	if n, err := xdpprog.UpdateFlows(o, k, values); n != len(k) || err != nil {
		t.Fatalf("UpdateFlows: %d, %v", n, err)
	}
	if n, err := xdpprog.UpdateFlows(o, k[:0], nil); n != 0 || err != nil {
		t.Errorf("UpdateFlows of nothing: %d, %v", n, err)
	}
	for i := range k {
		var v xdpprog.FlowValue
		if !xdpprog.LookupFlow(o, &k[i], &v) || v != values[i] {
			t.Fatalf("LookupFlow %d: %+v", i, v)
		}
	}
	seen := map[xdpprog.FlowKey]xdpprog.FlowValue{}
	check(t, o.EachFlow(func(k *xdpprog.FlowKey, v *xdpprog.FlowValue) { seen[*k] = *v }))
	want := map[xdpprog.FlowKey]xdpprog.FlowValue{}
	for i := range k {
		want[k[i]] = values[i]
	}
	if !maps.Equal(seen, want) {
		t.Errorf("EachFlow saw %d flows, want the %d written", len(seen), len(want))
	}

	// The kernel stops where a key is absent, and says where.
	doomed := slices.Clone(k[:10])
	doomed[4].Proto = 99
	if n, err := xdpprog.DeleteFlows(o, doomed); n != 4 || !errors.Is(err, unix.ENOENT) {
		t.Errorf("DeleteFlows: %d, %v, want to stop at 4", n, err)
	}
	if n, err := xdpprog.DeleteFlows(o, doomed[5:]); n != 5 || err != nil {
		t.Errorf("DeleteFlows of the rest: %d, %v", n, err)
	}
	var v xdpprog.FlowValue
	if xdpprog.LookupFlow(o, &k[0], &v) || !xdpprog.LookupFlow(o, &k[10], &v) {
		t.Error("other flows were deleted than those named")
	}
	for i := range k[:5] {
		if allocs := testing.AllocsPerRun(20, func() {
			_, _ = xdpprog.UpdateFlows(o, k[:64], values[:64])
			xdpprog.LookupFlow(o, &k[i], &v)
		}); allocs != 0 {
			t.Errorf("%v allocations", allocs)
		}
	}
}

// TestFullCache sees that a full cache takes no more, and says how many it took.
func TestFullCache(t *testing.T) {
	cfg := smallConfig(bpffs(t))
	cfg.Flows = 64
	o, _ := load(t, cfg)
	t.Cleanup(func() { check(t, o.Close()) })
	k := keys(256)
	n, err := xdpprog.UpdateFlows(o, k, make([]xdpprog.FlowValue, len(k)))
	if n < 64 || n >= 256 || !errors.Is(err, unix.E2BIG) {
		t.Errorf("UpdateFlows: %d, %v, want a part of them and E2BIG", n, err)
	}
	var v xdpprog.FlowValue
	for i := range k {
		if there := xdpprog.LookupFlow(o, &k[i], &v); there != (i < n) {
			t.Fatalf("flow %d there: %v, but %d were said to be written", i, there, n)
		}
	}
}

func TestEndpointMaps(t *testing.T) {
	o, _ := load(t, smallConfig(bpffs(t)))
	t.Cleanup(func() { check(t, o.Close()) })
	e := xdpprog.Endpoint{Ifindex: 7, Gen: 8, MAC: podMAC, HostMAC: hostMAC}
	check(t, o.PutEndpoint(2, e))
	if got, err := o.Endpoint(2); err != nil || got != e {
		t.Errorf("Endpoint: %+v, %v", got, err)
	}
	if err := o.PutEndpoint(o.Slots(), e); err == nil {
		t.Error("wrote an endpoint beyond the last slot")
	}
	check(t, errors.Join(o.BindLink(7, 2), o.BindLink(9, 3), o.UnbindLink(7), o.UnbindLink(7)))
	if links, err := o.BoundLinks(); err != nil || !maps.Equal(links, map[int]uint32{9: 3}) {
		t.Errorf("BoundLinks: %v, %v", links, err)
	}
}

// TestAdoption sees that a second Load finds what the first one left, and
// replaces the maps, and only those, whose size has changed.
func TestAdoption(t *testing.T) {
	path := bpffs(t)
	cfg := smallConfig(path)
	first, replaced := load(t, cfg)
	if first.Adopted() || len(replaced) > 0 {
		t.Errorf("first load: adopted %v, replaced %v", first.Adopted(), replaced)
	}
	k := keys(3)
	_, err := xdpprog.UpdateFlows(first, k, make([]xdpprog.FlowValue, len(k)))
	check(t, err)
	check(t, first.PutEndpoint(2, xdpprog.Endpoint{Ifindex: 7, Gen: 8}))
	seed := first.Seed()
	check(t, first.Close())

	second, replaced := load(t, cfg)
	var v xdpprog.FlowValue
	if !second.Adopted() || len(replaced) > 0 || !xdpprog.LookupFlow(second, &k[0], &v) || second.Seed() != seed {
		t.Errorf("second load: adopted %v, replaced %v, same seed %v", second.Adopted(), replaced, second.Seed() == seed)
	}
	check(t, second.Close())

	cfg.Flows, cfg.Fragments = 512, 128
	third, replaced := load(t, cfg)
	slices.Sort(replaced)
	if !slices.Equal(replaced, []string{"flows", "frags"}) || xdpprog.LookupFlow(third, &k[0], &v) {
		t.Errorf("other sizes: replaced %v", replaced)
	}
	if e, err := third.Endpoint(2); err != nil || e.Gen != 8 {
		t.Errorf("other sizes: endpoint %+v, %v", e, err)
	}
	_, err = xdpprog.UpdateFlows(third, k, make([]xdpprog.FlowValue, len(k)))
	check(t, err)
	check(t, third.Close())

	// What refers to slots and generations doesn't outlive those.
	cfg.Endpoints = 31
	fourth, replaced := load(t, cfg)
	if !slices.Contains(replaced, "endpoints") || xdpprog.LookupFlow(fourth, &k[0], &v) {
		t.Errorf("more endpoints: replaced %v, old flows still there", replaced)
	}
	check(t, fourth.Close())

	check(t, xdpprog.Remove(path))
	check(t, xdpprog.Remove(path))
	for _, dir := range []string{"maps", "links"} {
		if _, err := os.Stat(filepath.Join(path, dir)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Remove left %s: %v", dir, err)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	path := bpffs(t)
	for name, change := range map[string]func(*xdpprog.Config){
		"no workers":       func(c *xdpprog.Config) { c.Workers = 0 },
		"too many workers": func(c *xdpprog.Config) { c.Workers = xdpprog.MaxWorkers + 1 },
		"no flows":         func(c *xdpprog.Config) { c.Flows = 0 },
		"not a bpffs":      func(c *xdpprog.Config) { c.PinPath = t.TempDir() },
	} {
		cfg := smallConfig(path)
		change(&cfg)
		if o, _, err := xdpprog.Load(cfg); err == nil {
			t.Errorf("%s: loaded", name)
			o.Close()
		}
	}
	if _, err := os.Stat(filepath.Join(path, "maps", "flows")); err == nil {
		t.Error("a refused configuration left maps behind")
	}
}
