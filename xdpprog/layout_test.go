package xdpprog_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/sluice-net/sluice/xdpprog"
)

// TestOtherLayouts sees that a map whose fields mean something else than ours is
// not adopted, though its sizes are the same: an older or newer agent's.
func TestOtherLayouts(t *testing.T) {
	for _, c := range []struct {
		name     string
		typ      string
		change   func(*btf.Struct)
		replaced []string
	}{
		{"same", "flow_value", func(*btf.Struct) {}, nil},
		{"renamed field", "flow_value", func(s *btf.Struct) { s.Members[2].Name = "answerer" }, []string{"flows"}},
		{"fields in another order", "flow_value", func(s *btf.Struct) {
			m := s.Members
			m[0].Name, m[1].Name = m[1].Name, m[0].Name
		}, []string{"flows"}},
		{"key", "flow_key", func(s *btf.Struct) { s.Members[4].Name = "vrf" }, []string{"flows"}},
		{"another name", "flow_value", func(s *btf.Struct) { s.Name = "flow_entry" }, []string{"flows"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := bpffs(t)
			cfg := smallConfig(path)
			o, _ := load(t, cfg)
			_, err := xdpprog.UpdateFlows(o, keys(3), make([]xdpprog.FlowValue, 3))
			check(t, err)
			check(t, o.Close())
			repin(t, filepath.Join(path, "maps", "flows"), c.typ, c.change)
			o, replaced := load(t, cfg)
			t.Cleanup(func() { check(t, o.Close()) })
			if !slices.Equal(replaced, c.replaced) {
				t.Errorf("replaced %v, want %v", replaced, c.replaced)
			}
			again, replaced := load(t, cfg)
			if len(replaced) > 0 {
				t.Errorf("the second time: replaced %v", replaced)
			}
			check(t, again.Close())
		})
	}
}

// repin puts a map in the place of a pinned one that is like it but for the fields
// of a type.
func repin(t *testing.T, pin, typ string, change func(*btf.Struct)) {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(pin, nil)
	check(t, err)
	defer m.Close()
	handle, err := m.Handle()
	check(t, err)
	defer handle.Close()
	types, err := handle.Spec(nil)
	check(t, err)
	find := func(name string) *btf.Struct {
		var s *btf.Struct
		check(t, types.TypeByName(name, &s))
		return s
	}
	key, value := find("flow_key"), find("flow_value")
	change(find(typ))
	info, err := m.Info()
	check(t, err)
	other, err := ebpf.NewMap(&ebpf.MapSpec{Name: info.Name, Type: info.Type, KeySize: info.KeySize, ValueSize: info.ValueSize,
		MaxEntries: info.MaxEntries, Flags: info.Flags, Key: key, Value: value})
	check(t, err)
	defer other.Close()
	check(t, os.Remove(pin))
	check(t, other.Pin(pin))
}
