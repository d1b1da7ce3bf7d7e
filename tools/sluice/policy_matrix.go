package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/tools/matrix"
	"github.com/sluice-net/sluice/tools/verdict"
)

func newPolicyMatrixCommand() *cobra.Command {
	var manifests, domains, output string
	var ports []string
	opts := matrix.Default()
	cmd := &cobra.Command{
		Use:   "matrix -f {DIR | FILE}",
		Short: "Show who may reach whom, as a table or a picture",
		Long: `Judge all pairs of pods, and pods and addresses outside, at all ports that
policies can tell apart, or at those of --port. Rows talk to columns.

Many pods are put together by workload, as far as policies treat them alike.
The picture is one SVG file that needs nothing else; what decided is in the
tooltips.

Exit codes: 0 all was answered; 2 the manifests can't be read.`,
		Example: `  sluice policy matrix -f ./manifests
  sluice policy matrix -f ./manifests --port TCP/80 --port UDP/53
  sluice policy matrix -f ./manifests -o svg > matrix.svg`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := format(output, "table", "json", "svg")
			if err != nil {
				return err
			}
			var errs []error
			for _, p := range ports {
				f, err := verdict.ParseFlow(p)
				if err != nil {
					errs = append(errs, fmt.Errorf("--port=%s: %w", p, err))
				}
				opts.Ports = append(opts.Ports, f)
			}
			if err := errors.Join(errs...); err != nil {
				return usageError(err)
			}
			c, err := loadCluster(cmd, manifests, domains)
			if err != nil {
				return err
			}
			m, err := matrix.New(c, opts)
			if err != nil {
				return err
			}
			switch out {
			case "json":
				err = writeIndented(cmd.OutOrStdout(), m)
			case "svg":
				err = m.WriteSVG(cmd.OutOrStdout())
			default:
				err = m.WriteTable(cmd.OutOrStdout())
			}
			if err != nil {
				return fmt.Errorf("write matrix: %w", err)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&manifests, "filename", "f", "", "file or folder of manifests, or - for stdin (required)")
	flags.StringVar(&domains, "dns", "", "file of what domain names resolve to: {name: [address, ...]}")
	flags.StringVarP(&output, "output", "o", "", "table (default), json or svg")
	flags.StringArrayVar(&ports, "port", nil, "[PROTO/]PORT to ask about; may be given several times")
	flags.IntVar(&opts.Single, "ungrouped", opts.Single, "up to how many pods each get a row of their own")
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "svg"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
