package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/tools/demo"
	"github.com/sluice-net/sluice/tools/lab"
)

func init() { commands = append(commands, newDemoCommand) }

func newDemoCommand() *cobra.Command {
	flags := labFlags{manifests: "."} // its own manifests are in the binary
	var watch time.Duration
	var name string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show Sluice at work, with real traffic, in half a minute",
		Long: `Build a small node in network namespaces and load a three-tier application with
its policies. Then attempt every connection that should, or should not, be
possible, IPv4 and IPv6; change a policy under a live connection; and watch the
verdicts for some seconds. Nothing is left behind. Needs root.

Exit codes: 0 all was as expected; 1 something was not.`,
		Example: `  sudo sluice demo
  sudo sluice demo --cni=bridge --offload=off`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := flags.options(cmp.Or(name, lab.UniqueName("demo")))
			if err != nil {
				return err
			}
			return runDemo(cmd.Context(), cmd.OutOrStdout(), opts, watch)
		},
	}
	flags.registerNode(cmd)
	nameFlag(cmd, &name, "", "name of the lab that it runs in, for 'sluice lab exec' (default: one of its own)")
	cmd.Flags().DurationVar(&watch, "watch", 4*time.Second, "how long to watch the verdicts")
	return cmd
}

func runDemo(ctx context.Context, out io.Writer, opts lab.Options, watch time.Duration) (err error) {
	p := newProgress(os.Stderr)
	opts.Message, opts.Stage = p.message, p.stage
	defer p.done()
	if err := lab.SweepDead(); err != nil {
		p.message(err.Error())
	}
	d, err := demo.Up(ctx, opts)
	if err != nil {
		return err
	}
	defer func() {
		p.stage("taking the node down")
		err = errors.Join(err, d.Close())
	}()
	s := demoShow{Demo: d, out: out, paint: painterFor(out), progress: p}
	wrong := 0
	for _, act := range []func(context.Context) (int, error){s.table, s.change} {
		failures, err := act(ctx)
		if err != nil {
			return err
		}
		wrong += failures
	}
	if err := s.watch(ctx, watch); err != nil {
		return err
	}
	if wrong > 0 {
		return fmt.Errorf("%d results are not as expected", wrong)
	}
	fmt.Fprintln(out, s.paint.paint(green, "All was as expected."))
	return nil
}

// demoShow tells what a demo does.
type demoShow struct {
	*demo.Demo
	out      io.Writer
	paint    painter
	progress *progress
}

func (s *demoShow) title(text string) {
	s.progress.done()
	fmt.Fprintln(s.out, s.paint.paint(bold, text))
}

// table attempts all connections and returns how many went wrong.
func (s *demoShow) table(ctx context.Context) (int, error) {
	s.progress.stage(fmt.Sprintf("attempting %d connections", s.Queries()))
	answers, err := s.Attempt(ctx)
	if err != nil {
		return 0, err
	}
	s.title(fmt.Sprintf("1. %d connections between %d pods and the world outside, all attempted at once", len(answers), s.Pods()))
	if err := answerTable(s.out, answers); err != nil {
		return 0, err
	}
	wrong := 0
	for i := range answers {
		if answers[i].Error != "" || answers[i].Differs() {
			wrong++
		}
	}
	fmt.Fprintf(s.out, "%d of %d as expected.\n\n", len(answers)-wrong, len(answers))
	return wrong, nil
}

// change shows the change of a policy and returns 1 if it went wrong.
func (s *demoShow) change(ctx context.Context) (int, error) {
	s.progress.stage("changing a policy under a live connection")
	c, err := s.ChangePolicy(ctx)
	if err != nil {
		return 0, err
	}
	s.title(fmt.Sprintf("2. %s is edited: it lets %s in instead of %s", demo.ChangedPolicy, demo.NewClient, demo.OldClient))
	fmt.Fprintf(s.out, "In force %v after the edit.\n", c.Enforced.Round(time.Millisecond))
	if c.Cut {
		fmt.Fprintf(s.out, "The live connection %s → %s had got %d answers; its last came %v after the edit: %s.\n",
			demo.OldClient, demo.Frontend, c.Echoes, c.LastEcho.Round(time.Millisecond), s.paint.paint(red, "cut"))
	} else {
		fmt.Fprintf(s.out, "The live connection %s → %s goes on: %s.\n", demo.OldClient, demo.Frontend, s.paint.paint(yellow, "not cut"))
	}
	if c.CutBy != nil {
		fmt.Fprintf(s.out, "  %s\n", s.line(c.CutBy))
	}
	if err := answerTable(s.out, c.After); err != nil {
		return 0, err
	}
	fmt.Fprintln(s.out)
	if c.AsExpected() {
		return 0, nil
	}
	return 1, nil
}

// watch prints verdicts as they are given.
func (s *demoShow) watch(ctx context.Context, length time.Duration) error {
	s.title(fmt.Sprintf("3. Verdicts, live, for %v", length))
	if err := s.Watch(ctx, length, func(f *api.Flow) { fmt.Fprintln(s.out, s.line(f)) }); err != nil {
		return err
	}
	fmt.Fprintln(s.out)
	return nil
}

// line renders a flow event.
func (s *demoShow) line(f *api.Flow) string {
	colour := green
	if f.Verdict == lab.Deny {
		colour = red
	}
	reason := f.Text
	if reason == "" && f.Reason != "ok" {
		reason = f.Reason
	}
	return fmt.Sprintf("%s  %s  %-7s  %s → %s %s  %s", f.Time.Format("15:04:05.000"),
		s.paint.paint(colour, fmt.Sprintf("%-5s", f.Verdict)), f.Event, endName(&f.Src, false), endName(&f.Dst, true),
		strings.TrimSpace(f.Proto+" "+f.TCPFlags), decidedBy(f.DecidedBy, reason))
}

// endName names an end by its pod, if it is one.
func endName(e *api.End, port bool) string {
	name := e.Addr.String()
	if e.Pod != "" {
		name = e.Namespace + "/" + e.Pod
	} else if e.Addr.Is6() {
		name = "[" + name + "]"
	}
	if port {
		name += fmt.Sprintf(":%d", e.Port)
	}
	return name
}
