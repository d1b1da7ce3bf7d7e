package scenario

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// WriteTable writes the results for people: medians with half their range, and
// ratios to each workload's first system.
func (r *Results) WriteTable(out io.Writer) error {
	// Errors of out surface in the tables' flushes.
	fmt.Fprintf(out, "%s\n%d runs of %s each, interleaved; median ± half the range. Ratios are medians of pairs\n"+
		"of neighbouring runs; ~ marks a difference that is no larger than its spread.\n", r.Machine, r.Runs, r.Duration)
	if r.Partial != "" {
		fmt.Fprintln(out, "PARTIAL:", r.Partial)
	}
	for _, b := range r.Blocks() {
		fmt.Fprintf(out, "\n%s: %s\n", b.Name, b.About)
		if err := b.table(out); err != nil {
			return err
		}
		if n, of, worst := b.Disturbed(); n > 0 {
			fmt.Fprintf(out, "  disturbed: during %d of %d samples other processes used more than %g CPUs (%.1f at worst)\n",
				n, of, disturbance, worst)
		}
		for _, s := range b.Systems {
			if limit := b.Limits[s]; limit != "" {
				fmt.Fprintf(out, "  %s: %s: it may be faster\n", s, limit)
			}
			if m := modes(b.Modes[s]); m != "" {
				fmt.Fprintf(out, "  %s: %s\n", s, m)
			}
		}
	}
	if len(r.Profiles) > 0 {
		fmt.Fprintln(out, "\nWhere the CPUs' busy time went, of all processes:")
	}
	for _, p := range r.Profiles {
		fmt.Fprintln(out, " ", p)
	}
	for _, line := range r.Skipped {
		fmt.Fprintln(out, "skipped:", line)
	}
	for _, line := range r.Failures {
		fmt.Fprintln(out, "failed:", line)
	}
	return nil
}

func (b *Block) table(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	base := b.Base()
	head := []string{"SYSTEM"}
	for _, name := range b.Metrics {
		m := b.Metric(name)
		head = append(head, m.Name+" "+m.Unit)
		if m.Better != Neither && len(b.Systems) > 1 {
			head = append(head, "vs "+base)
		}
	}
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, system := range b.Systems {
		row := []string{system}
		for _, name := range b.Metrics {
			at := b.Series(system, name)
			row = append(row, cell(at))
			if b.Metric(name).Better != Neither && len(b.Systems) > 1 {
				row = append(row, ratioCell(at, b.Series(base, name), system == base))
			}
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

func cell(s *Series) string {
	if s == nil {
		return "-"
	}
	v := s.Values()
	text := Number(Median(v))
	switch spread := Spread(v); {
	case math.IsInf(spread, 0): // half the range itself: there is no share of 0
		text += " ±" + Number((v[len(v)-1]-v[0])/2)
	case spread >= 0.005:
		text += fmt.Sprintf(" ±%.0f%%", 100*spread)
	}
	return text
}

// Number has three significant digits, or all of a whole one.
func Number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1 || a == 0:
		return strings.TrimSuffix(fmt.Sprintf("%.2f", v), ".00")
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

// ratioCell compares pairs of runs; ~ marks what shows no difference.
func ratioCell(s, base *Series, isBase bool) string {
	if s == nil || base == nil || isBase {
		return ""
	}
	r := Compare(s.ByRun, base.ByRun)
	switch {
	case math.IsNaN(r.Median):
		return "-"
	case r.Clear():
		return fmt.Sprintf("%.2f×", r.Median)
	default:
		return fmt.Sprintf("~ %.2f×", r.Median)
	}
}

func modes(m map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+"="+m[k])
	}
	return strings.Join(parts, ", ")
}

// WriteJSON writes every sample.
func (r *Results) WriteJSON(out io.Writer) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// WriteBenchstat writes the results as the output of "go test -bench", for
// benchstat: one line a sample, systems as a sub-benchmark key.
func (r *Results) WriteBenchstat(out io.Writer) error {
	fmt.Fprintf(out, "goos: linux\npkg: github.com/sluice-net/sluice/bench\ncpu: %s\nkernel: %s\n", r.Machine.CPU, r.Machine.Kernel)
	units := map[string]bool{}
	for _, s := range r.Samples {
		for _, m := range s.Metrics {
			if u := unit(m); m.Better != Neither && !units[u] {
				units[u] = true
				fmt.Fprintf(out, "Unit %s better=%s\n", u, m.Better)
			}
		}
	}
	for _, s := range r.Samples {
		fmt.Fprintf(out, "Benchmark%s/system=%s-%d 1", camel(s.Workload), s.System, r.Machine.CPUs)
		for _, m := range s.Metrics {
			if _, err := fmt.Fprintf(out, " %g %s", m.Value, unit(m)); err != nil {
				return err
			}
		}
		fmt.Fprintln(out)
	}
	return nil
}

// unit names a metric as benchmarks name their units: without blanks.
func unit(m Metric) string {
	return m.Name + ":" + strings.NewReplacer("µ", "u", " ", "-").Replace(m.Unit)
}

// camel is a name as benchmarks have it: TcpStreamPinned.
func camel(name string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(name, "-") {
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return b.String()
}
