package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/lab"
)

func newLabProbeCommand() *cobra.Command {
	var flags labFlags
	var queries, output string
	var expect bool
	cmd := &cobra.Command{
		Use:   "probe -f {DIR | FILE} --queries FILE",
		Short: "Try connections for real on a lab, and say what decided them",
		Long: `Bring a lab of its own up and attempt each query as a new connection between
real sockets. A query is a line of JSON:

  {"src":"NAMESPACE/POD","dst":"ip:203.0.113.7","proto":"TCP","port":443}

src and dst are pods, or ip:ADDRESS for a host beyond the node. proto is TCP,
UDP or SCTP. The answer to each is a line, in the same order: "verdict" is what
the packets did (the TCP handshake completed, the UDP echo came back, the SCTP
INIT arrived), "decidedBy" is what the dataplane said about them. If the two
disagree, the line has an "error".

Exit codes: 0 all queries were answered; 1 an answer is in error or, with
--expect, not the "want" of its query; 2 a query can't be asked.`,
		Example: `  sluice lab probe -f deploy/examples/three-tier --queries deploy/examples/three-tier/queries.jsonl --expect
  echo '{"src":"a/x","dst":"a/y","proto":"TCP","port":80}' | sluice lab probe -f ./manifests --queries - -o jsonl`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "jsonl" {
				return usageError(fmt.Errorf("--output=%s: want table or jsonl", output))
			}
			list, err := readQueryFile(cmd.InOrStdin(), queries)
			if err != nil {
				return usageError(err)
			}
			opts, err := flags.options(lab.UniqueName("probe"))
			if err != nil {
				return err
			}
			answers, err := probe(cmd.Context(), opts, list)
			if err != nil {
				return err
			}
			if !expect {
				for i := range answers {
					answers[i].Want = ""
				}
			}
			if err := writeAnswers(cmd.OutOrStdout(), output, answers); err != nil {
				return err
			}
			return verdictOf(answers)
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVar(&queries, "queries", "", "file of queries, one JSON object a line, or - for stdin (required)")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or jsonl")
	cmd.Flags().BoolVar(&expect, "expect", false, `compare each verdict with the "want" of its query`)
	return cmd
}

func readQueryFile(stdin io.Reader, path string) ([]lab.Query, error) {
	if path == "" {
		return nil, errors.New("--queries: want a file of queries, or -")
	}
	if path == "-" {
		return lab.ReadQueries(stdin)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read queries: %w", err)
	}
	defer f.Close()
	return lab.ReadQueries(f)
}

// probe asks the queries on a lab that lives for as long as that takes.
func probe(ctx context.Context, opts lab.Options, queries []lab.Query) (_ []lab.Answer, err error) {
	p := newProgress(os.Stderr)
	opts.Message, opts.Stage = p.message, p.stage
	defer p.done()
	l, err := lab.Up(ctx, opts)
	if err != nil {
		return nil, err
	}
	defer func() {
		p.stage("taking the lab down")
		err = errors.Join(err, l.Close())
	}()
	p.stage(fmt.Sprintf("attempting %d connections", len(queries)))
	return l.Probe(ctx, queries)
}

func writeAnswers(out io.Writer, format string, answers []lab.Answer) error {
	if format == "table" {
		return answerTable(out, answers)
	}
	enc := json.NewEncoder(out)
	for i := range answers {
		if err := enc.Encode(&answers[i]); err != nil {
			return err
		}
	}
	return nil
}

func answerTable(out io.Writer, answers []lab.Answer) error {
	paint := painterFor(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, paint.paint(bold, "VERDICT")+"\tWANT\tSRC\tDST\tPORT\tSEEN\tDECIDED BY")
	for i := range answers {
		a := &answers[i]
		want := "-"
		if a.Want != "" {
			want = a.Want
		}
		decided := decidedBy(a.DecidedBy, a.Reason)
		if a.Audit {
			decided += " (audit: would be denied)"
		}
		if a.Error != "" {
			decided = "error: " + strings.ReplaceAll(a.Error, "\n", "; ")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", paintVerdict(paint, a.Verdict, a.Error != "" || a.Differs()),
			want, a.Src, a.Dst, strconv.Itoa(int(a.Port))+"/"+a.Proto, a.Seen, decided)
	}
	return w.Flush()
}

// paintVerdict always adds the same number of invisible bytes, as the column's
// head does: tabwriter counts them.
func paintVerdict(p painter, verdict string, wrong bool) string {
	switch {
	case verdict == "":
		return p.paint(yellow, "-")
	case wrong:
		return p.paint(yellow, verdict+" !")
	case verdict == lab.Allow:
		return p.paint(green, verdict)
	default:
		return p.paint(red, verdict)
	}
}

// decidedBy names rules, or the policies none of whose rules matched, as short
// as a table needs it: a NetworkPolicy without its kind, a namespace once.
func decidedBy(refs []rule.PolicyRef, reason string) string {
	if len(refs) == 0 {
		return cmp.Or(reason, "no policy")
	}
	var text strings.Builder
	for i, r := range refs {
		sep, was := "", rule.PolicyRef{}
		if i > 0 {
			sep, was = ", ", refs[i-1]
		}
		text.WriteString(sep)
		isDefault := r.Rule == rule.DefaultRule
		if isDefault && (i == 0 || was.Rule != rule.DefaultRule || was.Direction != r.Direction) {
			fmt.Fprintf(&text, "no %s rule of ", r.Direction)
		}
		if r.Kind != "NetworkPolicy" {
			text.WriteString(r.Kind + " ")
		}
		if r.Namespace != was.Namespace {
			text.WriteString(r.Namespace + "/")
		}
		text.WriteString(r.Name)
		if !isDefault {
			fmt.Fprintf(&text, " %s[%d]", r.Direction, r.Rule)
		}
	}
	return text.String()
}

// maxComplaints is how many answers stderr names; the output has all of them.
const maxComplaints = 20

// verdictOf sums the answers up as an exit code, and says what is wrong.
func verdictOf(answers []lab.Answer) error {
	bad, wrong, differ := 0, 0, 0
	for i := range answers {
		a := &answers[i]
		text := ""
		switch {
		case a.Bad:
			bad++
			text = a.Error
		case a.Error != "":
			wrong++
			text = fmt.Sprintf("%s to %s %d/%s: %s", a.Src, a.Dst, a.Port, a.Proto, a.Error)
		case a.Differs():
			differ++
			text = fmt.Sprintf("%s to %s %d/%s: want %s, got %s", a.Src, a.Dst, a.Port, a.Proto, a.Want, a.Verdict)
		}
		if text != "" && bad+wrong+differ <= maxComplaints {
			fmt.Fprintln(onScreen(os.Stderr), text)
		}
	}
	switch {
	case bad > 0:
		return usageError(fmt.Errorf("%d of %d queries can't be asked", bad, len(answers)))
	case wrong > 0:
		return fmt.Errorf("%d of %d answers are in error", wrong, len(answers))
	case differ > 0:
		return fmt.Errorf("%d of %d verdicts are not as wanted", differ, len(answers))
	}
	return nil
}
