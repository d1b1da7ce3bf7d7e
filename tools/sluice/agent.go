package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/control"
	"github.com/sluice-net/sluice/control/source/manifest"
	"github.com/sluice-net/sluice/control/store"
)

func init() { commands = append(commands, newAgentCommand) }

func newAgentCommand() *cobra.Command {
	var manifests, config string
	var cleanup, failOpen bool
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Enforce policy on this node",
		Long: `Enforce policy on the pods of this node until told to end by SIGTERM.

The agent follows pods, namespaces and policies, finds the pods' links, diverts
their traffic and judges it. When it ends, or dies, what is pinned in the kernel
stays: established flows go on, new ones are dropped (or pass, with --fail-open),
and the next agent takes over without a gap. With "onExit: cleanup" in the
configuration SIGTERM removes every trace, as --cleanup does at any time.`,
		Example: `  # Policies and pods from a folder of manifests, followed live
  sudo sluice agent --manifests /etc/sluice/manifests

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
			if cleanup {
				return control.Cleanup(cfg)
			}
			if manifests == "" {
				return usageError(fmt.Errorf("where do objects come from? name a folder with --manifests"))
			}
			return runAgent(cmd.Context(), cfg, manifests)
		},
	}
	cmd.Flags().StringVar(&manifests, "manifests", "", "folder or file of manifests to follow")
	cmd.Flags().StringVar(&config, "config", "", "configuration file (YAML)")
	cmd.Flags().BoolVar(&cleanup, "cleanup", false, "remove every trace of an agent from this node, and end")
	cmd.Flags().BoolVar(&failOpen, "fail-open", false, "let new flows through while no agent serves them")
	return cmd
}

func runAgent(ctx context.Context, cfg control.Config, manifests string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	st := store.New()
	src, err := manifest.Open(manifests, st)
	if err != nil {
		return err
	}
	agent, err := control.New(cfg, st, manifestSource{src}, log)
	if err != nil {
		return err
	}
	return agent.Run(ctx)
}

// manifestSource makes a control.Source of a folder of manifests.
type manifestSource struct{ *manifest.Source }

// State implements control.Source.
func (s manifestSource) State() control.SourceState {
	m := s.Source.State()
	return control.SourceState{Digest: m.Digest, Rejections: m.Rejections, Notes: m.Notes}
}
