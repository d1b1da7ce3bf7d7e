package xdpprog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// otherLayouts names the pinned maps whose keys or values have other fields than
// ours, though they may have their sizes: those of an agent that is older or
// newer than this one. The kernel keeps the types of a map with it. A field that
// gets another meaning must get another name.
func otherLayouts(mapDir string, spec *ebpf.CollectionSpec) ([]string, error) {
	var out []string
	for name, want := range spec.Maps {
		if want.Pinning != ebpf.PinByName {
			continue
		}
		same, err := sameLayout(filepath.Join(mapDir, name), want)
		if err != nil {
			return nil, fmt.Errorf("look at pinned map %s: %w", name, err)
		}
		if !same {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// sameLayout reports whether what is pinned at pin, if anything, has the types of
// want. Where the kernel has not kept them there is nothing to go by but sizes,
// which are compared when the map is adopted.
func sameLayout(pin string, want *ebpf.MapSpec) (bool, error) {
	m, err := ebpf.LoadPinnedMap(pin, nil)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer m.Close()
	handle, err := m.Handle()
	if errors.Is(err, ebpf.ErrNotSupported) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("find its types: %w", err)
	}
	defer handle.Close()
	have, err := handle.Spec(nil)
	if err != nil {
		return false, fmt.Errorf("read its types: %w", err)
	}
	for _, typ := range []btf.Type{want.Key, want.Value} {
		s, ok := btf.UnderlyingType(typ).(*btf.Struct)
		if !ok {
			continue // a number: nothing but its size
		}
		var got *btf.Struct
		if err := have.TypeByName(s.Name, &got); err != nil || layout(got) != layout(s) {
			return false, nil
		}
	}
	return true, nil
}

// layout writes down where each field of a type is, and what it is.
func layout(typ btf.Type) string {
	switch t := btf.UnderlyingType(typ).(type) {
	case *btf.Struct:
		return "struct" + fields(t.Members)
	case *btf.Union:
		return "union" + fields(t.Members)
	case *btf.Array:
		return fmt.Sprintf("[%d]%s", t.Nelems, layout(t.Type))
	case *btf.Int:
		return fmt.Sprintf("int%d", 8*t.Size)
	default:
		return t.TypeName()
	}
}

func fields(members []btf.Member) string {
	var b strings.Builder
	b.WriteString("{")
	for _, m := range members {
		fmt.Fprintf(&b, " %d %s %s", m.Offset, m.Name, layout(m.Type))
	}
	b.WriteString(" }")
	return b.String()
}
