package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/control/policy/calico/selector"
)

func newPolicySelectorCommand() *cobra.Command {
	var cases string
	cmd := &cobra.Command{
		Use:   "selector --cases FILE",
		Short: "Judge selectors of Calico's language",
		Long: `Read lines of JSON, each a selector in Calico's language and a set of labels, and
answer each with a line in the same order:

  {"selector":"has(app) && tier in {'web'}","labels":{"app":"a","tier":"web"}}
  {"result":true,"canonical":"(has(app) && tier in {\"web\"})"}

result is true, false, or "error" for a selector that Calico refuses; then error
says why. canonical is the form that Calico itself writes.

Exit codes: 0 all was answered, errors included; 2 a line can't be read.`,
		Example: `  sluice policy selector --cases cases.jsonl
  echo '{"selector":"!(env contains \"prod\")","labels":{"env":"test"}}' | sluice policy selector --cases -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cases == "" {
				return usageError(errors.New("--cases: want a file of cases, or - for stdin"))
			}
			in := cmd.InOrStdin()
			if cases != "-" {
				f, err := os.Open(cases)
				if err != nil {
					return usageError(fmt.Errorf("read cases: %w", err))
				}
				defer f.Close()
				in = f
			}
			return judgeSelectors(in, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&cases, "cases", "", "file of cases, one JSON object a line, or - for stdin (required)")
	return cmd
}

// selectorAnswer is one line of the output.
type selectorAnswer struct {
	Result    any    `json:"result"`
	Canonical string `json:"canonical"`
	Error     string `json:"error,omitempty"`
}

func judgeSelectors(in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	w := bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return fmt.Errorf("read cases: %w", err)
		}
		if len(bytes.TrimSpace(line)) > 0 {
			var c struct {
				Selector string            `json:"selector"`
				Labels   map[string]string `json:"labels"`
			}
			if err := json.Unmarshal(line, &c); err != nil {
				return usageError(errors.Join(fmt.Errorf("read case on line %d: %w", n, err), w.Flush()))
			}
			if err := enc.Encode(judgeSelector(c.Selector, c.Labels)); err != nil {
				return fmt.Errorf("write answers: %w", err)
			}
		}
		if err == io.EOF {
			break
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write answers: %w", err)
	}
	return nil
}

func judgeSelector(text string, labels map[string]string) selectorAnswer {
	s, err := selector.Parse(text)
	if err != nil {
		return selectorAnswer{Result: "error", Error: err.Error()}
	}
	return selectorAnswer{Result: s.Matches(selector.Map(labels)), Canonical: s.String()}
}
