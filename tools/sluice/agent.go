package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/control"
	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/source/kube"
	"github.com/sluice-net/sluice/control/source/manifest"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/tools/uninstall"
	"github.com/sluice-net/sluice/tools/verdict"
)

func init() { commands = append(commands, newAgentCommand) }

func newAgentCommand() *cobra.Command {
	var manifests, config, kubeconfig, nodeName string
	var cleanup, wait, failOpen bool
	var uplinks []string
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Enforce policy on this node",
		Long: `Enforce policy on the pods of this node until told to end by SIGTERM.

The agent follows pods, namespaces and policies of a folder of manifests or of a
cluster's API server, finds the pods' links, diverts their traffic and judges
it. Policies of custom resources are followed from when the cluster serves them.
While the API server is away, what was last known stays in force; "sluice
status" says since when. No policy is enforced from half a picture: until the
cluster is known in full, the pods of this node are isolated.

With --uplink an XDP program on a NIC drops denied flows in its driver, and has
what opens flows to pods judged before the host's stack sees it, by zero-copy
where the driver has that. All else passes untouched; enforcement never depends
on it. What can't be an uplink is left alone, and "sluice status" says why.

When the agent ends, or dies, what is pinned in the kernel stays: established flows go on, new ones are dropped (or pass, with --fail-open),
and the next agent takes over without a gap. With "onExit: cleanup" in the
configuration SIGTERM removes every trace, as --cleanup does at any time.`,
		Example: `  # Policies and pods from a folder of manifests, followed live
  sudo sluice agent --manifests /etc/sluice/manifests

  # Policies and pods from the cluster that this node belongs to
  sudo sluice agent --kubeconfig /etc/sluice/kubeconfig --node-name "$NODE_NAME"
  sluice agent --kubeconfig in-cluster --node-name "$NODE_NAME"

  # Drop denied flows from outside in the drivers of two NICs (members of a bond)
  sudo sluice agent --kubeconfig in-cluster --uplink eth0,eth1

  # With a configuration file
  sudo sluice agent --manifests DIR --config /etc/sluice/agent.yaml

  # Take everything off this node
  sudo sluice agent --cleanup`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := control.Default()
			if config != "" {
				var err error
				if cfg, err = control.ReadConfig(config); err != nil {
					return usageError(err)
				}
			}
			if failOpen {
				cfg.FailOpen = true
			}
			if cmd.Flags().Changed("uplink") {
				cfg.Uplinks = uplinks
			}
			if nodeName != "" {
				cfg.NodeName = nodeName
			}
			if manifests != "" || kubeconfig != "" {
				cfg.Manifests, cfg.Kubeconfig = manifests, kubeconfig
			}
			if wait && !cleanup {
				return usageError(fmt.Errorf("--wait: only with --cleanup"))
			}
			if cleanup {
				err := control.Cleanup(cfg)
				if err == nil && wait {
					fmt.Fprintln(cmd.ErrOrStderr(), "This node is clean; waiting to be told to end.")
					return stay(cmd.Context(), cfg)
				}
				return err
			}
			if cfg.Manifests == "" && cfg.Kubeconfig == "" {
				return usageError(fmt.Errorf("where do objects come from? name a folder with --manifests, or a cluster with --kubeconfig"))
			}
			if err := cfg.Validate(); err != nil {
				return usageError(err)
			}
			return runAgent(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&manifests, "manifests", "", "folder or file of manifests to follow")
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", `kubeconfig file of the cluster to follow, or "in-cluster"`)
	cmd.Flags().StringVar(&nodeName, "node-name", "", "name of this node in the cluster (default: the host's name)")
	cmd.Flags().StringVar(&config, "config", "", "configuration file (YAML)")
	cmd.Flags().BoolVar(&cleanup, "cleanup", false, "remove every trace of an agent from this node, and end")
	cmd.Flags().BoolVar(&wait, "wait", false, "after --cleanup stay until told to end, as a DaemonSet's containers must")
	cmd.Flags().BoolVar(&failOpen, "fail-open", false, "let new flows through while no agent serves them")
	cmd.Flags().StringSliceVar(&uplinks, "uplink", nil, "NICs whose traffic for pods is judged in their drivers already")
	cmd.MarkFlagsMutuallyExclusive("manifests", "kubeconfig")
	return cmd
}

// stay waits for ctx to end, ready in the eyes of who probes an agent.
func stay(ctx context.Context, cfg control.Config) error {
	if cfg.Metrics.Listen == "" {
		<-ctx.Done()
		return nil
	}
	return uninstall.Stay(ctx, cfg.Metrics.Listen)
}

func runAgent(ctx context.Context, cfg control.Config) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	st := store.New()
	src, err := openSource(cfg, st, log)
	if err != nil {
		return err
	}
	agent, err := control.New(cfg, st, src, log)
	if err != nil {
		return err
	}
	live := verdict.NewLive(st)
	agent.Explainer = func(q api.Question) (json.RawMessage, error) { return explain(live, q, agent.Names()) }
	return agent.Run(ctx)
}

// explain walks through the policies that the agent knows, by the names that it
// has learned.
func explain(live *verdict.Live, q api.Question, names []api.Name) (json.RawMessage, error) {
	proto, err := verdict.ParseProtocol(q.Proto)
	if err != nil {
		return nil, err
	}
	domains := map[string][]netip.Addr{}
	for _, n := range names {
		domains[n.Name] = append(domains[n.Name], n.Address)
	}
	for name, addrs := range domains {
		slices.SortFunc(addrs, netip.Addr.Compare)
		domains[name] = slices.Compact(addrs)
	}
	t, err := live.Walk("ip:"+q.Src.String(), "ip:"+q.Dst.String(), verdict.Flow{Protocol: proto, Port: q.Port}, domains)
	if err != nil {
		return nil, err
	}
	return json.Marshal(t)
}

// openSource opens where objects come from.
func openSource(cfg control.Config, st *store.Store, log *slog.Logger) (control.Source, error) {
	if cfg.Kubeconfig == "" {
		src, err := manifest.Open(cfg.Manifests, st)
		return manifestSource{src}, err
	}
	src, err := kube.New(kube.Config{Kubeconfig: cfg.Kubeconfig, NodeName: cfg.NodeName,
		Report: cfg.Report, ReportNamespace: cfg.ReportNamespace}, st, log)
	return kubeSource{src}, err
}

// kubeSource makes a control.Source of a cluster.
type kubeSource struct{ *kube.Source }

// State implements control.Source.
func (s kubeSource) State() control.SourceState {
	k := s.Source.State()
	out := control.SourceState{Name: "cluster " + s.Server(), Synced: k.Synced, Digest: k.Digest, Rejections: k.Rejections, Notes: k.Notes}
	for _, w := range k.Watches {
		out.Watches = append(out.Watches, control.WatchState(w))
	}
	return out
}

// manifestSource makes a control.Source of a folder of manifests.
type manifestSource struct{ *manifest.Source }

// State implements control.Source.
func (s manifestSource) State() control.SourceState {
	m := s.Source.State()
	return control.SourceState{Name: "manifests " + s.Path(), Synced: true, Digest: m.Digest, Rejections: m.Rejections, Notes: m.Notes}
}
