package report_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/bench/report"
	"github.com/sluice-net/sluice/bench/scenario"
)

func TestTargets(t *testing.T) {
	r := &scenario.Results{}
	add := func(workload, system, metric string, values ...float64) {
		found := false
		for i := range r.Workloads {
			if r.Workloads[i].Name == workload {
				r.Workloads[i].Systems = append(r.Workloads[i].Systems, system)
				found = true
			}
		}
		if !found {
			r.Workloads = append(r.Workloads, scenario.Info{Name: workload, Systems: []string{system}})
		}
		for run, v := range values {
			r.Samples = append(r.Samples, scenario.Sample{Workload: workload, System: system, Run: run,
				Metrics: []scenario.Metric{{Name: metric, Value: v, Better: scenario.Higher}}})
		}
	}
	if report.WriteTargets(new(bytes.Buffer), r) != nil || len(report.Outcomes(r)) != 0 {
		t.Error("nothing was measured, but says something")
	}
	add("tcp-stream", "kernel", "rate", 10, 10, 10)
	add("tcp-stream", "sluice", "rate", 9.6, 9.7, 11)
	add("udp-small", "kernel", "received", 1, 1, 1)
	add("udp-small", "nftables", "received", 0.5, 0.5, 0.5)
	add("udp-small", "sluice", "received", 1.3, 1.5, 1.6)
	add("tcp-rr-same", "kernel", "p50", 20, 20)
	add("tcp-rr-same", "sluice", "p50", 21, 22)
	add("new-flows", "sluice", "admitted", 200e3, 250e3, 310e3)
	add("policies-1", "sluice", "received", 1, 1)
	add("policies-1k", "sluice", "received", 0.96, 0.97)
	var b bytes.Buffer
	if err := report.WriteTargets(&b, r); err != nil {
		t.Fatal(err)
	}
	for about, want := range map[string]string{
		"TCP": "met in every run", "by kernel forwarding without policy": "met", "by nftables": "met in every run",
		"response p50": "missed in every run", "new flows": "missed by the median", "1,000 policies": "met in every run",
	} {
		found := false
		for line := range strings.Lines(b.String()) {
			if strings.Contains(line, about+" ") || strings.Contains(line, about+",") {
				found = true
				if !strings.Contains(line, want) {
					t.Errorf("%s: want %q, got %s", about, want, line)
				}
			}
		}
		if !found {
			t.Errorf("%s is missing:\n%s", about, b.String())
		}
	}
	missed := []scenario.Pair{
		{Workload: "tcp-rr-same", System: "sluice"}, {Workload: "tcp-rr-same", System: "kernel"}, {Workload: "new-flows", System: "sluice"},
	}
	if got := report.Missed(r); !slices.Equal(got, missed) {
		t.Errorf("missed: got %v, want %v", got, missed)
	}
	for _, p := range append(missed, scenario.Pair{Workload: "udp-small", System: "sluice"}) {
		r.Profiles = append(r.Profiles, scenario.Profile{Workload: p.Workload, System: p.System, Stages: []scenario.Share{{Name: "IP stack of " + p.String(), Share: 1}}})
	}
	var where bytes.Buffer
	if err := report.WriteTargets(&where, r); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{"new-flows, sluice goes: 100% IP stack of new-flows, sluice": true, "of tcp-rr-same, sluice goes": true, "of udp-small": false, "of tcp-rr-same, kernel": false} {
		if strings.Contains(where.String(), text) != want {
			t.Errorf("%q: want %v\n%s", text, want, where.String())
		}
	}
	if strings.Contains(b.String(), "DPDK") || strings.Contains(b.String(), "10,000") {
		t.Errorf("says something of what was not measured:\n%s", b.String())
	}
}

// Of few runs, or of disturbed ones, a target's verdict says that it is worth
// little.
func TestTargetsSayWhatTheyAreWorth(t *testing.T) {
	r := &scenario.Results{Workloads: []scenario.Info{{Name: "new-flows", Systems: []string{"sluice"}}}}
	for run := range 4 {
		r.Samples = append(r.Samples, scenario.Sample{Workload: "new-flows", System: "sluice", Run: run, Others: float64(run) / 3,
			Metrics: []scenario.Metric{{Name: "admitted", Value: 400e3, Better: scenario.Higher}}})
	}
	if got := report.Outcomes(r); len(got) != 1 || !strings.Contains(got[0].Verdict, "3 of 4 samples were disturbed") || strings.Contains(got[0].Verdict, "too few") {
		t.Errorf("got %+v", got)
	}
	r.Samples = r.Samples[:1]
	if got := report.Outcomes(r); len(got) != 1 || !strings.Contains(got[0].Verdict, "too few") || strings.Contains(got[0].Verdict, "disturbed") {
		t.Errorf("got %+v", got)
	}
}
