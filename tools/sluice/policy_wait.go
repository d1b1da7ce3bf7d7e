package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/control/api"
)

func newPolicyWaitCommand() *cobra.Command {
	var agent agentFlags
	var want api.WaitFor
	var name string
	cmd := &cobra.Command{
		Use:   "wait {--policy NAMESPACE/NAME | --for-generation N}",
		Short: "Wait until a policy, or a generation of rules, is in force on this node",
		Long: `Wait until a policy is in force on this node: known to the agent, valid, compiled,
and published to the dataplane, so that the next packet is judged by it. A change
of a policy that was there before is told apart by its resourceVersion, as
"kubectl apply -o jsonpath={.metadata.resourceVersion}" prints it.

Exit codes: 0 in force; 1 not in force in time, with the reason; 2 not understood.`,
		Example: `  kubectl apply -f policy.yaml && sudo sluice policy wait --policy production/default-deny
  sudo sluice policy wait --policy production/default-deny --resource-version 4711 --timeout 5s
  sudo sluice policy wait --policy production/default-deny --gone
  sudo sluice policy wait --for-generation 12`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if name == "" && want.Generation == 0 {
				return usageError(errors.New("want --policy or --for-generation"))
			}
			if name == "" && (want.Gone || want.ResourceVersion != "" || want.Policy.Kind != "") {
				return usageError(errors.New("--gone, --kind and --resource-version: of which --policy?"))
			}
			if want.Timeout < 0 {
				return usageError(fmt.Errorf("--timeout=%v: want 0 or more", want.Timeout))
			}
			if err := nameWaited(&want, name); err != nil {
				return usageError(err)
			}
			client, err := agent.client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), want.Timeout+askPatience)
			defer cancel()
			got, err := client.Wait(ctx, want)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), waitedText(&want, &got))
			return err
		},
	}
	agent.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&name, "policy", "", "policy to wait for: [KIND/]NAMESPACE/NAME, or the name of one without a namespace")
	flags.StringVar(&want.Policy.Kind, "kind", "", "kind of the policy (default: any of that name)")
	flags.StringVar(&want.ResourceVersion, "resource-version", "", "version of the policy that it has to be, or a later one")
	flags.BoolVar(&want.Gone, "gone", false, "wait until the policy is not in force any more")
	flags.Uint64Var(&want.Generation, "for-generation", 0, "generation of rules to wait for, or a later one")
	flags.DurationVar(&want.Timeout, "timeout", api.DefaultTimeout, "how long to wait")
	return cmd
}

// nameWaited fills in which policy is waited for.
func nameWaited(want *api.WaitFor, name string) error {
	word := want.Policy.Kind
	if strings.Count(name, "/") == 2 {
		word, name, _ = strings.Cut(name, "/")
	}
	kind := ""
	if word != "" {
		kinds := policyKinds(word)
		if len(kinds) != 1 {
			return fmt.Errorf("kind %q: want one kind of policies, such as networkpolicy", word)
		}
		kind = kinds[0]
	}
	if name == "" {
		return nil
	}
	key, err := policyName(name)
	if err != nil {
		return err
	}
	key.Kind = kind
	want.Policy = key
	return nil
}

func waitedText(want *api.WaitFor, got *api.Waited) string {
	text := fmt.Sprintf("generation %d is in force", got.Generation)
	var names []string
	for _, p := range got.Policies {
		names = append(names, p.String())
	}
	switch {
	case want.Gone:
		text = strings.TrimSpace(want.Policy.String()) + " is gone, " + text
	case len(names) > 0:
		text = strings.Join(names, ", ") + " in force, " + text
	}
	return text
}
