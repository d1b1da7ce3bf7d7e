package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/tools/matrix"
)

func newPolicyDiffCommand() *cobra.Command {
	var manifests []string
	var domains, output string
	cmd := &cobra.Command{
		Use:   "diff -f OLD -f NEW",
		Short: "Show which connections open or close between two versions",
		Long: `Compare two files or folders of manifests by what they allow: which connections
open (+) and which close (-), and which rule decided before and after. Pods that
only one version has are listed by themselves.

Exit codes, as those of diff(1): 0 nothing changes; 1 something does; 2 the
manifests can't be read.`,
		Example: `  sluice policy diff -f ./before -f ./after
  kubectl get ns,pods,netpol -A -o yaml | sluice policy diff -f - -f ./manifests
  git worktree add /tmp/main main && sluice policy diff -f /tmp/main/manifests -f ./manifests -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := format(output, "text", "json")
			if err != nil {
				return err
			}
			if len(manifests) != 2 {
				return usageError(fmt.Errorf("--filename: want it twice, OLD and NEW, got %d", len(manifests)))
			}
			if manifests[0] == "-" && manifests[1] == "-" {
				return usageError(errors.New("--filename: stdin can be one of them only"))
			}
			before, err := loadCluster(cmd, manifests[0], domains)
			if err != nil {
				return err
			}
			after, err := loadCluster(cmd, manifests[1], domains)
			if err != nil {
				return err
			}
			d, err := matrix.Diff(before, after)
			if err != nil {
				return usageError(err)
			}
			if out == "json" {
				err = writeIndented(cmd.OutOrStdout(), d)
			} else {
				err = writeDifference(cmd.OutOrStdout(), d)
			}
			if err != nil {
				return usageError(fmt.Errorf("write difference: %w", err))
			}
			if !d.Empty() {
				return failed()
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&manifests, "filename", "f", nil, "file or folder of manifests, or - for stdin: once for the old version, once for the new")
	flags.StringVar(&domains, "dns", "", "file of what domain names resolve to: {name: [address, ...]}")
	flags.StringVarP(&output, "output", "o", "", "text (default) or json")
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func writeDifference(out io.Writer, d *matrix.Difference) error {
	paint := painterFor(out)
	var b strings.Builder
	for _, p := range d.Removed {
		fmt.Fprintf(&b, "%s pod %s\n", paint.paint(red, "-"), p)
	}
	for _, p := range d.Added {
		fmt.Fprintf(&b, "%s pod %s\n", paint.paint(green, "+"), p)
	}
	for _, c := range d.Changes {
		sign := paint.paint(red, "-")
		if c.Change == matrix.Opens {
			sign = paint.paint(green, "+")
		}
		fmt.Fprintf(&b, "%s %s: %s to %s %s\n", sign, c.Change, few(c.From), few(c.To), c.Ports)
		fmt.Fprintf(&b, "    before: %s: %s\n    after:  %s: %s\n", c.Before.Verdict, c.Before.By, c.After.Verdict, c.After.By)
	}
	for _, f := range d.Faults {
		fmt.Fprintf(&b, "left out: %s\n", f)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// few names the first of a list.
func few(list []string) string {
	const most = 4
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most-1], ", "), len(list)-most+1)
}
