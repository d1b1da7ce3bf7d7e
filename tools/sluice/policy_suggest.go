package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/tools/observe"
	"github.com/sluice-net/sluice/tools/suggest"
)

// suggestFlags are the flags of sluice policy suggest.
type suggestFlags struct {
	server  flowServer
	choice  flowChoice
	file    string
	options suggest.Options
}

func newPolicySuggestCommand() *cobra.Command {
	f := suggestFlags{options: suggest.Default()}
	cmd := &cobra.Command{
		Use:   "suggest [--duration TIME | -f FILE]",
		Short: "Derive NetworkPolicies from the flows that were observed",
		Long: `Derive the least NetworkPolicies that allow the flows that were observed: what was
not seen is denied, in both directions. Flows are those that the agent still
holds, or with --duration those that it sees from now on, or those of a file that
'sluice observe -o jsonl' or 'hubble observe -o jsonpb' wrote.

Pods are selected by labels that last (not pod-template-hash and the like), by as
few as tell them from the other pods that were seen. Addresses that no pod has
become ipBlocks: as few as hold exactly them, or, beyond --max-blocks, wider ones.
That does not open a Service's address, which flows don't tell from another: a note
stands at each that could be one, and asks for a rule for the Service's pods.
Whoever asks kube-system for names may do so by UDP and TCP. Only pods of the
node that was asked get policies: what others do was not all seen.

Each rule stands under the flows that it is from. Before anything is printed, the
engine of 'sluice verdict' is asked whether the policies allow all of them.

To learn what a namespace needs without breaking it, deny all there in audit
(sluice.dev/audit: "true"), observe for a while, and replace it by what this
prints.

Exit codes: 0 all went well; 1 no flows, or they can't be had; 2 not understood.`,
		Example: `  # From what the agent of this node holds
  sluice policy suggest > policies.yaml

  # Of five minutes, for the pods of one namespace
  sluice policy suggest --duration 5m --only-namespace shop

  # From flows that were recorded
  sluice observe -f -o jsonl > flows.jsonl
  sluice policy suggest -f flows.jsonl

  # What would it take to let pass what is denied?
  sluice policy suggest --denied --pod shop/web`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSuggest(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "filename", "f", "", "file of flows, one a line, or - for stdin")
	flags.BoolVar(&f.options.Denied, "denied", false, "take what policy denied for wanted")
	flags.BoolVar(&f.options.Replies, "replies", false, "take a packet against the direction of its flow for a sign of the flow")
	flags.StringSliceVar(&f.options.Namespaces, "only-namespace", nil, "policies for pods of this namespace only")
	flags.IntVar(&f.options.MaxBlocks, "max-blocks", f.options.MaxBlocks, "CIDRs of a rule at most")
	f.server.register(cmd)
	f.choice.register(cmd)
	for _, name := range []string{"socket", "lab", "server", "duration", "last", "first", "all", "since", "until"} {
		cmd.MarkFlagsMutuallyExclusive("filename", name)
	}
	return cmd
}

func runSuggest(cmd *cobra.Command, f *suggestFlags) error {
	if f.options.MaxBlocks < 1 {
		return usageError(errors.New("--max-blocks: want 1 or more"))
	}
	flows, err := f.flows(cmd)
	if err != nil {
		return err
	}
	if len(flows) == 0 {
		return errors.New("no flows were seen: nothing to suggest")
	}
	r, err := suggest.From(flows, f.options)
	if err != nil {
		return err
	}
	for _, n := range r.Notes {
		fmt.Fprintln(cmd.ErrOrStderr(), n)
	}
	if err := r.Check(); err != nil {
		return fmt.Errorf("%w: please report this", err)
	}
	if err := r.YAML(cmd.OutOrStdout()); err != nil {
		return fmt.Errorf("write policies: %w", err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%d policies that allow all of %d connections, from %d events\n", len(r.Policies), len(r.Connections()), len(flows))
	return nil
}

func (f *suggestFlags) flows(cmd *cobra.Command) ([]api.Flow, error) {
	if f.choice.duration > 0 {
		f.choice.Follow = true
	}
	if f.choice.Last == 0 && f.choice.First == 0 && f.choice.since == "" && f.choice.until == "" && !f.choice.Follow {
		f.choice.All = true
	}
	sel, err := f.choice.selection(time.Now())
	if err != nil {
		return nil, usageError(err)
	}
	if f.file != "" {
		if len(sel.Allow)+len(sel.Deny) > 0 {
			return nil, usageError(errors.New("--filename: filters are for flows that are asked for, filter when you record them"))
		}
		return readFlows(cmd.InOrStdin(), f.file)
	}
	f.choice.patient(cmd.ErrOrStderr())
	ctx, cancel := f.choice.bounded(cmd.Context())
	defer cancel()
	return collectFlows(ctx, cmd, f, sel)
}

func collectFlows(ctx context.Context, cmd *cobra.Command, f *suggestFlags, sel *observe.Selection) ([]api.Flow, error) {
	src, err := f.server.open(ctx)
	if err != nil {
		return nil, err
	}
	defer src.close()
	say := newProgress(cmd.ErrOrStderr())
	var out []api.Flow
	err = observe.Read(ctx, src, sel, func(e *observe.Event) error { out = append(out, e.Flow); return nil },
		func() error { say.stage(fmt.Sprintf("%d events", len(out))); return nil })
	say.done()
	var refused *observe.RefusedError
	if errors.As(err, &refused) {
		return nil, usageError(fmt.Errorf("InvalidArgument: %w", err))
	}
	return out, err
}

func readFlows(stdin io.Reader, path string) ([]api.Flow, error) {
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, usageError(fmt.Errorf("read flows: %w", err))
		}
		defer file.Close()
		stdin = file
	}
	flows, err := observe.ReadFile(stdin)
	if err != nil {
		return nil, usageError(err)
	}
	return flows, nil
}
