package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/control"
	"github.com/sluice-net/sluice/tools/doctor"
)

func init() { commands = append(commands, newDoctorCommand, newSysdumpCommand) }

func newDoctorCommand() *cobra.Command {
	var output string
	d := control.Default()
	o := doctor.Options{}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine whether this node can run Sluice well",
		Long: `Examine the node: kernel version and configuration, capabilities, bpffs, locked
memory, each network card's driver, XDP modes, queues, MTU, bonds and interrupts,
programs of others on links, the CNI, and the agent if one runs. Nothing is
changed. Each finding that calls for it comes with advice.

Exit code 0: nothing stands in the way; 1: something doesn't work.`,
		Example: `  sudo sluice doctor
  sudo sluice doctor -o json | jq '.findings[] | select(.level != "ok")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return usageError(fmt.Errorf("--output=%s: want table or json", output))
			}
			r := doctor.Examine(cmd.Context(), o)
			if err := printReport(cmd.OutOrStdout(), r, output); err != nil {
				return err
			}
			if r.Worst() == doctor.Fault {
				return failed()
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cmd.Flags().StringVar(&o.PinPath, "pin-path", d.PinPath, "the agent's folder on a bpffs")
	cmd.Flags().StringVar(&o.Socket, "socket", d.Socket, "the agent's API")
	return cmd
}

func printReport(out io.Writer, r *doctor.Report, output string) error {
	if output == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "LEVEL\tAREA\tWHAT\tFOUND")
	for _, f := range r.Findings {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.Level, f.Area, f.Name, f.Value)
		if f.Advice != "" {
			fmt.Fprintf(w, "\t\t\t→ %s\n", f.Advice)
		}
	}
	return w.Flush()
}

func newSysdumpCommand() *cobra.Command {
	var file string
	d := control.Default()
	o := doctor.DumpOptions{}
	cmd := &cobra.Command{
		Use:   "sysdump",
		Short: "Write one archive with all that a bug report needs, and no secrets",
		Long: `Write a tar.gz with the doctor's report, the agent's state, endpoints and last
flows, its configuration and log, links, routes, neighbours, filter rules, BPF
programs and maps as the kernel lists them, counters, and the kernel's last
messages. Environment variables, service accounts' tokens, Secrets, kubeconfigs
and packets' contents are never read; values of configuration fields whose names
suggest a secret are blanked. The archive does name pods, namespaces, policies
and addresses: see what is in it before you hand it on.`,
		Example: `  sudo sluice sysdump
  kubectl -n kube-system exec ds/sluice-agent -c agent -- /sluice sysdump -o - > dump.tar.gz
  sudo sluice sysdump --output dump.tar.gz --log /var/log/sluice.log && tar tzf dump.tar.gz`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Version = version()
			if file == "" {
				file = doctor.DumpName()
			}
			if file == "-" {
				_, err := doctor.DumpTo(cmd.Context(), cmd.OutOrStdout(), o)
				return err
			}
			n, err := doctor.Dump(cmd.Context(), file, o)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d files in\n", n)
			_, err = fmt.Fprintln(cmd.OutOrStdout(), file)
			return err
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "archive to write, or - for stdout (default sluice-sysdump-HOST-TIME.tar.gz)")
	cmd.Flags().StringVar(&o.PinPath, "pin-path", d.PinPath, "the agent's folder on a bpffs")
	cmd.Flags().StringVar(&o.Socket, "socket", d.Socket, "the agent's API")
	cmd.Flags().StringVar(&o.Config, "config", "", "the agent's configuration file, to be included")
	cmd.Flags().StringVar(&o.Log, "log", "", "the agent's log file, whose end is to be included")
	return cmd
}
