package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/bench/report"
	"github.com/sluice-net/sluice/bench/scenario"
)

func init() { commands = append(commands, newBenchCommand) }

// benchForms are what can be written to the standard output.
var benchForms = map[string]func(*scenario.Results, io.Writer) error{
	"table": func(r *scenario.Results, out io.Writer) error { return report.WriteTable(out, r) },
	"json":  (*scenario.Results).WriteJSON, "benchstat": (*scenario.Results).WriteBenchstat,
}

// benchProfiles is of what it is found where the time goes.
var benchProfiles = map[string]func(*scenario.Results) []scenario.Pair{
	"missed": report.Missed, "all": scenario.Everything, "none": nil,
}

func newBenchCommand() *cobra.Command {
	var output, dir, toMAC, profile string
	plan, cable := scenario.Plan{}, scenario.DefaultCable()
	cmd := &cobra.Command{
		Use:   "bench [SCENARIO...]",
		Short: "Measure Sluice against the kernel and others on this machine",
		Long: `Measure Sluice, the kernel alone and what one might use instead under the same
traffic between two pods of a node in network namespaces, or between two
interfaces of this machine (--tx-if, --rx-if). The systems take turns, so that
what drifts on the machine meets all alike; the report gives medians, their
spread, and ratios, and says where a difference is no larger than its spread and
where the generator was the limit. Nothing is left behind. Needs root, and a
machine that does nothing else.

The table goes to the standard output; a folder below results, named by the time,
gets JSON, text for benchstat, a page of HTML, and each plot as SVG and PNG.
Ctrl-C keeps what has been measured, marked as partial.

` + benchList(),
		Example: `  # The standard scenarios within ten minutes; or all; or some of them
  sudo sluice bench
  sudo sluice bench all --within 0
  sudo sluice bench tcp-stream udp-small --systems kernel,sluice --runs 5

  # Throughput and latency of what is cabled between two network cards
  sudo sluice bench rfc2544 --tx-if eth1 --rx-if eth2 --to-mac 02:00:00:00:00:01

  # What has changed since then
  sluice bench compare results/2026-11-01T120000 results/2026-11-27T090000`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			write := benchForms[output]
			if write == nil {
				return usageError(fmt.Errorf("--output=%s: want table, json or benchstat", output))
			}
			var err error
			if plan.Workloads, err = scenario.Select(args); err != nil {
				return usageError(err)
			}
			which, ok := benchProfiles[profile]
			if !ok {
				return usageError(fmt.Errorf("--profile=%s: want missed, all or none", profile))
			}
			plan.Profile = which
			if cable.TX != "" || cable.RX != "" {
				if toMAC != "" {
					if cable.ToMAC, err = net.ParseMAC(toMAC); err != nil {
						return usageError(fmt.Errorf("--to-mac: %w", err))
					}
				}
				plan.Cable = &cable
			}
			if err := plan.Validate(); err != nil {
				return usageError(err)
			}
			if err := needRoot(); err != nil {
				return err
			}
			if plan.Self, err = os.Executable(); err != nil {
				return fmt.Errorf("find own binary: %w", err)
			}
			return runBench(cmd, &plan, dir, write)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			names := []string{scenario.All}
			for _, w := range scenario.Workloads() {
				names = append(names, w.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&plan.Systems, "systems", nil, "measure only these")
	flags.IntVar(&plan.Runs, "runs", 5, "measurements of each system under each scenario, at most")
	flags.DurationVar(&plan.Duration, "duration", 500*time.Millisecond, "of each measurement")
	flags.BoolVar(&plan.Awake, "awake", false, "keep the CPUs from sleeping meanwhile (/dev/cpu_dma_latency), as nodes tuned for latency do")
	flags.StringVar(&plan.Congestion, "congestion", "cubic", "congestion control of the pods' TCP; \"\": what the kernel is set to")
	flags.DurationVar(&plan.Within, "within", 10*time.Minute, "begin no round of runs that would not end by then; 0: no limit")
	flags.StringVar(&profile, "profile", "missed", "measure once more under perf, and say by stage where the time goes: those that missed a target, all, or none")
	flags.StringVar(&plan.Pcap, "pcap", "", "capture whose packets the replay scenario sends")
	flags.StringVar(&cable.TX, "tx-if", "", "measure what is between two interfaces: the one to send by")
	flags.StringVar(&cable.RX, "rx-if", "", "the one to receive by")
	flags.StringVar(&toMAC, "to-mac", "", "MAC that frames between interfaces go to (default that of --rx-if)")
	flags.TextVar(&cable.From, "from", cable.From, "source address of packets between interfaces")
	flags.TextVar(&cable.To, "to", cable.To, "destination address of packets between interfaces")
	flags.IntVar(&plan.Retries, "retries", 1, "repeat a measurement that other processes disturbed, this often at most")
	flags.StringVarP(&output, "output", "o", "table", "table, json or benchstat, to the standard output")
	flags.StringVar(&dir, "out", "results", "folder in which the folder of this run is made; \"\": none")
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "benchstat"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions([]string{"missed", "all", "none"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("systems", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, s := range scenario.Systems() {
			names = append(names, s.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	cmd.AddCommand(append(newBenchPeerCommands(), newBenchCompareCommand(), newBenchReportCommand())...)
	return cmd
}

// runBench measures and writes everything that there is to write, also if it
// was interrupted.
func runBench(cmd *cobra.Command, plan *scenario.Plan, dir string, write func(*scenario.Results, io.Writer) error) error {
	var folder *report.Folder
	if dir != "" {
		var err error
		if folder, err = report.Create(dir, time.Now()); err != nil {
			return err
		}
		plan.Keep = folder.Keep
	}
	p := newProgress(os.Stderr)
	plan.Progress = func(at scenario.Progress) {
		left := ""
		if at.Remaining > 0 {
			left = fmt.Sprintf(", %v left", at.Remaining.Round(time.Second))
		}
		p.stage(fmt.Sprintf("%d/%d %s%s", at.Done+1, at.Total, at.What, left))
	}
	plan.Waiting = func() { p.stage("waiting for another benchmark on this machine to end") }
	results, err := plan.Run(cmd.Context())
	p.done()
	if results == nil || len(results.Samples) == 0 {
		if folder != nil {
			err = errors.Join(err, folder.Remove())
		}
		if results != nil && err == nil {
			err = fmt.Errorf("nothing was measured:\n%s", strings.Join(results.Failures, "\n"))
		}
		return err
	}
	results.Command = strings.Join(append([]string{"sluice"}, os.Args[1:]...), " ")
	results.Versions["sluice"] = version()
	if folder != nil {
		if wrote := folder.Write(results); wrote != nil {
			err = errors.Join(err, wrote)
		} else {
			p.message("Results are in " + folder.Path())
		}
	}
	if results.Partial != "" {
		p.message("Partial results: " + results.Partial)
	}
	err = errors.Join(err, write(results, cmd.OutOrStdout()))
	if err == nil && len(results.Failures) > 0 {
		err = fmt.Errorf("%d measurements failed:\n%s", len(results.Failures), strings.Join(results.Failures, "\n"))
	}
	return err
}

// benchList is the workloads and systems for the help text.
func benchList() string {
	var b strings.Builder
	b.WriteString("Scenarios (a name also stands for all that begin with it; * the standard ones;\nall stands for all):\n")
	for _, w := range scenario.Workloads() {
		mark := " "
		if len(w.Standard) > 0 {
			mark = "*"
		}
		fmt.Fprintf(&b, "%s %-19s %s\n", mark, w.Name, w.About)
	}
	b.WriteString("\nSystems:\n")
	for _, s := range scenario.Systems() {
		fmt.Fprintf(&b, "  %-19s %s\n", s.Name, s.About)
	}
	return strings.TrimRight(b.String(), "\n")
}

// newBenchPeerCommands are for the benchmark's own use.
func newBenchPeerCommands() []*cobra.Command {
	return []*cobra.Command{
		{
			Use:    scenario.ForwarderCommand[1] + " LINK MAC LINK MAC FRAMES",
			Short:  "Forward between two links with asavie/xdp",
			Hidden: true,
			RunE:   func(cmd *cobra.Command, args []string) error { return scenario.RunForwarder(cmd.Context(), args) },
		},
		{
			Use:    scenario.QueueCommand[1] + " PEERS",
			Short:  "Judge the packets of NFQUEUE 0",
			Hidden: true,
			RunE:   func(cmd *cobra.Command, args []string) error { return scenario.RunQueue(cmd.Context(), args) },
		},
	}
}
