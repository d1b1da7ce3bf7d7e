package scenario_test

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"testing"

	"github.com/sluice-net/sluice/bench/golden"
	"github.com/sluice-net/sluice/bench/scenario"
)

// results are fixed numbers: one system that is clearly faster, one of which
// nothing can be said, one that lacks a metric, and a disturbed sample.
func results() *scenario.Results {
	r := &scenario.Results{
		Machine:  scenario.Machine{CPU: "Test CPU", CPUs: 2, Kernel: "6.18.0", Go: "go1.26", Load: "0.10 0.20 0.30"},
		Runs:     5,
		Duration: "2s",
		Skipped:  []string{"nftables: no nft"},
		Failures: []string{"tcp-stream, inspect, run 1: stream server: accept: broken"},
	}
	for run := range 5 {
		f := float64(run)
		add := func(workload, system string, others float64, ms ...scenario.Metric) {
			r.Samples = append(r.Samples, scenario.Sample{
				Workload: workload, System: system, Run: run, Metrics: ms, Others: others,
				Modes: map[string]string{"xsk": "copy", "attach": "tcx"},
			})
		}
		rate := func(v float64) scenario.Metric {
			return scenario.Metric{Name: "rate", Unit: "Gbit/s", Value: v, Better: scenario.Higher}
		}
		again := func(v float64) scenario.Metric {
			return scenario.Metric{Name: "retransmits", Unit: "segments", Value: v}
		}
		add("tcp-stream", "kernel", 0.02, rate(10+f), again(1000*f))
		add("tcp-stream", "sluice", 0.3*f, rate(15+f), again(float64(run/4*6)))
		add("tcp-stream", "inspect", 0, rate(8+2*f))
		add("raw", "xdp-drop", 0, scenario.Metric{Name: "received", Unit: "Mpps", Value: 5.5, Better: scenario.Higher})
	}
	return r
}

func TestReportsAreGolden(t *testing.T) {
	for name, write := range map[string]func(*scenario.Results, io.Writer) error{
		"table":     (*scenario.Results).WriteTable,
		"benchstat": (*scenario.Results).WriteBenchstat,
	} {
		t.Run(name, func(t *testing.T) {
			golden.Check(t, name, func(out io.Writer) error { return write(results(), out) })
		})
	}
}

func TestJSONHoldsEverySample(t *testing.T) {
	var b bytes.Buffer
	if err := results().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var back scenario.Results
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&back, results()) {
		t.Errorf("got back\n%+v\nwant\n%+v", &back, results())
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestReportsSayThatTheyCouldNotBeWritten(t *testing.T) {
	for name, write := range map[string]func(*scenario.Results, io.Writer) error{
		"table":     (*scenario.Results).WriteTable,
		"json":      (*scenario.Results).WriteJSON,
		"benchstat": (*scenario.Results).WriteBenchstat,
	} {
		if write(results(), broken{}) == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
