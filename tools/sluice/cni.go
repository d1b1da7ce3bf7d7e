package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/tools/chain"
)

func init() { commands = append(commands, newCNICommand) }

func newCNICommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cni",
		Short: "Put the CNI plugin on this node, or take it off",
		Long: `Put the CNI plugin on this node, or take it off.

The plugin is chained behind those of the node's own CNI and lets a pod start
only when its policy is in force. Without it the agent finds pods by itself, a
moment after they have started.`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newCNIInstallCommand(), newCNIUninstallCommand())
	return cmd
}

// folders adds the flags that both commands have.
func folders(cmd *cobra.Command, o *chain.Options) {
	cmd.Flags().StringVar(&o.BinDir, "cni-bin-dir", "/opt/cni/bin", "folder of the runtime's plugins")
	cmd.Flags().StringVar(&o.ConfDir, "cni-conf-dir", "/etc/cni/net.d", "folder of the network configurations")
}

func newCNIInstallCommand() *cobra.Command {
	var o chain.Options
	var wait time.Duration
	var away, socket string
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install the plugin and chain it into the node's network configuration",
		Long: `Install the plugin and chain it into the node's network configuration.

The first configuration by name, which is what runtimes use, gets a call of the
plugin behind its own; a single .conf becomes a .conflist. Files are replaced
whole; what was there first lies beside, ending in ".before-sluice". Run again,
nothing changes. If the CNI writes its configuration anew, run it again.`,
		Example: `  sudo sluice cni install
  sluice cni install --cni-bin-dir /host/opt/cni/bin --cni-conf-dir /host/etc/cni/net.d --wait 5m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Binary == "" {
				exe, err := os.Executable()
				if err != nil {
					return fmt.Errorf("find own binary: %w", err)
				}
				o.Binary = filepath.Join(filepath.Dir(exe), chain.Plugin)
			}
			o.Entry = make(map[string]any)
			if away != "" {
				o.Entry["onAgentAway"] = away
			}
			if socket != "" {
				o.Entry["socket"] = socket
			}
			if away != "" && away != "fail" && away != "closed" {
				return usageError(fmt.Errorf("--on-agent-away %q: want fail or closed", away))
			}
			if err := installWhenThere(cmd.Context(), o, wait); err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "The plugin is installed.")
			return nil
		},
	}
	folders(cmd, &o)
	cmd.Flags().StringVar(&o.Binary, "plugin", "", "plugin to install (default: sluice-cni beside this binary)")
	cmd.Flags().DurationVar(&wait, "wait", time.Minute, "how long to wait for the node's CNI to write its configuration")
	cmd.Flags().StringVar(&away, "on-agent-away", "", "what the plugin does without an agent: fail or closed (default: fail)")
	cmd.Flags().StringVar(&socket, "socket", "", "path of the agent's API (default: the agent's own)")
	return cmd
}

// installWhenThere waits for a network configuration: on a node that starts, the
// CNI may not have written it yet.
func installWhenThere(ctx context.Context, o chain.Options, wait time.Duration) error {
	for end := time.Now().Add(wait); ; {
		err := chain.Install(o)
		if !errors.Is(err, chain.ErrNoConfig) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func newCNIUninstallCommand() *cobra.Command {
	var o chain.Options
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take the plugin out of all network configurations and remove it",
		Long: `Take the plugin out of all network configurations in the folder and remove it.
A configuration that nobody has changed since is again what it was, to the byte.`,
		Example: "  sudo sluice cni uninstall",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := chain.Uninstall(o); err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "The plugin is removed.")
			return nil
		},
	}
	folders(cmd, &o)
	return cmd
}
