package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/bench/plot"
	"github.com/sluice-net/sluice/bench/scenario"
)

// Plot is one figure of a report.
type Plot struct {
	Name   string // of its file
	Figure plot.Figure
}

// Plots are the figures of a report: for each workload its results, each by
// system, and for each family of workloads what their parameter does.
func Plots(r *scenario.Results) []Plot {
	blocks := r.Blocks()
	plots := sweeps(blocks, r)
	for _, b := range blocks {
		plots = append(plots, bars(b, r)...)
	}
	return append(plots, profiles(r)...)
}

// profiles are where the time goes, a figure a workload.
func profiles(r *scenario.Results) (plots []Plot) {
	for _, w := range r.Workloads {
		f := plot.Stacks{Title: w.Name + ": where the time goes", About: w.About,
			Axis: "busy time of all CPUs, generator and sink included, by stage"}
		for _, p := range r.Profiles {
			if p.Workload != w.Name {
				continue
			}
			st := plot.Stack{Label: p.System}
			for _, s := range p.Stages {
				st.Parts = append(st.Parts, plot.Part{Name: s.Name, Share: s.Share})
			}
			f.Stacks = append(f.Stacks, st)
			f.Notes = []string{"In one more measurement, " + p.About() + "; numbers are percents.", r.Machine.String()}
		}
		if len(f.Stacks) > 0 {
			plots = append(plots, Plot{fileName("profile-" + w.Name), f})
		}
	}
	return plots
}

// shown says which metrics get a figure: results, not explanations, the first
// of a workload and at most one more of another unit.
func shown(b *scenario.Block) (names []string) {
	var units []string
	for _, name := range b.Metrics {
		m := b.Metric(name)
		if m.Better == scenario.Neither || slices.Contains(units, m.Unit) || len(names) == 2 {
			continue
		}
		names, units = append(names, name), append(units, m.Unit)
	}
	return names
}

func axis(m scenario.Metric) string {
	return fmt.Sprintf("%s, %s (%s is better)", m.Name, m.Unit, m.Better)
}

// setting is where and how, for below a figure.
func setting(r *scenario.Results) string {
	return fmt.Sprintf("%s. %d runs of %s, systems taking turns; network namespaces and veth.", r.Machine, r.Runs, r.Duration)
}

func bars(b *scenario.Block, r *scenario.Results) (plots []Plot) {
	for _, name := range shown(b) {
		m := b.Metric(name)
		f := plot.Bars{Title: b.Name + ": " + m.Name, About: b.About, Axis: axis(m)}
		var limits []string
		for _, system := range b.Systems {
			bar := plot.Bar{Label: system, Base: system == b.Base() || system == scenario.Ceiling}
			if s := b.Series(system, name); s != nil {
				bar.Values = s.Values()
				bar.Note = ratioNote(b, system, name)
			}
			if limit := b.Limits[system]; limit != "" {
				at := slices.Index(limits, limit)
				if at < 0 {
					at = len(limits)
					limits = append(limits, limit)
				}
				bar.Note, bar.Alarm = strings.TrimLeft(bar.Note+"  "+mark(at), " "), true
			}
			f.Bars = append(f.Bars, bar)
		}
		for i, limit := range limits {
			f.Notes = append(f.Notes, fmt.Sprintf("%s: %s; it may be faster.", mark(i), limit))
		}
		f.Notes = append(f.Notes,
			fmt.Sprintf("×: median of ratios of neighbouring runs to %s; ~: no larger than its spread, or of fewer than four runs.", b.Base()),
			setting(r),
		)
		if n, of, worst := b.Disturbed(); n > 0 {
			f.Notes = append(f.Notes, fmt.Sprintf("Disturbed: other processes used CPUs during %d of %d samples, %.1f at worst.", n, of, worst))
		}
		plots = append(plots, Plot{fileName(b.Name + "-" + name), f})
	}
	return plots
}

// mark stands beside a bar for a note below the figure.
func mark(i int) string {
	marks := []string{"†", "‡", "§", "¶"}
	return strings.Repeat(marks[i%len(marks)], 1+i/len(marks))
}

// fileName spells p50@90% so that it needs no quoting.
func fileName(s string) string { return strings.NewReplacer("@", "-at-", "%", "", "/", "-").Replace(s) }

// ratioNote is how a system compares to the base.
func ratioNote(b *scenario.Block, system, metric string) string {
	base := b.Series(b.Base(), metric)
	if system == b.Base() || system == scenario.Ceiling || base == nil {
		return ""
	}
	r := scenario.Compare(b.Series(system, metric).ByRun, base.ByRun)
	switch {
	case math.IsNaN(r.Median):
		return ""
	case r.Clear():
		return fmt.Sprintf("%.2f×", r.Median)
	}
	return fmt.Sprintf("~ %.2f×", r.Median)
}

// sweeps draws a line a system over the parameter of each family.
func sweeps(blocks []*scenario.Block, r *scenario.Results) (plots []Plot) {
	var families []string
	for _, b := range blocks {
		if b.Sweep != "" && !slices.Contains(families, b.Sweep) {
			families = append(families, b.Sweep)
		}
	}
	for _, family := range families {
		members := slices.DeleteFunc(slices.Clone(blocks), func(b *scenario.Block) bool { return b.Sweep != family })
		slices.SortFunc(members, func(a, b *scenario.Block) int { return cmp.Compare(a.X, b.X) })
		names := shown(members[0])
		if len(members) < 2 || len(names) == 0 {
			continue
		}
		m := members[0].Metric(names[0])
		f := plot.Lines{
			Title: family + ": " + m.Name + " by " + members[0].XName, About: members[0].About,
			XAxis: members[0].XName, YAxis: axis(m), Notes: []string{setting(r)},
		}
		if first, last := members[0].X, members[len(members)-1].X; last >= 20*first {
			f.LogX, f.XAxis = true, f.XAxis+" (logarithmic)"
		}
		for _, b := range members {
			for _, system := range b.Systems {
				if s := b.Series(system, names[0]); s != nil {
					f.Series = addPoint(f.Series, system, plot.Point{X: b.X, Values: s.Values()})
				}
			}
		}
		plots = append(plots, Plot{"sweep-" + family, f})
	}
	return plots
}

func addPoint(all []plot.Series, name string, p plot.Point) []plot.Series {
	at := slices.IndexFunc(all, func(s plot.Series) bool { return s.Name == name })
	if at < 0 {
		at = len(all)
		all = append(all, plot.Series{Name: name})
	}
	all[at].Points = append(all[at].Points, p)
	return all
}
