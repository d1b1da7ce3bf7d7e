package scenario

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/bench/traffic"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("REQUIRE_PRIV") == "1" {
		t.Fatal("network namespaces need root")
	}
	t.Skip("network namespaces need root")
}

// sluiceBinary is the one binary, for the systems that are commands of it: that of
// SLUICE_BIN, or one that is built once for all tests.
var sluiceBinary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("SLUICE_BIN"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "sluice-scenario-")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "sluice")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/sluice-net/sluice/tools/sluice").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

var built string // folder of the binary

// lanes is how many measurements are made at a time. No rate is judged here, and
// most of a measurement waits: for links, for processes, for what never arrives.
const lanes = 6

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		flag.Set("test.parallel", strconv.Itoa(lanes))
	}
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// shortly is how long measurements are whose rates nobody looks at.
const shortly = 50 * time.Millisecond

// cover pairs every workload with one of its systems, so that every system that is
// there has its turn: those with the fewest workloads choose first.
func cover(workloads []Workload, systems []System) (out []step) {
	chosen := make([]*System, len(workloads))
	of := func(s System) (at []int) {
		for i := range workloads {
			if slices.Contains(workloads[i].Systems, s.Name) {
				at = append(at, i)
			}
		}
		return at
	}
	order := slices.Clone(systems)
	slices.SortStableFunc(order, func(a, b System) int { return len(of(a)) - len(of(b)) })
	for _, s := range order {
		candidates := of(s)
		free := slices.IndexFunc(candidates, func(i int) bool { return chosen[i] == nil && !workloads[i].hostile() })
		if free >= 0 {
			chosen[candidates[free]] = &s
		} else {
			out = append(out, step{&workloads[candidates[0]], s, 0})
		}
	}
	for i := range workloads {
		if chosen[i] == nil { // any: the one that the others are compared to
			at := slices.IndexFunc(systems, func(s System) bool { return s.Name == workloads[i].Systems[0] })
			if at < 0 {
				continue
			}
			chosen[i] = &systems[at]
		}
		out = append(out, step{&workloads[i], *chosen[i], 0})
	}
	return out
}

// hostile workloads send what a system that enforces something may drop all of.
func (w *Workload) hostile() bool { return strings.HasPrefix(w.Name, "attack-") }

// Every workload runs and every system carries the traffic of a workload, tells
// numbers, and leaves nothing behind.
func TestEveryScenarioMeasures(t *testing.T) {
	needRoot(t)
	self, err := sluiceBinary()
	if err != nil {
		t.Fatal(err)
	}
	plan := Plan{Runs: 1, Duration: shortly, Self: self, Pcap: capture(t)}
	var systems []System
	for _, s := range Systems() {
		if s.Needs != nil {
			if err := s.Needs(); err != nil {
				t.Logf("%s: %v", s.Name, err) // a program that this machine doesn't have
				continue
			}
		}
		systems = append(systems, s)
	}
	families := map[string]bool{}
	workloads := slices.DeleteFunc(Workloads(), func(w Workload) bool {
		double := w.Sweep != "" && families[w.Sweep] // the others differ in a number only
		families[w.Sweep] = true
		if w.CPUs > runtime.NumCPU() {
			t.Logf("%s: too few CPUs", w.Name)
		}
		return double || w.CPUs > runtime.NumCPU()
	})
	free := make(chan int, lanes)
	for lane := range lanes {
		free <- lane + 1
	}
	t.Run("all", func(t *testing.T) {
		for _, st := range cover(workloads, systems) {
			t.Run(st.workload.Name+"/"+st.system.Name, func(t *testing.T) {
				t.Parallel()
				lane := <-free
				defer func() { free <- lane }()
				plan := plan
				plan.lane = lane
				mustMeasure(t, plan, st)
			})
		}
	})
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", os.Getpid(), os.Getpid()))
	if err == nil && len(strings.TrimSpace(string(children))) > 0 {
		t.Errorf("children left: %s", children)
	}
}

// All workloads and all systems have their turn.
func TestCover(t *testing.T) {
	workloads, systems := Workloads(), Systems()
	steps := cover(workloads, systems)
	seen := map[string]bool{}
	for _, s := range steps {
		seen["w "+s.workload.Name], seen["s "+s.system.Name] = true, true
		if !slices.Contains(s.workload.Systems, s.system.Name) {
			t.Errorf("%s is not meant for %s", s.workload.Name, s.system.Name)
		}
	}
	if len(seen) != len(workloads)+len(systems) || len(steps) > len(workloads)+4 {
		t.Errorf("%d steps, %d of %d workloads and %d systems", len(steps), len(seen), len(workloads), len(systems))
	}
}

// capture writes a file with packets that are easy to replay.
func capture(t *testing.T) string {
	t.Helper()
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	l, err := traffic.Mix{FromMAC: mac, ToMAC: mac, From: addrsA[0], To: addrsB[0], Sizes: traffic.IMIX, Flows: 10}.Load()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "packets.pcap"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := pcapgo.NewWriter(f)
	err = w.WriteFileHeader(65535, layers.LinkTypeEthernet)
	for _, frame := range l.Frames {
		err = errors.Join(err, w.WritePacket(gopacket.CaptureInfo{CaptureLength: len(frame), Length: len(frame)}, frame))
	}
	if err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// mustMeasure sees that a measurement gives numbers, and leaves nothing. On a
// machine that is busy with other things one may be too short for any packet
// to arrive in its time: the next is longer.
func mustMeasure(t *testing.T, plan Plan, st step) {
	t.Helper()
	for ; ; plan.Duration *= 2 {
		sample, err := plan.measure(t.Context(), st)
		nothingLeft(t, plan.lane)
		short := errors.Is(err, traffic.ErrNothing) && plan.Duration < longest
		if err != nil && !short {
			t.Fatal(err)
		}
		zero := slices.IndexFunc(sample.Metrics, func(m Metric) bool { return m.Better == Higher && m.Value <= 0 })
		if len(sample.Metrics) > 0 && zero < 0 {
			return
		}
		if plan.Duration > longest {
			t.Fatalf("got %+v", sample.Metrics)
		}
	}
}

// longest is how long a measurement may be for anything to come in it.
const longest = 5 * time.Second

func nothingLeft(t *testing.T, lane int) {
	t.Helper()
	name := stageName(os.Getpid(), lane)
	spaces, err := netlab.Namespaces(netlab.Prefix(name))
	if err != nil || len(spaces) > 0 {
		t.Errorf("namespaces left: %v (%v)", spaces, err)
	}
	dir := stageDir(name)
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), dir+"/") {
		t.Errorf("mounts left in %s (%v)", dir, err)
	}
}

// What a benchmark that was killed left goes with the next one.
func TestSweepDead(t *testing.T) {
	needRoot(t)
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	for lane := range 2 {
		name := stageName(gone.Process.Pid, lane)
		s, err := newStage(name, "", &Workloads()[0], nil, "")
		if err != nil {
			t.Fatal(err)
		}
		s.Net = nil // as if the process had ended
		if err := sweepDead(); err != nil {
			t.Fatal(err)
		}
		spaces, err := netlab.Namespaces(netlab.Prefix(name))
		if err != nil || len(spaces) > 0 {
			t.Errorf("namespaces left: %v (%v)", spaces, err)
		}
		if _, err := os.Stat(stageDir(name)); err == nil {
			t.Errorf("%s is left", stageDir(name))
		}
	}
}
