package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/tools/connectivity"
	"github.com/sluice-net/sluice/tools/lab"
)

func init() { commands = append(commands, newConnectivityCommand) }

func newConnectivityCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "connectivity", Short: "Try out what can reach what"}
	cmd.AddCommand(newConnectivityTestCommand())
	cmd.AddCommand(podCommands()...)
	return cmd
}

func newConnectivityTestCommand() *cobra.Command {
	var output string
	var only, world []string
	var verbose bool
	flags := labFlags{manifests: "."}
	var cluster clusterFlags
	opts := connectivity.DefaultClusterOptions()
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Try connections to pods, Services, nodes, the world and DNS, under changing policies",
		Long: `Try connections from pods to a pod, a Service, the node, the world and DNS, over
IPv4 and IPv6, without policies, with policies that close and open them, and
after these are removed. Every connection is attempted for real, and compared
with what policy says.

Without --kubeconfig it runs on a lab of its own, a node in network namespaces
that is taken down at the end, also after Ctrl-C. Needs root; the Service needs
nft, and is skipped without.

With --kubeconfig or --context it runs in that cluster, whichever CNI that has:
four pods and a Service are made in a namespace of their own, and commands
executed in the pods. What the cluster lacks, such as IPv6, or what its nodes
don't reach either, is skipped. All of it is deleted at the end.

Exit code 0: all as it should be; 1: something differs.`,
		Example: `  sudo sluice connectivity test
  sudo sluice connectivity test --cni=bridge --offload=off -o json
  sudo sluice connectivity test --stage egress --verbose
  sluice connectivity test --kubeconfig ~/.kube/config --image registry.example/sluice:v1
  sluice connectivity test --context production --world 192.0.2.1:443`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if output != "table" && output != "json" {
				return usageError(fmt.Errorf("--output=%s: want table or json", output))
			}
			say := cmd.ErrOrStderr()
			var target connectivity.Target
			if cluster.kubeconfig != "" || cluster.context != "" {
				if cmd.Flags().Changed("world") {
					if opts.World, err = worldAddrs(world); err != nil {
						return usageError(err)
					}
				}
				if opts.REST, err = cluster.config(); err != nil {
					return err
				}
				opts.REST.QPS, opts.REST.Burst = 50, 100
				opts.Say = func(text string) { fmt.Fprintln(say, text) }
				fmt.Fprintln(say, "making pods in namespace", opts.Namespace, "…")
				target, err = connectivity.NewCluster(cmd.Context(), opts)
			} else {
				var node lab.Options
				if node, err = flags.options(lab.UniqueName("connectivity")); err != nil {
					return err
				}
				fmt.Fprintln(say, "building a node …")
				target, err = connectivity.NewLab(cmd.Context(), node)
			}
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, target.Close()) }()
			report, err := connectivity.Run(cmd.Context(), target, only, func(stage string, done, of, failed int) {
				if stage != "" {
					fmt.Fprintf(say, "[%d/%d] %s (%d failed so far)\n", done+1, of, stage, failed)
				}
			})
			if err != nil {
				return err
			}
			if err := printConnectivity(cmd.OutOrStdout(), report, output, verbose); err != nil {
				return err
			}
			if report.Failed > 0 {
				return failed()
			}
			return nil
		},
	}
	flags.registerNode(cmd)
	cluster.register(cmd)
	cmd.Flags().Lookup("kubeconfig").Usage = `kubeconfig file of a cluster to try, or "in-cluster"`
	cmd.Flags().Lookup("context").Usage = "context of the kubeconfig; alone, of the one that kubectl finds"
	cmd.Flags().StringVarP(&opts.Namespace, "namespace", "n", opts.Namespace, "namespace to make in the cluster")
	cmd.Flags().StringVar(&opts.Image, "image", opts.Image, "Sluice's image, as the cluster's nodes pull it")
	cmd.Flags().StringSliceVar(&world, "world", []string{"1.1.1.1:443", "[2606:4700:4700::1111]:443"}, "TCP endpoints outside of the cluster, one a family; \"\" for none")
	cmd.Flags().Uint16Var(&opts.NodePort, "node-port", opts.NodePort, "port at which a pod in a node's network serves")
	cmd.Flags().DurationVar(&opts.Settle, "settle", opts.Settle, "how long policies may take to come into force in the cluster")
	cmd.Flags().DurationVar(&opts.Ready, "ready", opts.Ready, "how long the cluster's pods may take to start")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cmd.Flags().StringSliceVar(&only, "stage", nil, "only stages whose names contain this")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "show every attempt, not only the table and what differs")
	return cmd
}

func printConnectivity(out io.Writer, r *connectivity.Report, output string, verbose bool) error {
	if output == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	dests := []connectivity.Dest{connectivity.Pod, connectivity.Service, connectivity.Node, connectivity.World, connectivity.DNS}
	fmt.Fprint(w, "STAGE\tFROM")
	for _, d := range dests {
		fmt.Fprintf(w, "\t%s", d)
	}
	fmt.Fprintln(w)
	for i := 0; i < len(r.Results); {
		first := r.Results[i]
		cells := map[connectivity.Dest]string{}
		for ; i < len(r.Results) && r.Results[i].Stage == first.Stage && r.Results[i].From == first.From; i++ {
			x := r.Results[i]
			cells[x.To] += cell(&x)
		}
		fmt.Fprintf(w, "%s\t%s", first.Stage, first.From)
		for _, d := range dests {
			fmt.Fprintf(w, "\t%s", cells[d])
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, x := range r.Results {
		if verbose || !x.OK {
			fmt.Fprintf(out, "%s: %s → %s over IPv%d: %s, want %s: %s\n", x.Stage, x.From, x.To, x.Family, x.Got, x.Want, x.Detail)
		}
	}
	_, err := fmt.Fprintf(out, "%d as it should be, %d differ, %d skipped, %v\n", r.Passed, r.Failed, r.Skipped, r.Took.Round(time.Second))
	return err
}

// cell is one family's outcome: allowed, denied, skipped, and ! if it differs.
func cell(x *connectivity.Result) string {
	text := map[string]string{"allow": "✔", "deny": "✘", "skipped": "–", "error": "?"}[x.Got]
	if !x.OK {
		text += "!"
	}
	return text
}
