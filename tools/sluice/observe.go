package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/tools/observe"
)

func init() { commands = append(commands, newObserveCommand) }

// observeFlags are the flags of sluice observe.
type observeFlags struct {
	server   flowServer
	choice   flowChoice
	output   string
	names    bool
	nodes    bool
	layout   string
	color    string
	top      bool
	interval time.Duration
	explain  bool
	write    string
	limits   observe.Limits
}

func newObserveCommand() *cobra.Command {
	f := observeFlags{limits: observe.DefaultLimits()}
	cmd := &cobra.Command{
		Use:   "observe",
		Short: "Show flows, who denied them, and why",
		Long: `Show what a node's agent says about flows: each new flow with its verdict, each
denied packet, changes of live flows' verdicts, and flows that ended. It asks the
agent of this node, else that of the lab that is up.

Filters are those of 'hubble observe' and are applied where the events arise:
values of one flag are alternatives, different flags narrow each other down, --not
turns the flag after it round; what matches all flags after a --not is left out.
Without -f the last ` + fmt.Sprint(observe.DefaultLast) + ` events are shown.

Formats: compact (default), table, dict; jsonl is one JSON object an event, as
GET /v1/flows of the agent has it; json is what 'hubble observe -o jsonpb' prints.
Lost events are an event of their own, with their number. With -f, a server that
goes away is waited for; what it had not shown yet follows, and a LOST line stands
where it was away.

--top counts who talks most and who is denied most: on a terminal a live table,
else one table, or with -f one every --interval. --explain shows under each
denial the walk of 'sluice verdict' by the rules that are in force now. --write
captures packets that a worker judged. That is all that is denied: flows that are
denied stay out of the kernel's cache meanwhile. Of what is allowed it is every
packet where the agent takes all through its workers (offload: false), else the
packets that open flows: the others pass in the kernel, which a capture is no reason
to change, and tcpdump on the pod's link sees them. Denied and allowed packets have
--max-rate each.

Exit codes: 0 all went well; 1 the agent can't be asked; 2 not understood.`,
		Example: `  # Who is denied, and by which policy, from now on
  sluice observe -f --verdict DROPPED

  # What a pod did in the last five minutes, with the policies that allowed it
  sluice observe --pod shop/web --since 5m --print-policy-names

  # All but DNS, of one namespace, for a script
  sluice observe -f -n shop --not --port 53 -o jsonl | jq .decidedBy

  # Why?
  sluice observe --verdict DROPPED --last 1 --explain

  # Busiest and most denied pairs, live
  sluice observe --top

  # Denied packets for Wireshark, with verdict and policy as comments
  sluice observe --verdict DROPPED --write denied.pcapng --duration 30s
  sluice observe --write - | wireshark -k -i -

  # Another node
  sluice observe --server tls://node-2:4244 --tls-ca-cert-files ca.crt -f`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runObserve(cmd, &f) },
	}
	flags := cmd.Flags()
	f.server.register(cmd)
	f.choice.register(cmd)
	flags.StringVarP(&f.output, "output", "o", "compact", strings.Join(observe.Formats, ", "))
	flags.BoolVar(&f.names, "print-policy-names", false, "name the policies that allowed as well")
	flags.BoolVar(&f.nodes, "print-node-name", false, "name the node")
	flags.StringVar(&f.layout, "time-format", "StampMilli", "StampMilli, RFC3339, RFC3339Milli, RFC3339Micro or RFC3339Nano")
	flags.StringVar(&f.color, "color", "auto", "auto (on a terminal), always or never")
	flags.BoolVar(&f.top, "top", false, "count the busiest and the most denied pairs instead")
	flags.DurationVar(&f.interval, "interval", 2*time.Second, "of --top: between two tables")
	flags.BoolVar(&f.explain, "explain", false, "show under each denial how the rules come to it")
	flags.StringVar(&f.write, "write", "", "capture packets into a pcapng file, or - for stdout")
	flags.IntVar(&f.limits.SnapLen, "snaplen", f.limits.SnapLen, "of --write: bytes of each packet, 1 to 2048")
	flags.Var(sizeFlag{&f.limits.MaxSize}, "max-size", "of --write: size of the file at most, as 100M")
	flags.IntVar(&f.limits.MaxRate, "max-rate", f.limits.MaxRate, "of --write: packets a second at most, of denied and of allowed ones")
	complete := func(name string, values ...string) {
		cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	complete("output", observe.Formats...)
	complete("color", "auto", "always", "never")
	complete("verdict", "FORWARDED", "DROPPED", "AUDIT")
	complete("type", "drop", "policy-verdict", "trace")
	complete("protocol", "tcp", "udp", "sctp", "icmp", "icmpv4", "icmpv6")
	complete("traffic-direction", "ingress", "egress")
	cmd.MarkFlagsMutuallyExclusive("top", "write", "explain")
	return cmd
}

