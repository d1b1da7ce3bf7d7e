package report_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/golden"
	"github.com/sluice-net/sluice/bench/report"
	"github.com/sluice-net/sluice/bench/scenario"
)

// results are fixed numbers of two workloads of one family, multiplied for the
// one system by a factor.
func results(factor float64) *scenario.Results {
	started := time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)
	r := &scenario.Results{
		Machine: scenario.Machine{CPU: "Test CPU", CPUs: 2, Kernel: "6.18.0", Go: "go1.26", Load: "0.10 0.20 0.30",
			Governor: "performance", Virtual: "virtual machine", MemoryMB: 4096},
		Command: "sluice bench policies", Started: started, Finished: started.Add(90 * time.Second),
		Runs: 4, Duration: "1s",
		Versions: map[string]string{"sluice": "v1", "nftables": "v1.0.6"},
		Systems:  map[string]string{"kernel": "no policy", "sluice": "<b>Sluice</b>", "generator": "nothing"},
		Skipped:  []string{"ovs: no ovs-vswitchd"},
		Failures: []string{"policies-10, kernel, run 1: broken"},
		Profiles: []scenario.Profile{{
			Workload: "policies-10", System: "sluice", Event: "cpu-clock", Samples: 200,
			Stages:  []scenario.Share{{Name: "BPF & maps", Share: 0.6}, {Name: "IP stack", Share: 0.4}},
			Symbols: []scenario.Share{{Name: "ip_rcv<x>", Share: 0.25}},
		}},
	}
	for i, n := range []float64{1, 10, 1000} {
		name := []string{"policies-1", "policies-10", "policies-1000"}[i]
		r.Workloads = append(r.Workloads, scenario.Info{
			Name: name, About: "small packets & policies", Systems: []string{"generator", "kernel", "sluice"},
			Sweep: "policies", XName: "policies", X: n,
		})
		for run := range 4 {
			add := func(system string, v float64) {
				r.Samples = append(r.Samples, scenario.Sample{
					Workload: name, System: system, Run: run, Modes: map[string]string{"xsk": "copy"},
					Metrics: []scenario.Metric{{Name: "received", Unit: "Mpps", Value: v, Better: scenario.Higher},
						{Name: "cpu", Unit: "cores", Value: 1}},
				})
			}
			f := 1 + float64(run)/100
			add("generator", 2*f)
			add("kernel", 0.5*f)
			add("sluice", factor*f)
		}
	}
	return r
}

func TestPageIsGolden(t *testing.T) {
	golden.Check(t, "index.html", func(out io.Writer) error { return report.WriteHTML(out, results(1.9)) })
}

func TestPageNeedsNothingElse(t *testing.T) {
	var b bytes.Buffer
	if err := report.WriteHTML(&b, results(1)); err != nil {
		t.Fatal(err)
	}
	page := strings.ReplaceAll(b.String(), "http://www.w3.org/2000/svg", "")
	for _, bad := range []string{"http:", "https:", "src=", "<script", "@import", "<b>Sluice</b>"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q in it", bad)
		}
	}
	if n := strings.Count(page, "<svg"); n != 5 {
		t.Errorf("%d plots, want one a workload, one of them all and one of a profile", n)
	}
}

func TestTheGeneratorsLimitIsSaid(t *testing.T) {
	for factor, want := range map[float64]bool{1.9: true, 1.0: false} {
		var b bytes.Buffer
		if err := report.WriteHTML(&b, results(factor)); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(b.String(), "sluice: "+scenario.GeneratorLimit); got != want {
			t.Errorf("rate of %v below a ceiling of 2: said %v, want %v", factor, got, want)
		}
	}
}

