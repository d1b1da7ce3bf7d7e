package scenario

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
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

// buildBinary builds the one binary, for the systems that are commands of it, unless
// SLUICE_BIN names it.
func buildBinary(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("SLUICE_BIN"); path != "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "sluice")
	out, err := exec.Command("go", "build", "-o", path, "github.com/sluice-net/sluice/tools/sluice").CombinedOutput()
	if err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// Every system carries the traffic of a workload that is meant for it, tells
// numbers, and leaves nothing behind.
func TestEverySystemMeasures(t *testing.T) {
	needRoot(t)
	plan := Plan{Runs: 1, Duration: 100 * time.Millisecond, Self: buildBinary(t)}
	workloads := Workloads()
	for _, system := range Systems() {
		t.Run(system.Name, func(t *testing.T) {
			if system.Needs != nil {
				if err := system.Needs(); err != nil {
					t.Skip(err) // a program that this machine doesn't have
				}
			}
			at := slices.IndexFunc(workloads, func(w Workload) bool { return slices.Contains(w.Systems, system.Name) })
			mustMeasure(t, plan, step{&workloads[at], system, 0})
		})
	}
}

// Every workload runs, on the system that the others are compared to.
func TestEveryWorkloadMeasures(t *testing.T) {
	needRoot(t)
	plan := Plan{Runs: 1, Duration: 100 * time.Millisecond, Self: buildBinary(t), Pcap: capture(t)}
	families := map[string]bool{}
	for _, w := range Workloads() {
		if w.Sweep != "" && families[w.Sweep] {
			continue // the others differ in a number only
		}
		families[w.Sweep] = true
		t.Run(w.Name, func(t *testing.T) {
			if runtime.NumCPU() < w.CPUs {
				t.Skip("too few CPUs")
			}
			all := Systems()
			at := slices.IndexFunc(all, func(s System) bool { return s.Name == w.Systems[0] })
			mustMeasure(t, plan, step{&w, all[at], 0})
		})
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
		if err != nil {
			t.Fatal(err)
		}
		nothingLeft(t)
		zero := slices.IndexFunc(sample.Metrics, func(m Metric) bool { return m.Better != Neither && m.Value <= 0 })
		if len(sample.Metrics) > 0 && zero < 0 {
			return
		}
		if plan.Duration > 5*time.Second {
			t.Fatalf("got %+v", sample.Metrics)
		}
	}
}

func nothingLeft(t *testing.T) {
	t.Helper()
	spaces, err := netlab.Namespaces(netlab.Prefix(stageName(os.Getpid())))
	if err != nil || len(spaces) > 0 {
		t.Errorf("namespaces left: %v (%v)", spaces, err)
	}
	dir := stageDir(os.Getpid())
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("mounts left in %s (%v)", dir, err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", os.Getpid(), os.Getpid()))
	if err == nil && len(strings.TrimSpace(string(children))) > 0 {
		t.Errorf("children left: %s", children)
	}
}

// What a benchmark that was killed left goes with the next one.
func TestSweepDead(t *testing.T) {
	needRoot(t)
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	pid := gone.Process.Pid
	s, err := newStage(stageName(pid), stageDir(pid), "", &Workloads()[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Net = nil // as if the process had ended
	if err := sweepDead(); err != nil {
		t.Fatal(err)
	}
	spaces, err := netlab.Namespaces(netlab.Prefix(stageName(pid)))
	if err != nil || len(spaces) > 0 {
		t.Errorf("namespaces left: %v (%v)", spaces, err)
	}
	if _, err := os.Stat(stageDir(pid)); err == nil {
		t.Errorf("%s is left", stageDir(pid))
	}
}
