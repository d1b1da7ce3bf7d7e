package xdpprog_test

import (
	"testing"

	"github.com/sluice-net/sluice/xdpprog"
)

func TestMaps(t *testing.T) {
	o, _ := load(t, smallConfig(bpffs(t)))
	t.Cleanup(func() { check(t, o.Close()) })
	usage := func() map[string]xdpprog.MapUsage {
		t.Helper()
		all, err := o.Maps()
		check(t, err)
		byName := map[string]xdpprog.MapUsage{}
		for _, m := range all {
			byName[m.Name] = m
		}
		return byName
	}
	for name, m := range usage() {
		if m.Entries != 0 || m.Max == 0 || m.Type == "" {
			t.Errorf("empty map %s: %+v", name, m)
		}
	}
	k := keys(100)
	if _, err := xdpprog.UpdateFlows(o, k, make([]xdpprog.FlowValue, len(k))); err != nil {
		t.Fatal(err)
	}
	if _, err := xdpprog.UpdateDenied(o, k[:20], make([]xdpprog.DenyValue, 20)); err != nil {
		t.Fatal(err)
	}
	if _, err := xdpprog.UpdateAdmits(o, []xdpprog.AdmitKey{{DPort: 1}, {DPort: 2}}, make([]xdpprog.AdmitValue, 2)); err != nil {
		t.Fatal(err)
	}
	check(t, o.BindLink(7, 1))
	check(t, o.SetOwnAddrs(1, []xdpprog.Addr{{Lo: 1}, {Lo: 2}, {Lo: 3}}))
	got := usage()
	for name, want := range map[string]int{"flows": 100, "denied": 20, "admits": 2, "frags": 0, "links": 1, "own_addrs": 3} {
		if got[name].Entries != want {
			t.Errorf("%s: %d entries, want %d", name, got[name].Entries, want)
		}
	}
	if m := got["flows"]; m.Max != 256 || m.Type != "Hash" || m.Evicts {
		t.Errorf("flows: %+v", m)
	}
	if m := got["denied"]; m.Max != 256 || !m.Evicts {
		t.Errorf("denied: %+v", m)
	}
}

func TestPrograms(t *testing.T) {
	o, _ := load(t, smallConfig(bpffs(t)))
	t.Cleanup(func() { check(t, o.Close()) })
	progs, err := o.Programs()
	check(t, err)
	want := map[string]string{"pod-ingress": "SchedCLS", "pod-egress": "SchedCLS", "port-ingress": "SchedCLS", "port-xdp": "XDP", "uplink-xdp": "XDP", "pod-xdp": "XDP"}
	for _, p := range progs {
		if p.ID == 0 || p.Tag == "" || p.Name == "" || p.Attached != 0 || want[p.Point] != p.Type {
			t.Errorf("%+v", p)
		}
		delete(want, p.Point)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

func TestLastBeat(t *testing.T) {
	o, _ := load(t, smallConfig(bpffs(t)))
	t.Cleanup(func() { check(t, o.Close()) })
	if n := o.LastBeat(0); n != 0 {
		t.Errorf("before the first: %d", n)
	}
	o.Beat(0, 123)
	if n := o.LastBeat(0); n != 123 {
		t.Errorf("%d, want 123", n)
	}
}
