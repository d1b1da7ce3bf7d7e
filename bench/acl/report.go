package acl

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Print writes a table: medians, and rte_acl's fastest algorithm as a multiple
// of ours.
func Print(w io.Writer, list []Comparison) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "rules\ttraffic\tsluice ns\trte_acl ns\twith\tratio\tsluice build\trte_acl build\tsluice memory\trte_acl memory\t")
	for _, c := range list {
		ours, theirs := c.Sluice.Timings[0], c.RTE.Timings[0]
		fmt.Fprintf(t, "%d\t%s\t%.1f\t%.1f\t%s\t%.1f\t%.1f ms\t%.0f ms\t%.2f MB\t%.1f MB\t\n",
			c.Rules, c.Traffic, ours.Median, theirs.Median, theirs.Name, theirs.Median/ours.Median,
			c.Sluice.BuildMs, c.RTE.BuildMs, float64(c.Sluice.Bytes)/1e6, float64(c.RTE.Bytes)/1e6)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nall algorithms, median (best to 90th percentile) ns a lookup:")
	for _, c := range list {
		fmt.Fprintf(w, "%8d %-8s", c.Rules, c.Traffic)
		printTimings(w, append(c.Sluice.Timings[:1:1], c.RTE.Timings...))
	}
	return nil
}

// PrintAlone writes what Sluice costs by itself.
func PrintAlone(w io.Writer, list []Alone) {
	fmt.Fprintln(w, "\nSluice alone, median (best to 90th percentile) ns a lookup; touch reads the queries and looks nothing up:")
	for _, a := range list {
		fmt.Fprintf(w, "%11s %-8s", a.Scale, a.Traffic)
		printTimings(w, a.Timings)
		if a.Traffic == "uniform" {
			fmt.Fprintf(w, "%20s build %.1f ms, %.2f MB\n", "", a.BuildMs, float64(a.Bytes)/1e6)
		}
	}
}

func printTimings(w io.Writer, list []Timing) {
	for _, t := range list {
		fmt.Fprintf(w, "  %s %.1f (%.1f to %.1f)", t.Name, t.Median, t.Best, t.P90)
	}
	fmt.Fprintln(w)
}
