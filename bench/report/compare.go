package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/sluice-net/sluice/bench/scenario"
)

// Comparison is two runs of the benchmark, side by side.
type Comparison struct {
	// Warnings say why the two may not be comparable.
	Warnings []string `json:"warnings,omitempty"`
	Rows     []Row    `json:"rows"`
	// OnlyA and OnlyB have no counterpart.
	OnlyA []string `json:"onlyA,omitempty"`
	OnlyB []string `json:"onlyB,omitempty"`
}

// Side is the samples of one of the two.
type Side struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Runs   int     `json:"runs"`
}

// Row compares one metric of one system under one workload.
type Row struct {
	Workload string          `json:"workload"`
	System   string          `json:"system"`
	Metric   string          `json:"metric"`
	Unit     string          `json:"unit"`
	Better   scenario.Better `json:"better"`
	A        Side            `json:"a"`
	B        Side            `json:"b"`
	Ratio    float64         `json:"ratio"` // of the medians, B by A
	Verdict  Verdict         `json:"verdict"`
}

// Verdict is what the two show.
type Verdict string

const (
	// Better and Worse: all samples of one side lie beyond all of the other's.
	Better Verdict = "better"
	Worse  Verdict = "worse"
	// NotShown: the difference is no larger than its spread.
	NotShown Verdict = "no larger than its spread"
	// TooFew: with so few runs, chance alone may set them apart.
	TooFew Verdict = "too few runs to say"
)

// enough runs of each side: all of 4 beyond all of 4 others is 1 chance in 35.
const enough = 4

// Compare compares what both have: the runs of two invocations can't be paired,
// so that a difference counts if their ranges don't overlap.
func Compare(a, b *scenario.Results) *Comparison {
	c := &Comparison{Warnings: warnings(a, b)}
	left, right := list(a), list(b)
	for _, l := range left {
		at := slices.IndexFunc(right, func(r entry) bool { return r.key() == l.key() })
		if at < 0 {
			c.OnlyA = append(c.OnlyA, l.key())
			continue
		}
		c.Rows = append(c.Rows, row(l, right[at]))
	}
	for _, r := range right {
		if !slices.ContainsFunc(left, func(l entry) bool { return l.key() == r.key() }) {
			c.OnlyB = append(c.OnlyB, r.key())
		}
	}
	return c
}

func warnings(a, b *scenario.Results) (out []string) {
	note := func(what, x, y string) {
		if x != y {
			out = append(out, fmt.Sprintf("%s differ: %q and %q", what, x, y))
		}
	}
	note("CPUs", fmt.Sprintf("%d × %s", a.Machine.CPUs, a.Machine.CPU), fmt.Sprintf("%d × %s", b.Machine.CPUs, b.Machine.CPU))
	note("kernels", a.Machine.Kernel, b.Machine.Kernel)
	note("frequency governors", a.Machine.Governor, b.Machine.Governor)
	note("whether CPUs were kept awake", strconv.FormatBool(a.Machine.Awake), strconv.FormatBool(b.Machine.Awake))
	note("congestion controls", a.Machine.Congestion, b.Machine.Congestion)
	note("durations of a measurement", a.Duration, b.Duration)
	for name, r := range map[string]*scenario.Results{"A": a, "B": b} {
		if r.Partial != "" {
			out = append(out, fmt.Sprintf("%s is partial: %s", name, r.Partial))
		}
	}
	slices.Sort(out)
	return out
}

type entry struct {
	workload, system string
	series           *scenario.Series
}

func (e entry) key() string { return e.workload + ", " + e.system + ": " + e.series.Metric.Name }

func list(r *scenario.Results) (out []entry) {
	for _, b := range r.Blocks() {
		for _, system := range b.Systems {
			for _, metric := range b.Metrics {
				if s := b.Series(system, metric); s != nil && s.Metric.Better != scenario.Neither {
					out = append(out, entry{b.Name, system, s})
				}
			}
		}
	}
	return out
}

func side(s *scenario.Series) Side {
	v := s.Values()
	return Side{scenario.Median(v), v[0], v[len(v)-1], len(v)}
}

func row(a, b entry) Row {
	m := a.series.Metric
	r := Row{Workload: a.workload, System: a.system, Metric: m.Name, Unit: m.Unit, Better: m.Better,
		A: side(a.series), B: side(b.series)}
	r.Ratio = r.B.Median / r.A.Median
	if r.A.Median == 0 {
		r.Ratio = 0 // of which nothing can be said; JSON knows no other way
	}
	switch {
	case r.B.Min <= r.A.Max && r.A.Min <= r.B.Max:
		r.Verdict = NotShown
	case r.A.Runs < enough || r.B.Runs < enough:
		r.Verdict = TooFew
	case (r.B.Median > r.A.Median) == (m.Better == scenario.Higher):
		r.Verdict = Better
	default:
		r.Verdict = Worse
	}
	return r
}

// WriteTable writes the comparison for people.
func (c *Comparison) WriteTable(out io.Writer) error {
	for _, w := range c.Warnings {
		fmt.Fprintln(out, "warning:", w)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WORKLOAD\tSYSTEM\tMETRIC\tA\tB\tB/A\tVERDICT")
	for _, r := range c.Rows {
		ratio := "-"
		if r.Ratio != 0 {
			ratio = fmt.Sprintf("%.2f×", r.Ratio)
		}
		fmt.Fprintf(w, "%s\t%s\t%s %s\t%s\t%s\t%s\t%s\n", r.Workload, r.System, r.Metric, r.Unit, r.A, r.B, ratio, r.Verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, only := range c.OnlyA {
		fmt.Fprintln(out, "only in A:", only)
	}
	for _, only := range c.OnlyB {
		fmt.Fprintln(out, "only in B:", only)
	}
	_, err := fmt.Fprintf(out, "Medians ± half the range of each side's runs. %q: the ranges overlap; %q: fewer than %d runs on a side.\n",
		NotShown, TooFew, enough)
	return err
}

// String is the median with half the range.
func (s Side) String() string {
	text := scenario.Number(s.Median)
	if share := (s.Max - s.Min) / 2 / math.Abs(s.Median); share >= 0.005 && !math.IsInf(share, 0) {
		text += fmt.Sprintf(" ±%.0f%%", 100*share)
	}
	return text
}

// WriteJSON writes the comparison for programs.
func (c *Comparison) WriteJSON(out io.Writer) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(c)
}
