package scenario_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/bench/scenario"
)

func TestSelect(t *testing.T) {
	for _, c := range []struct {
		in   []string
		want []string
	}{
		{[]string{"tcp-crr"}, []string{"tcp-crr", "tcp-crr-16"}},
		{[]string{"raw", "tcp-rr-same"}, []string{"tcp-rr-same", "raw"}},
		{[]string{"udp-small", "udp-small-v6"}, []string{"udp-small", "udp-small-64k", "udp-small-v6"}},
	} {
		got, err := scenario.Select(c.in)
		if err != nil {
			t.Errorf("%v: %v", c.in, err)
		}
		var names []string
		for _, w := range got {
			names = append(names, w.Name)
		}
		if !slices.Equal(names, c.want) {
			t.Errorf("%v: got %v, want %v", c.in, names, c.want)
		}
	}
	if all, err := scenario.Select([]string{scenario.All}); err != nil || len(all) != len(scenario.Workloads()) {
		t.Errorf("all: %d workloads, %v", len(all), err)
	}
	standard, err := scenario.Select(nil)
	if err != nil || len(standard) == 0 || slices.ContainsFunc(standard, func(w scenario.Workload) bool {
		return len(w.Standard) == 0 || !slices.Equal(w.Standard, w.Systems)
	}) {
		t.Errorf("no name: %d workloads, %v", len(standard), err)
	}
	if _, err := scenario.Select([]string{"raw", "tcp-streams"}); err == nil || !strings.Contains(err.Error(), "tcp-streams") {
		t.Errorf("unknown workload: %v", err)
	}
}

func TestValidateReportsEveryFault(t *testing.T) {
	err := scenario.Plan{Runs: 0, Duration: time.Millisecond, Systems: []string{"kernel", "bsd"}}.Validate()
	for _, want := range []string{"runs 0", "duration 1ms", `"bsd"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %s", err, want)
		}
	}
}

// Names are keys: of each other, of the report, of the command line.
func TestRegistryIsConsistent(t *testing.T) {
	systems := map[string]bool{}
	for _, s := range scenario.Systems() {
		if systems[s.Name] || s.About == "" || s.Start == nil {
			t.Errorf("system %q: double or incomplete", s.Name)
		}
		systems[s.Name] = true
	}
	workloads, used := map[string]bool{}, map[string]bool{}
	for _, w := range scenario.Workloads() {
		if workloads[w.Name] || w.About == "" || w.Run == nil || len(w.Systems) == 0 || w.Family != 4 && w.Family != 6 {
			t.Errorf("workload %q: double or incomplete", w.Name)
		}
		workloads[w.Name] = true
		for _, name := range w.Standard {
			if !slices.Contains(w.Systems, name) {
				t.Errorf("workload %q: %q is standard but not among its systems", w.Name, name)
			}
		}
		for _, name := range w.Systems {
			if used[name] = true; !systems[name] {
				t.Errorf("workload %q: no system %q", w.Name, name)
			}
		}
	}
	for name := range systems {
		if !used[name] {
			t.Errorf("system %q: no workload is for it", name)
		}
	}
}
