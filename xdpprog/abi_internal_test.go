package xdpprog

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/sluice-net/sluice/dataplane/stat"
)

// TestABI compares the types of abi.go with the BTF of the compiled programs:
// sizes, and the offset, size and order of each member.
func TestABI(t *testing.T) {
	spec, err := loadSluice()
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{
		"addr": Addr{}, "flow_key": FlowKey{}, "flow_value": FlowValue{}, "deny_value": DenyValue{},
		"endpoint": Endpoint{}, "own_addr": OwnAddr{}, "note": Note{}, "traffic": Traffic{}, "admit_key": AdmitKey{}, "admit_value": AdmitValue{},
		"uplink": Uplink{},
	} {
		var c *btf.Struct
		if err := spec.Types.TypeByName(name, &c); err != nil {
			t.Errorf("struct %s: %v", name, err)
			continue
		}
		compareStruct(t, name, reflect.TypeOf(v), c)
	}
}

func compareStruct(t *testing.T, name string, g reflect.Type, c *btf.Struct) {
	t.Helper()
	if uintptr(c.Size) != g.Size() {
		t.Errorf("struct %s: %d bytes in C, %d in Go", name, c.Size, g.Size())
	}
	at := 0
	for _, m := range c.Members {
		size := btfSize(t, m.Type)
		if at >= g.NumField() {
			t.Errorf("struct %s: %s is missing in Go", name, m.Name)
			return
		}
		f := g.Field(at)
		at++
		if uintptr(m.Offset.Bytes()) != f.Offset || uintptr(size) != f.Type.Size() {
			t.Errorf("struct %s: %s at %d of %d bytes in C, %s at %d of %d bytes in Go",
				name, m.Name, m.Offset.Bytes(), size, f.Name, f.Offset, f.Type.Size())
		}
		if goName := strings.ReplaceAll(m.Name, "_", ""); f.Name != "_" && !strings.EqualFold(goName, f.Name) {
			t.Errorf("struct %s: %s in C is %s in Go", name, m.Name, f.Name)
		}
	}
	if at != g.NumField() {
		t.Errorf("struct %s: %d members in C, %d in Go", name, at, g.NumField())
	}
}

func btfSize(t *testing.T, typ btf.Type) int {
	t.Helper()
	n, err := btf.Sizeof(typ)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestABIEnums compares the numbers of enums and constants.
func TestABIEnums(t *testing.T) {
	spec, err := loadSluice()
	if err != nil {
		t.Fatal(err)
	}
	drops := enum(t, spec.Types, "drop_reason")
	if drops["NUM_DROP_REASONS"] != NumDropReasons || NumDropReasons != int(stat.NumReasons) {
		t.Errorf("%d reasons in C, %d here, %d in stat", drops["NUM_DROP_REASONS"], NumDropReasons, stat.NumReasons)
	}
	for name, n := range drops {
		reason := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "DROP_"), "_", "-"))
		if name != "NUM_DROP_REASONS" && name != "DROP_NONE" && stat.Reason(n).String() != reason {
			t.Errorf("%s is %d, which is %s in stat", name, n, stat.Reason(n))
		}
	}
	counters := enum(t, spec.Types, "counter")
	if counters["NUM_COUNTERS"] != int(NumCounters) {
		t.Errorf("%d counters in C, %d in Go", counters["NUM_COUNTERS"], NumCounters)
	}
	for name, n := range counters {
		want := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "COUNT_"), "_", "-"))
		if name != "NUM_COUNTERS" && Counter(n).String() != want {
			t.Errorf("%s is %d, which is %s in Go", name, n, Counter(n))
		}
	}
	for enumName, values := range map[string]map[string]int{
		"hook": {"HOOK_FROM_POD": int(HookFromPod), "HOOK_TO_POD": int(HookToPod)},
		"verb": {"VERB_RESUME_FROM_POD": int(VerbResumeFromPod), "VERB_RESUME_TO_POD": int(VerbResumeToPod),
			"VERB_SHORTCUT": int(VerbShortcut), "VERB_RESUME_UPLINK": int(VerbResumeUplink)},
		"flow_flags": {"FLOW_SHORTCUT": int(FlowShortcut), "FLOW_TO_POD": int(FlowToPod), "FLOW_AUDIT": int(FlowAudit), "FLOW_LOG": int(FlowLog)},
		"flow_ended": {"ENDED_FIN_A": int(EndedFinA), "ENDED_FIN_B": int(EndedFinB), "ENDED_RST": int(EndedRst)},
	} {
		if c := enum(t, spec.Types, enumName); !maps.Equal(c, values) {
			t.Errorf("enum %s: %v in C, %v in Go", enumName, c, values)
		}
	}
	for _, name := range []string{"heartbeats", "xsks", "workers"} {
		if got := spec.Maps[name].MaxEntries; got != MaxWorkers {
			t.Errorf("map %s has room for %d workers, want %d", name, got, MaxWorkers)
		}
	}
}

func enum(t *testing.T, types *btf.Spec, name string) map[string]int {
	t.Helper()
	var e *btf.Enum
	if err := types.TypeByName(name, &e); err != nil {
		t.Fatal(err)
	}
	values := make(map[string]int)
	for _, v := range e.Values {
		values[v.Name] = int(v.Value)
	}
	return values
}
