package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/control/api"
)

func init() { commands = append(commands, newEndpointsCommand) }

func newEndpointsCommand() *cobra.Command {
	var agent agentFlags
	var output, namespace string
	forms := newFormats(endpointsTable)
	forms["wide"] = endpointsWide
	node := "" // for calico
	forms["calico"] = func(out io.Writer, list []api.Endpoint) error {
		return endpointsCalico(out, list, node, namespace == "")
	}
	cmd := &cobra.Command{
		Use:     "endpoints [NS/POD]",
		Aliases: []string{"endpoint", "ep"},
		Short:   "List the pods of this node and the policies that select them",
		Long: `List the pods of this node: their addresses and links, the policies that select
them in each direction in the order of judgement, and the generation of their
rules that is in force. A pod is "isolated" until it has rules: nothing passes.
In the table, a direction in which everything is allowed has "open", and one
where what no policy allows is denied has "closed". -o calico prints what calicoctl
get workloadendpoints would.`,
		Example: `  sudo sluice endpoints
  sudo sluice endpoints production/frontend -o yaml
  sudo sluice endpoints -o calico
  sudo sluice endpoints -o json | jq -r '.[] | select(.ingress.isolated | not) | .pod'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := forms.check(output); err != nil {
				return err
			}
			client, err := agent.client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), askPatience)
			defer cancel()
			all, err := client.Endpoints(ctx)
			if err != nil {
				return err
			}
			if output == "calico" {
				status, err := client.Status(ctx)
				if err != nil {
					return err
				}
				node = status.Node
			}
			found := []api.Endpoint{}
			for _, e := range all {
				if (len(args) == 0 || args[0] == e.Namespace+"/"+e.Pod) && (namespace == "" || namespace == e.Namespace) {
					found = append(found, e)
				}
			}
			if len(args) > 0 && len(found) == 0 {
				return fmt.Errorf("pod %s: not on this node, or not known", args[0])
			}
			return forms[output](cmd.OutOrStdout(), found)
		},
	}
	agent.register(cmd)
	forms.register(cmd, &output)
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "only pods of this namespace")
	return cmd
}

func endpointsTable(out io.Writer, list []api.Endpoint) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "POD\tSTATE\tADDRESSES\tLINK\tINGRESS\tEGRESS\tGENERATION")
	for _, e := range list {
		fmt.Fprintf(w, "%s/%s\t%s\t%s\t%s\t%s\t%s\t%d\n", e.Namespace, e.Pod, e.State, join(e.Addresses), e.Link,
			selectedText(&e.Ingress), selectedText(&e.Egress), e.Generation)
	}
	return w.Flush()
}

func selectedText(s *api.Selected) string {
	text := "open"
	if s.Isolated {
		text = "closed"
	}
	if n := len(s.Policies); n == 1 {
		text += ", 1 policy"
	} else if n > 1 {
		text += fmt.Sprintf(", %d policies", n)
	}
	return text
}

func endpointsWide(out io.Writer, list []api.Endpoint) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "POD\tID\tSTATE\tADDRESSES\tLINK\tMAC\tGENERATION\tINGRESS\tEGRESS")
	for _, e := range list {
		fmt.Fprintf(w, "%s/%s\t%d\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", e.Namespace, e.Pod, e.ID, e.State, join(e.Addresses), e.Link, e.MAC,
			e.Generation, namesText(&e.Ingress), namesText(&e.Egress))
	}
	return w.Flush()
}

func namesText(s *api.Selected) string {
	names := []string{"open"}
	if s.Isolated {
		names[0] = "closed"
	}
	for _, p := range s.Policies {
		names = append(names, p.String())
	}
	return strings.Join(names, ", ")
}