func TestFolderHoldsEverything(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "results")
	now := time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)
	f, err := report.Create(parent, now)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(parent, "2026-11-27T090000"); f.Path() != want {
		t.Errorf("folder %s, want %s", f.Path(), want)
	}
	again, err := report.Create(parent, now)
	if err != nil || again.Path() == f.Path() {
		t.Errorf("a second run of the same second: %v", err)
	}
	if err := f.Write(results(1)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"results.json", "results.txt", "benchstat.txt", "index.html", "sweep-policies.svg", "policies-1-received.svg"} {
		if st, err := os.Stat(filepath.Join(f.Path(), name)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"sweep-policies.png", "policies-1-received.png", "policies-10-received.png"} {
		file, err := os.Open(filepath.Join(f.Path(), name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := png.Decode(file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		file.Close()
	}
	back, err := report.Read(f.Path())
	if err != nil || len(back.Samples) != len(results(1).Samples) || back.Partial != "" {
		t.Errorf("read back: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(f.Path(), "*.new")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// What is kept during a run is marked, so that nobody takes it for a whole one.
func TestWhatIsKeptIsMarked(t *testing.T) {
	f, err := report.Create(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r := results(1)
	if err := f.Keep(r); err != nil {
		t.Fatal(err)
	}
	back, err := report.Read(f.Path())
	if err != nil || back.Partial == "" || r.Partial != "" {
		t.Errorf("kept: partial %q, %v", back.Partial, err)
	}
}

// A file system of a few pages fills up for real.
func TestAFullDiskKeepsWhatThereWas(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal(err)
		}
		t.Skip("mounting needs root")
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	f, err := report.Create(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r := results(1)
	r.Samples = r.Samples[:3]
	if err := f.Keep(r); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		r.Samples = append(r.Samples, r.Samples...)
		err = f.Keep(r)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if back, err := report.Read(f.Path()); err != nil || len(back.Samples) < 3 {
		t.Errorf("what was written before is lost: %v", err)
	}
}

func TestUnwritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := report.Create(filepath.Join(file, "results"), time.Now()); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v", err)
	}
	for name, data := range map[string]string{"not JSON": "results", "no samples": "{}"} {
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := report.Read(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestCompareIsGolden(t *testing.T) {
	b := results(0.2)
	b.Machine.Kernel, b.Partial = "6.19.0", "interrupted after 3 of 4 measurements"
	b.Samples = append(b.Samples, scenario.Sample{Workload: "policies-10", System: "ovs",
		Metrics: []scenario.Metric{{Name: "received", Unit: "Mpps", Value: 1, Better: scenario.Higher}}})
	b.Workloads[1].Systems = append(b.Workloads[1].Systems, "ovs")
	golden.Check(t, "compare", report.Compare(results(1), b).WriteTable)
}

func TestVerdicts(t *testing.T) {
	of := func(better scenario.Better, values ...float64) *scenario.Results {
		r := &scenario.Results{Workloads: []scenario.Info{{Name: "w", Systems: []string{"s"}}}}
		for i, v := range values {
			r.Samples = append(r.Samples, scenario.Sample{Workload: "w", System: "s", Run: i,
				Metrics: []scenario.Metric{{Name: "m", Unit: "u", Value: v, Better: better}}})
		}
		return r
	}
	for _, c := range []struct {
		name   string
		better scenario.Better
		a, b   []float64
		want   report.Verdict
	}{
		{"faster", scenario.Higher, []float64{1, 2, 3, 4}, []float64{5, 6, 7, 8}, report.Better},
		{"slower", scenario.Higher, []float64{5, 6, 7, 8}, []float64{1, 2, 3, 4}, report.Worse},
		{"less latency", scenario.Lower, []float64{5, 6, 7, 8}, []float64{1, 2, 3, 4}, report.Better},
		{"overlap", scenario.Higher, []float64{1, 2, 3, 6}, []float64{5, 6, 7, 8}, report.NotShown},
		{"the same", scenario.Higher, []float64{1, 1, 1, 1}, []float64{1, 1, 1, 1}, report.NotShown},
		{"few", scenario.Higher, []float64{1, 2, 3}, []float64{5, 6, 7, 8}, report.TooFew},
	} {
		got := report.Compare(of(c.better, c.a...), of(c.better, c.b...))
		if len(got.Rows) != 1 || got.Rows[0].Verdict != c.want {
			t.Errorf("%s: got %+v, want %s", c.name, got.Rows, c.want)
		}
	}
	var b bytes.Buffer
	err := report.Compare(of(scenario.Higher, 0, 0), of(scenario.Higher, 1)).WriteJSON(&b)
	if back := (report.Comparison{}); err != nil || json.Unmarshal(b.Bytes(), &back) != nil {
		t.Errorf("from nothing: %v\n%s", err, b.String())
	}
}