func runObserve(cmd *cobra.Command, f *observeFlags) error {
	if _, err := format(f.output, observe.Formats...); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if f.top && isTerminal(out) || f.write != "" || f.choice.duration > 0 {
		f.choice.Follow = true
	}
	sel, err := f.choice.selection(time.Now())
	if err != nil {
		return usageError(err)
	}
	if f.output == "table" && sel.Follow && !f.top && f.choice.duration == 0 {
		return usageError(errors.New("--output=table: a table has an end, what is followed has none"))
	}
	f.choice.patient(cmd.ErrOrStderr())
	ctx, cancel := f.choice.bounded(cmd.Context())
	defer cancel()
	src, err := f.server.open(ctx)
	if err != nil {
		return err
	}
	defer src.close()
	switch {
	case f.write != "":
		err = runCapture(ctx, cmd, f, src, sel)
	case f.top:
		err = runTop(ctx, cmd, f, src, sel)
	default:
		err = runPrint(ctx, cmd, f, src, sel)
	}
	var refused *observe.RefusedError
	if errors.As(err, &refused) {
		return usageError(fmt.Errorf("InvalidArgument: %w", err))
	}
	return err
}

func runPrint(ctx context.Context, cmd *cobra.Command, f *observeFlags, src *flowSource, sel *observe.Selection) error {
	paint, err := f.painter(cmd.OutOrStdout())
	if err != nil {
		return err
	}
	p := observe.NewPrinter(cmd.OutOrStdout(), f.output)
	p.Names, p.NodeNames = f.names, f.nodes
	if p.TimeLayout, err = timeLayout(f.layout); err != nil {
		return err
	}
	if f.output != "table" { // whose columns are as wide as what is in them
		p.Paint = func(word string) string { return paintFlow(paint, word) }
	}
	show := p.Print
	if f.explain {
		if err := src.needAgent("explain"); err != nil {
			return err
		}
		if f.output != "compact" && f.output != "jsonl" {
			return usageError(fmt.Errorf("--explain: with --output compact or jsonl, not %s", f.output))
		}
		show = newExplainer(ctx, src.agent, p, paint).print
	}
	if err := observe.Read(ctx, src, sel, show, p.Flush); err != nil {
		return errors.Join(err, p.Close())
	}
	return p.Close()
}

// painter returns what colours, by --color.
func (f *observeFlags) painter(out io.Writer) (painter, error) {
	switch f.color {
	case "auto":
		return painterFor(out), nil
	case "always":
		return true, nil
	case "never":
		return false, nil
	}
	return false, usageError(fmt.Errorf("--color=%s: want auto, always or never", f.color))
}

// paintFlow colours a verdict, padded or not.
func paintFlow(p painter, word string) string {
	colours := map[string]string{"FORWARDED": green, "DROPPED": red, "AUDIT": yellow, "LOST": yellow, "ENDED": bold}
	name := strings.TrimRight(word, " ")
	return p.paint(colours[name], name) + word[len(name):]
}

func timeLayout(name string) (string, error) {
	layouts := map[string]string{"stampmilli": time.StampMilli, "rfc3339": time.RFC3339, "rfc3339nano": time.RFC3339Nano,
		"rfc3339milli": "2006-01-02T15:04:05.000Z07:00", "rfc3339micro": "2006-01-02T15:04:05.000000Z07:00"}
	l, ok := layouts[strings.ToLower(name)]
	if !ok {
		return "", usageError(fmt.Errorf("--time-format=%s: want StampMilli, RFC3339, RFC3339Milli, RFC3339Micro or RFC3339Nano", name))
	}
	return l, nil
}

// createFile opens what is written to: a file, or stdout for "-".
func createFile(cmd *cobra.Command, path string) (io.Writer, func() error, error) {
	if path == "-" {
		return cmd.OutOrStdout(), func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, nil, fmt.Errorf("create capture: %w", err)
	}
	return f, f.Close, nil
}
