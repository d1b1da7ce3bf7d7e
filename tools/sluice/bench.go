package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/bench/scenario"
)

func init() { commands = append(commands, newBenchCommand) }

// benchFormats are the forms that results can be written in.
var benchFormats = []struct {
	name, file string
	write      func(*scenario.Results, io.Writer) error
}{
	{"table", "results.txt", (*scenario.Results).WriteTable},
	{"json", "results.json", (*scenario.Results).WriteJSON},
	{"benchstat", "benchstat.txt", (*scenario.Results).WriteBenchstat},
}

func newBenchCommand() *cobra.Command {
	var systems []string
	var output, dir string
	plan := scenario.Plan{}
	cmd := &cobra.Command{
		Use:   "bench [WORKLOAD...]",
		Short: "Measure Sluice against the kernel and others on this machine",
		Long: `Measure Sluice, the kernel alone, nftables and a plain AF_XDP forwarder under the
same traffic between two pods of a node in network namespaces. The systems take
turns, so that what drifts on the machine meets all alike; the report gives
medians, their spread, and ratios, and says where a difference is no larger than
its spread. Nothing of the machine's own network is used, and nothing is left
behind. Needs root, and a machine that does nothing else.

` + benchList(),
		Example: `  # Everything (half an hour and more), or some of it
  sudo sluice bench
  sudo sluice bench tcp-stream udp-small --systems kernel,sluice --runs 5

  # For benchstat, and all forms into a folder
  sudo sluice bench tcp-rr -o benchstat > new.txt
  sudo sluice bench --out results/`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			write := benchWriter(output)
			if write == nil {
				return usageError(fmt.Errorf("--output=%s: want table, json or benchstat", output))
			}
			var err error
			if plan.Workloads, err = scenario.Select(args); err != nil {
				return usageError(err)
			}
			plan.Systems = systems
			if err := plan.Validate(); err != nil {
				return usageError(err)
			}
			if err := needRoot(); err != nil {
				return err
			}
			if plan.Self, err = os.Executable(); err != nil {
				return fmt.Errorf("find own binary: %w", err)
			}
			p := newProgress(os.Stderr)
			plan.Progress = func(done, total int, what string) {
				p.stage(fmt.Sprintf("%d/%d %s", done+1, total, what))
			}
			plan.Waiting = func() { p.stage("waiting for another benchmark on this machine to end") }
			results, err := plan.Run(cmd.Context())
			p.done()
			if results == nil {
				return err
			}
			err = errors.Join(err, write(results, cmd.OutOrStdout()))
			if dir != "" {
				err = errors.Join(err, writeBench(results, dir))
			}
			if err == nil && len(results.Failures) > 0 {
				err = fmt.Errorf("%d measurements failed:\n%s", len(results.Failures), strings.Join(results.Failures, "\n"))
			}
			return err
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, w := range scenario.Workloads() {
				names = append(names, w.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&systems, "systems", nil, "measure only these")
	flags.IntVar(&plan.Runs, "runs", 5, "measurements of each system under each workload")
	flags.DurationVar(&plan.Duration, "duration", 2*time.Second, "of each measurement")
	flags.IntVar(&plan.Retries, "retries", 2, "repeat a measurement that other processes disturbed, this often at most")
	flags.StringVarP(&output, "output", "o", "table", "table, json or benchstat")
	flags.StringVar(&dir, "out", "", "folder for the results in all forms")
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "benchstat"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("systems", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, s := range scenario.Systems() {
			names = append(names, s.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	cmd.AddCommand(newBenchForwarderCommand())
	return cmd
}

func benchWriter(format string) func(*scenario.Results, io.Writer) error {
	for _, f := range benchFormats {
		if f.name == format {
			return f.write
		}
	}
	return nil
}

func writeBench(r *scenario.Results, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create folder for results: %w", err)
	}
	for _, form := range benchFormats {
		f, err := os.Create(filepath.Join(dir, form.file))
		if err != nil {
			return fmt.Errorf("write results: %w", err)
		}
		if err := errors.Join(form.write(r, f), f.Close()); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	return nil
}

// benchList is the workloads and systems for the help text.
func benchList() string {
	var b strings.Builder
	b.WriteString("Workloads (a name also stands for all that begin with it):\n")
	for _, w := range scenario.Workloads() {
		fmt.Fprintf(&b, "  %-19s %s\n", w.Name, w.About)
	}
	b.WriteString("\nSystems:\n")
	for _, s := range scenario.Systems() {
		fmt.Fprintf(&b, "  %-19s %s\n", s.Name, s.About)
	}
	return strings.TrimRight(b.String(), "\n")
}

// newBenchForwarderCommand is for the benchmark's own use.
func newBenchForwarderCommand() *cobra.Command {
	return &cobra.Command{
		Use:    strings.Join(scenario.ForwarderCommand[1:], " ") + " LINK MAC LINK MAC FRAMES",
		Short:  "Forward between two links with asavie/xdp",
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return scenario.RunForwarder(cmd.Context(), args)
		},
	}
}
