package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/verdict"
)

func init() { commands = append(commands, newVerdictCommand) }

// verdictFlags are the flags of sluice verdict.
type verdictFlags struct {
	manifests, queries, domains, output string
	expect, exitCode                    bool
}

func newVerdictCommand() *cobra.Command {
	var f verdictFlags
	cmd := &cobra.Command{
		Use:   "verdict -f {DIR | FILE} {--queries FILE | SRC DST [PROTO/]PORT}",
		Short: "Say who may talk to whom, and which policy decides",
		Long: `Answer from manifests alone, without a cluster: they are compiled as on the pods'
own nodes, and the answers come from the structure that answers packets.

With --queries, each line of the file is a question and gets a line of JSON in
the same order:

  {"src":"NAMESPACE/POD","dst":"ip:203.0.113.7","proto":"TCP","port":443}

src and dst are pods, or ip:ADDRESS; an address that a pod has stands for the
pod. dst may be svc:NAMESPACE/NAME, or a Service's address: it is then answered for
each of its backends, and the verdict is "some" if not all of them can be reached. They
are those of its EndpointSlices, without any those that its selector would make. (Where
a node can't judge what its NAT chooses, such calls are denied, and status says so.)
proto is TCP (the default), UDP, SCTP, ICMP or a number; without ports, port may be
left out. Pods of two families talk by the first that both have. Pods of
the host network are their node's addresses. With --expect, queries carry
"want":"allow" or "want":"deny", of a Service also "some": policies get unit tests.

With SRC, DST and PORT, the answer is a walk: tier by tier, policy by policy,
what matched and what did not, and why.

A policy that is not valid isolates the pods that it selects, and is reported.

Exit codes: 0 all was answered, whatever the verdicts; 1 a verdict is not as
wanted (--expect), or a denial (--exit-code); 2 something can't be read or
answered.`,
		Example: `  # Unit tests of policies, for CI
  sluice verdict -f ./manifests --queries queries.jsonl --expect

  # Ask from a script
  echo '{"src":"shop/web","dst":"shop/api","proto":"TCP","port":8080}' |
    sluice verdict -f ./manifests --queries -

  # Why is this denied?
  sluice verdict -f ./manifests shop/web shop/db TCP/5432

  # Which pods behind a Service may it reach?
  sluice verdict -f ./manifests shop/web svc:shop/api TCP/80

  # What policies with domain names say, given what the names resolve to
  sluice verdict -f ./manifests --dns names.yaml shop/web ip:198.51.100.9 443`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case f.queries != "" && len(args) > 0:
				return errors.New("want either --queries or SRC DST PORT")
			case f.queries == "" && len(args) == 0:
				return errors.New("want --queries, or SRC DST PORT")
			case f.queries == "" && len(args) != 3:
				return fmt.Errorf("want SRC DST PORT, got %d arguments", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.queries == "" {
				return runWalk(cmd, &f, args)
			}
			return runVerdicts(cmd, &f)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.manifests, "filename", "f", "", "file or folder of manifests, or - for stdin (required)")
	flags.StringVar(&f.queries, "queries", "", "file of queries, one JSON object a line, or - for stdin")
	flags.StringVar(&f.domains, "dns", "", "file of what domain names resolve to: {name: [address, ...]}")
	flags.StringVarP(&f.output, "output", "o", "", "of queries jsonl (default) or table, of a walk text (default) or json")
	flags.BoolVar(&f.expect, "expect", false, `compare each verdict with the "want" of its query`)
	flags.BoolVar(&f.exitCode, "exit-code", false, "of a walk: exit with 1 if the verdict is deny")
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"jsonl", "table", "text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// format returns the value of --output, or the first choice without one.
func format(value string, choices ...string) (string, error) {
	if value == "" {
		return choices[0], nil
	}
	for _, c := range choices {
		if value == c {
			return value, nil
		}
	}
	return "", usageError(fmt.Errorf("--output=%s: want %s", value, strings.Join(choices, " or ")))
}

func runVerdicts(cmd *cobra.Command, f *verdictFlags) error {
	out, err := format(f.output, "jsonl", "table")
	if err != nil {
		return err
	}
	if f.exitCode {
		return usageError(errors.New("--exit-code: want SRC DST PORT; with --queries there is --expect"))
	}
	if f.queries == "-" && f.manifests == "-" {
		return usageError(errors.New("--filename, --queries: stdin can be one of them only"))
	}
	queries, err := readVerdictQueries(cmd.InOrStdin(), f.queries)
	if err != nil {
		return usageError(err)
	}
	answers := make([]verdict.Answer, len(queries))
	c, err := loadCluster(cmd, f.manifests, f.domains)
	if err != nil {
		for i, q := range queries {
			answers[i] = q.Unanswered(err)
		}
		return cmp.Or(writeVerdicts(cmd.OutOrStdout(), out, answers), err)
	}
	wanted := 0
	for i, q := range queries {
		if q.Want != "" {
			wanted++
		}
		if !f.expect {
			q.Want = ""
		}
		answers[i] = c.Answer(q)
	}
	if err := writeVerdicts(cmd.OutOrStdout(), out, answers); err != nil {
		return fmt.Errorf("write answers: %w", err)
	}
	if f.expect && wanted == 0 {
		return usageError(fmt.Errorf("--expect: none of %d queries has a \"want\"", len(queries)))
	}
	return verdictExit(cmd.ErrOrStderr(), answers)
}

func readVerdictQueries(stdin io.Reader, path string) ([]verdict.Query, error) {
	if path == "-" {
		return verdict.ReadQueries(stdin)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read queries: %w", err)
	}
	defer f.Close()
	return verdict.ReadQueries(f)
}

func writeVerdicts(w io.Writer, format string, answers []verdict.Answer) error {
	if format == "table" {
		return verdictTable(w, answers)
	}
	buf := bufio.NewWriter(w)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	for i := range answers {
		a := answers[i]
		a.DecidedBy = inTiers(a.DecidedBy)
		a.Backends = slices.Clone(a.Backends)
		for k := range a.Backends {
			a.Backends[k].DecidedBy = inTiers(a.Backends[k].DecidedBy)
		}
		if err := enc.Encode(&a); err != nil {
			return err
		}
	}
	return buf.Flush()
}

// inTiers names the tier of every rule, also the one that goes without saying:
// programs that read the lines need no default.
func inTiers(refs []rule.PolicyRef) []rule.PolicyRef {
	out := slices.Clone(refs)
	for i := range out {
		out[i].Tier = cmp.Or(out[i].Tier, policy.TierNetworkPolicy.Name)
	}
	return out
}

func verdictTable(out io.Writer, answers []verdict.Answer) error {
	paint := painterFor(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, paint.paint(bold, "VERDICT")+"\tSRC\tDST\tPORT\tDECIDED BY")
	for i := range answers {
		a := &answers[i]
		decided := verdict.Decision{DecidedBy: a.DecidedBy, Reason: a.Reason}.Text()
		if a.Audit {
			decided += " (audit: would be denied)"
		}
		if a.Error != "" {
			decided = "error: " + strings.ReplaceAll(a.Error, "\n", "; ")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", paintVerdict(paint, a.Verdict, a.Differs()),
			a.Src, a.Dst, portOf(a), decided)
		for k := range a.Backends {
			b := &a.Backends[k]
			text := verdict.Decision{DecidedBy: b.DecidedBy, Reason: b.Reason}.Text()
			fmt.Fprintf(w, "  %s\t\t  %s\t\t%s\n", paintVerdict(paint, b.Verdict, false), backendName(b.Pod, b.Addr), text)
		}
	}
	return w.Flush()
}

// backendName names where a Service leads to.
func backendName(pod string, addr netip.AddrPort) string {
	if pod == "" {
		return "ip:" + addr.String()
	}
	return pod + " (" + addr.String() + ")"
}

// portOf is the protocol alone where there is no port.
func portOf(a *verdict.Answer) string {
	if a.Port == 0 {
		return a.Proto
	}
	return a.Proto + "/" + strconv.Itoa(int(a.Port))
}

// verdictExit says what is wrong with the answers, and sums it up as an exit
// code.
func verdictExit(stderr io.Writer, answers []verdict.Answer) error {
	errs, differ := 0, 0
	for i := range answers {
		a := &answers[i]
		what := fmt.Sprintf("%s to %s %s", a.Src, a.Dst, portOf(a))
		switch {
		case a.Error != "":
			errs++
			if a.Src+a.Dst != "" { // else the line was none
				fmt.Fprintf(stderr, "%s: ", what)
			}
			fmt.Fprintln(stderr, a.Error)
		case a.Differs():
			differ++
			decided := verdict.Decision{DecidedBy: a.DecidedBy, Reason: a.Reason}.Text()
			fmt.Fprintf(stderr, "%s: want %s, got %s: %s\n", what, a.Want, a.Verdict, decided)
		}
	}
	switch {
	case errs > 0:
		return usageError(fmt.Errorf("%d of %d queries can't be answered", errs, len(answers)))
	case differ > 0:
		return fmt.Errorf("%d of %d verdicts are not as wanted", differ, len(answers))
	}
	return nil
}
