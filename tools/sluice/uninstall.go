package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sluice-net/sluice/control/source/kube"
	"github.com/sluice-net/sluice/tools/uninstall"
)

func init() { commands = append(commands, newUninstallCommand) }

// clusterFlags are those of commands that talk to a cluster as a user does.
type clusterFlags struct{ kubeconfig, context string }

func (f *clusterFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", `kubeconfig file, or "in-cluster" (default: as kubectl finds it)`)
	cmd.Flags().StringVar(&f.context, "context", "", "context of the kubeconfig")
}

// config finds the cluster as kubectl does.
func (f *clusterFlags) config() (*rest.Config, error) {
	if f.kubeconfig == kube.InCluster {
		return rest.InClusterConfig()
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: f.context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	return cfg, nil
}

func newUninstallCommand() *cobra.Command {
	var flags clusterFlags
	var o uninstall.Options
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take Sluice off a cluster",
		Long: `Take Sluice off a cluster: off every node first, then out of the API.

The agents' DaemonSet is turned into one that cleans. On each node the agent
ends, the CNI plugin is taken out of the node's network configuration, and
programs, maps and steering ports are removed; from then on no policy is
enforced there. Established connections go on; new ones wait for the seconds
between. When all nodes are clean the objects are deleted. If a node doesn't
become clean nothing is deleted, the exit code is 1, and the command can be run
again.

What helm has installed is removed by "helm uninstall", which does the same.`,
		Example: `  sluice uninstall
  sluice uninstall --context production --namespace kube-system --timeout 15m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.config()
			if err != nil {
				return err
			}
			o.Say = func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), text) }
			return uninstall.Run(cmd.Context(), cfg, o)
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVarP(&o.Namespace, "namespace", "n", "kube-system", "namespace of the agents")
	cmd.Flags().BoolVar(&o.NodesOnly, "nodes-only", false, "clean the nodes and leave the objects")
	cmd.Flags().DurationVar(&o.Timeout, "timeout", 5*time.Minute, "how long all nodes may take")
	return cmd
}
