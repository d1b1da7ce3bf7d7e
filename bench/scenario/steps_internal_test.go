package scenario

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
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

// Each round has all workloads, so that whole rounds are left when time is up.
func TestStepsGoRoundByRound(t *testing.T) {
	steps, _ := Plan{Workloads: []Workload{
		{Name: "v", Systems: []string{"kernel", "sluice"}}, {Name: "w", Systems: []string{"kernel"}},
	}, Runs: 2}.steps()
	var got []string
	for _, s := range steps {
		got = append(got, fmt.Sprint(s.run, s.workload.Name, s.system.Name))
	}
	want := []string{"0vkernel", "0vsluice", "0wkernel", "1vsluice", "1vkernel", "1wkernel"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestClockForetells(t *testing.T) {
	v, w := &Workload{Name: "v"}, &Workload{Name: "w"}
	s := System{Name: "s"}
	c := newClock([]step{{v, s, 0}, {w, s, 0}, {v, s, 1}, {w, s, 1}})
	if d := c.remaining(0, 0); d != 0 {
		t.Errorf("before anything was made: %v left", d)
	}
	c.took(0, 10*time.Second)
	if d := c.remaining(1, 0); d != 30*time.Second {
		t.Errorf("after one of four: %v left", d)
	}
	c.took(1, 20*time.Second)
	if d := c.remaining(2, 0); d != 30*time.Second {
		t.Errorf("after a round of 30 s: %v left", d)
	}
	if d := c.remaining(2, 5*time.Second); d > 5*time.Second || d < 3*time.Second {
		t.Errorf("within 5 s: %v left", d)
	}
	if c.fits(2, 25*time.Second) || !c.fits(2, time.Hour) {
		t.Error("a round of 30 s fits 25 s, or doesn't an hour")
	}
	if !c.fits(3, 25*time.Second) || !c.fits(0, 1) {
		t.Error("the last step of a round or the very first doesn't fit")
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
	names := map[string]bool{}
	for _, pid := range []int{os.Getpid(), os.Getpid() + 1} {
		for lane := range 3 {
			name := stageName(pid, lane)
			if stagePID(name) != pid || names[name] {
				t.Errorf("%s: of process %d", name, stagePID(name))
			}
			names[name] = true
		}
	}
	for _, name := range []string{"", "bench", "bench-", "bench-x", "e2e-12", "12"} {
		if pid := stagePID(name); pid != 0 {
			t.Errorf("%q: of process %d", name, pid)
		}
	}
}
