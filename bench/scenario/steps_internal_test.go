package scenario

import (
	"os"
	"testing"
)

// Every system has every run once, and none is always first or last.
func TestStepsInterleave(t *testing.T) {
	w := Workload{Name: "w", Systems: []string{"kernel", "sluice", "inspect"}}
	steps, skipped := Plan{Workloads: []Workload{w}, Runs: 3}.steps()
	if len(steps) != 9 || len(skipped) != 0 {
		t.Fatalf("%d steps, skipped %v; want 9 and none", len(steps), skipped)
	}
	seen, first := map[string]map[int]bool{}, map[string]bool{}
	for i, s := range steps {
		name := s.system.Name
		if seen[name] == nil {
			seen[name] = map[int]bool{}
		}
		if s.run != i/3 || seen[name][s.run] {
			t.Errorf("step %d: %s in run %d", i, name, s.run)
		}
		seen[name][s.run] = true
		if i%3 == 0 {
			first[name] = true
		}
	}
	if len(first) != 3 {
		t.Errorf("first were only %v", first)
	}
}

func TestStepsKeepToWhatIsAskedAndPossible(t *testing.T) {
	steps, skipped := Plan{
		Workloads: []Workload{
			{Name: "small", Systems: []string{"kernel", "sluice"}},
			{Name: "large", Systems: []string{"kernel"}, CPUs: 1 << 20},
		},
		Systems: []string{"sluice"}, Runs: 1,
	}.steps()
	if len(steps) != 1 || steps[0].system.Name != "sluice" || len(skipped) != 1 {
		t.Errorf("got %d steps, skipped %v", len(steps), skipped)
	}
}

func TestCamel(t *testing.T) {
	for in, want := range map[string]string{"raw": "Raw", "udp-small-64k": "UdpSmall64k"} {
		if got := camel(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestStageNamesCarryTheProcess(t *testing.T) {
	if a, b := stageName(os.Getpid()), stageName(os.Getpid()+1); a == b || stageDir(1) == stageDir(2) {
		t.Errorf("%s and %s", a, b)
	}
}
