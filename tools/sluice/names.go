package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/control/api"
)

func init() { commands = append(commands, newNamesCommand) }

func newNamesCommand() *cobra.Command {
	var agent agentFlags
	var output string
	cmd := &cobra.Command{
		Use:   "names",
		Short: "Show what domain names resolve to, as pods have learned it",
		Long: `Show what domain names resolve to, as the agent has learned it from the answers
that resolvers gave to pods: the name, an address, which pod asked, which
resolver answered, and until when the address holds. An address whose time is
up stays for as long as a connection uses it.`,
		Example: `  sluice names
  sluice names --lab demo
  sluice names -o json | jq -r '.[] | select(.name == "example.com").address'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return usageError(fmt.Errorf("--output=%s: want table or json", output))
			}
			client, err := agent.client()
			if err != nil {
				return err
			}
			names, err := client.Names(cmd.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(names)
			}
			return writeNames(cmd.OutOrStdout(), names, time.Now())
		},
	}
	agent.register(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func writeNames(out io.Writer, names []api.Name, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tADDRESS\tASKED BY\tRESOLVER\tLEARNED\tHOLDS FOR")
	for _, n := range names {
		left := n.Until.Sub(now).Round(time.Second)
		holds := left.String()
		switch {
		case n.InUse:
			holds = "a connection's life"
		case left <= 0:
			holds = "over"
		}
		fmt.Fprintf(w, "%s\t%s\t%s/%s\t%s\t%s ago\t%s\n", n.Name, n.Address, n.Namespace, n.Pod, n.Resolver,
			now.Sub(n.Learned).Round(time.Second), holds)
	}
	return w.Flush()
}
