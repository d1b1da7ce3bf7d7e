package main

import (
	"encoding/json"
	"io"

	"github.com/spf13/cobra"
)

func init() { commands = append(commands, newPolicyCommand) }

func newPolicyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check and compare policies before they are applied, and see those in force",
		Long: `"get" and "wait" ask the agent of this node about the policies that it has. The
others look at policies in a folder of manifests, without a cluster. What a policy
does is not guessed from how it looks: policies are compiled as for nodes, and all
packets that they could tell apart are judged.`,
		Example: `  sudo sluice policy get
  sudo sluice policy wait --policy production/default-deny
  sluice policy lint -f ./manifests
  sluice policy matrix -f ./manifests -o svg > matrix.svg
  sluice policy diff -f ./before -f ./after
  sluice policy selector --cases cases.jsonl
  sluice policy suggest --duration 5m`,
	}
	cmd.AddCommand(newPolicyGetCommand(), newPolicyWaitCommand(), newPolicyLintCommand(), newPolicyMatrixCommand(), newPolicyDiffCommand(), newPolicySelectorCommand(),
		newPolicySuggestCommand())
	return cmd
}

func writeIndented(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
