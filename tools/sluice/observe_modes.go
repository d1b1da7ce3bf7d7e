package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/tools/observe"
	"github.com/sluice-net/sluice/tools/verdict"
)

// topRows is how many pairs a table has.
const topRows = 10

// runTop counts pairs, and shows them as the output is.
func runTop(ctx context.Context, cmd *cobra.Command, f *observeFlags, src *flowSource, sel *observe.Selection) error {
	if f.interval < 100*time.Millisecond {
		return usageError(errors.New("--interval: want 100ms or more"))
	}
	if !cmd.Flags().Changed("last") && sel.First == 0 && sel.Since.IsZero() && sel.Until.IsZero() {
		sel.Last, sel.All = 0, true // what is held, not its end; followed, that first
	}
	out, live := cmd.OutOrStdout(), isTerminal(cmd.OutOrStdout())
	top, shown := observe.NewTop(), time.Now()
	show := func() error {
		shown = time.Now()
		r := top.Report(topRows)
		if f.output == "json" || f.output == "jsonl" {
			return r.JSON(out)
		}
		var b bytes.Buffer
		if err := r.Text(&b); err != nil {
			return err
		}
		if live {
			if err := command(out, wipeScreen); err != nil {
				return err
			}
		}
		_, err := out.Write(b.Bytes())
		return err
	}
	due := func() error {
		if !sel.Follow || time.Since(shown) < f.interval {
			return nil
		}
		if err := show(); err != nil {
			return fmt.Errorf("write table: %w", err)
		}
		return nil
	}
	err := observe.Read(ctx, src, sel, func(e *observe.Event) error { top.Add(e); return due() }, due)
	if err != nil {
		return err
	}
	return show()
}

// runCapture writes packets until it is told to end, or the file is full.
func runCapture(ctx context.Context, cmd *cobra.Command, f *observeFlags, src *flowSource, sel *observe.Selection) error {
	if err := errors.Join(src.needAgent("write"), f.limits.Validate()); err != nil {
		return usageError(err)
	}
	if !sel.Since.IsZero() || !sel.Until.IsZero() || sel.Last+sel.First > 0 || sel.All {
		return usageError(errors.New("--write: packets are not kept: want no --since, --until, --last, --first or --all"))
	}
	q := api.PacketQuery{SnapLen: f.limits.SnapLen, MaxRate: f.limits.MaxRate}
	for _, l := range []struct {
		in  []*flowpb.FlowFilter
		out *json.RawMessage
	}{{sel.Allow, &q.Allow}, {sel.Deny, &q.Deny}} {
		text, err := json.Marshal(l.in)
		if err != nil {
			return fmt.Errorf("encode filters: %w", err)
		}
		if l.in != nil {
			*l.out = text
		}
	}
	var r *observe.Recorder
	var closeFile func() error
	say := newProgress(cmd.ErrOrStderr())
	shown := time.Time{}
	err := src.agent.Packets(ctx, q, func() (err error) { // not before: a file that is there stays if nothing comes of it
		var out io.Writer
		if out, closeFile, err = createFile(cmd, f.write); err != nil {
			return err
		}
		capture, err := observe.NewCapture(out, q.SnapLen, "packets judged by Sluice, each with its verdict")
		r = observe.NewRecorder(capture, f.limits)
		return err
	}, func(p *api.Packet) error {
		if now := time.Now(); now.Sub(shown) > time.Second/2 {
			shown = now
			say.stage(r.Summary())
		}
		return r.Add(p)
	})
	say.done()
	if r == nil {
		return err
	}
	full := errors.Is(err, observe.ErrFull)
	if full {
		err = nil
	}
	if err = errors.Join(err, r.Close(), closeFile()); err != nil {
		return err
	}
	summary := r.Summary()
	if full {
		summary += "; ended at --max-size, what came later is left out"
	}
	fmt.Fprintln(cmd.ErrOrStderr(), summary)
	return nil
}

// explainer prints events, and under denials how the rules come to them.
type explainer struct {
	ctx   context.Context
	agent *api.Client
	p     *observe.Printer
	paint painter
	// The last answers, by question: a flood is one question.
	asked map[api.Question]explained
}

type explained struct {
	*api.Explanation
	at time.Time
}

// fresh is for how long an answer is taken for that of the next moment.
const fresh = time.Second

func newExplainer(ctx context.Context, agent *api.Client, p *observe.Printer, paint painter) *explainer {
	return &explainer{ctx: ctx, agent: agent, p: p, paint: paint, asked: map[api.Question]explained{}}
}

func (x *explainer) print(e *observe.Event) error {
	if e.Event == observe.Lost || !(e.Verdict == verdict.Deny || e.Audit) || e.Event == "ended" {
		return x.p.Print(e)
	}
	text, trace := x.explain(e)
	if x.p.Format == "jsonl" {
		if trace == nil {
			trace, _ = json.Marshal(text) // of a string it fails never
		}
		return x.p.PrintWith(e, "explanation", trace)
	}
	if err := x.p.Print(e); err != nil {
		return err
	}
	return x.p.Under(text)
}

// explain asks about the flow in the direction in which it was opened.
func (x *explainer) explain(e *observe.Event) (string, json.RawMessage) {
	q := api.Question{Src: e.Src.Addr, Dst: e.Dst.Addr, Proto: e.Proto, Port: e.Dst.Port}
	if e.Reply {
		q.Src, q.Dst, q.Port = q.Dst, q.Src, e.Src.Port
	}
	if kind, code, ok := strings.Cut(e.ICMP, "/"); ok {
		k, _ := strconv.Atoi(kind)
		c, _ := strconv.Atoi(code)
		q.Port = uint16(k<<8 | c)
	}
	if e.Verdict == verdict.Deny && e.Reason != "policy" {
		return "no policy was asked: " + e.Reason, nil
	}
	if q.Src == (netip.Addr{}) || q.Dst == (netip.Addr{}) {
		return "no addresses to ask about", nil
	}
	a := x.asked[q]
	if time.Since(a.at) > fresh {
		answer, err := x.agent.Explain(x.ctx, q)
		if err != nil {
			return "can't be explained: " + err.Error(), nil
		}
		if len(x.asked) > 1000 {
			clear(x.asked)
		}
		a = explained{answer, time.Now()}
		x.asked[q] = a
	}
	var t verdict.Trace
	if err := json.Unmarshal(a.Trace, &t); err != nil {
		return "can't be explained: " + err.Error(), nil
	}
	var b strings.Builder
	if t.Verdict != e.Verdict || a.Generation != e.Generation {
		fmt.Fprintf(&b, "by the rules of generation %d; it was judged by those of %d\n", a.Generation, e.Generation)
	}
	for _, l := range []struct {
		name string
		leg  *verdict.Leg
	}{{"egress", &t.Egress}, {"ingress", &t.Ingress}} {
		of := l.leg.Pod
		if of == "" {
			of = "no pod"
		}
		fmt.Fprintf(&b, "%s of %s: %s: %s\n", l.name, of, paintWord(x.paint, l.leg.Verdict), l.leg.Why)
		writeLeg(&b, x.paint, l.leg)
	}
	writeBackends(&b, x.paint, &t)
	return b.String(), a.Trace
}
