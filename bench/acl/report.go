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
		fmt.Fprintf(t, "%d\t%s\t%.1f\t%.1f\t%s\t%.1f\t%.1f ms\t%.0f ms\t%.1f MB\t%.1f MB\t\n",
			c.Rules, c.Traffic, ours.Median, theirs.Median, theirs.Name, theirs.Median/ours.Median,
			c.Sluice.BuildMs, c.RTE.BuildMs, float64(c.Sluice.Bytes)/1e6, float64(c.RTE.Bytes)/1e6)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nall algorithms, median (best) ns a lookup:")
	for _, c := range list {
		fmt.Fprintf(w, "%8d %-8s", c.Rules, c.Traffic)
		for _, timing := range append(c.Sluice.Timings[:1:1], c.RTE.Timings...) {
			fmt.Fprintf(w, "  %s %.1f (%.1f)", timing.Name, timing.Median, timing.Best)
		}
		fmt.Fprintln(w)
	}
	return nil
}
