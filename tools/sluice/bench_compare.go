package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/bench/report"
)

func newBenchCompareCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "compare A B",
		Short: "Compare two runs of the benchmark",
		Long: `Compare the results in two folders, or two files of JSON, that the benchmark
wrote: medians with their spread, ratios, and whether the difference is larger
than the spread. Says what may make the two incomparable.`,
		Example: `  sluice bench compare results/2026-11-01T120000 results/2026-11-27T090000
  sluice bench compare old.json new.json -o json`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "table" && output != "json" {
				return usageError(fmt.Errorf("--output=%s: want table or json", output))
			}
			a, err := report.Read(args[0])
			if err != nil {
				return err
			}
			b, err := report.Read(args[1])
			if err != nil {
				return err
			}
			c := report.Compare(a, b)
			if len(c.Rows) == 0 {
				return fmt.Errorf("compare %s and %s: they have no measurement in common", args[0], args[1])
			}
			if output == "json" {
				return c.WriteJSON(cmd.OutOrStdout())
			}
			return c.WriteTable(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func newBenchReportCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "report DIR",
		Short:   "Write page and plots of a run anew, from its JSON",
		Example: "  sluice bench report results/2026-11-27T090000",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := report.Read(args[0])
			if err != nil {
				return err
			}
			f, err := report.Open(args[0])
			if err != nil {
				return err
			}
			return f.Write(r)
		},
	}
}
