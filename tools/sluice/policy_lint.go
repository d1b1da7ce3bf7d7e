package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/tools/lint"
)

func newPolicyLintCommand() *cobra.Command {
	var manifests, output, dns string
	cmd := &cobra.Command{
		Use:   "lint -f {DIR | FILE}",
		Short: "Find what is wrong, or useless, in policies",
		Long: `Find, in a file or folder of manifests:

  error    objects and fields that are not valid by the API's own rules, unknown
           fields, addresses that several pods claim
  warning  selectors that select nothing, namespaces that don't exist, named ports
           that no pod has, rules that never decide because others come before
           them or are wider, policies of kinds that are not enforced, text without
           quotes that kubectl takes for a boolean
  info     pods that no policy selects, policies without which every verdict
           would be the same

Rules and policies are judged for the pods that are in the manifests: lint them
together. What rules with domain names do is judged by --dns only.

Exit codes: 0 no errors; 1 errors; 2 the manifests can't be read.`,
		Example: `  sluice policy lint -f ./manifests
  kubectl get ns,pods,netpol -A -o yaml | sluice policy lint -f - -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := format(output, "text", "json")
			if err != nil {
				return err
			}
			c, err := readCluster(cmd, manifests, dns)
			if err != nil {
				return err
			}
			findings := lint.Run(c)
			if out == "json" {
				err = writeIndented(cmd.OutOrStdout(), append([]lint.Finding{}, findings...))
			} else {
				err = writeFindings(cmd.OutOrStdout(), findings)
			}
			if err != nil {
				return fmt.Errorf("write findings: %w", err)
			}
			return lintExit(cmd.ErrOrStderr(), findings)
		},
	}
	cmd.Flags().StringVarP(&manifests, "filename", "f", "", "file or folder of manifests, or - for stdin (required)")
	cmd.Flags().StringVar(&dns, "dns", "", "file of what domain names resolve to: {name: [address, ...]}")
	cmd.Flags().StringVarP(&output, "output", "o", "", "text (default) or json")
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func writeFindings(out io.Writer, findings []lint.Finding) error {
	paint := painterFor(out)
	colours := map[lint.Severity]string{lint.Error: red, lint.Warning: yellow, lint.Info: green}
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%s ", paint.paint(colours[f.Severity], fmt.Sprintf("%-7s", f.Severity)))
		for _, part := range []string{f.Source, f.Object, f.Field} {
			if part != "" {
				b.WriteString(part + ": ")
			}
		}
		fmt.Fprintf(&b, "%s (%s)\n", f.Message, f.Check)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func lintExit(stderr io.Writer, findings []lint.Finding) error {
	count := map[lint.Severity]int{}
	for _, f := range findings {
		count[f.Severity]++
	}
	fmt.Fprintf(stderr, "%d errors, %d warnings, %d infos\n", count[lint.Error], count[lint.Warning], count[lint.Info])
	if count[lint.Error] > 0 {
		return failed()
	}
	return nil
}
