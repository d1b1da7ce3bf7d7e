package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/traffic"
)

// toldFlows is how many flows a workload of new flows at a rate has at most, and
// toldBurst how many packets leave at a time: so that a sender can sleep in between
// and leaves the CPUs to what is measured.
const (
	toldFlows = 1 << 18
	toldBurst = 128
)

// toldRates are the rates of new flows.
var toldRates = []int{25_000, 50_000, 100_000, 150_000, 200_000, 250_000}

// toldOfNew offers new flows at a rate, and counts what a client is told of them.
// What it was told, and told as lost, must be what there was, exactly.
func toldOfNew(rate int) runFunc {
	return func(ctx context.Context, s *Stage, d time.Duration) (_ []Metric, err error) {
		a := agentOf(s.Running)
		if a == nil {
			return nil, errors.New("this workload is for systems with an agent")
		}
		w, err := s.wire()
		if err != nil {
			return nil, err
		}
		load, err := blast{sizes: smallest, flows: toldFlows}.load(s, w)
		if err != nil {
			return nil, err
		}
		stir, err := s.stirrer(ctx)
		if err != nil {
			return nil, err
		}
		var from account
		if a.listener != nil {
			if from, err = a.listener.quiet(ctx); err != nil {
				return nil, err
			}
		}
		before, err := a.expense(ctx)
		if err != nil {
			return nil, err
		}
		m, err := startMeter()
		if err != nil {
			return nil, err
		}
		f, err := traffic.Blast{Client: w.out, Ifindex: w.outIndex, Load: load, Rate: float64(rate), Burst: toldBurst,
			Count: min(uint64(float64(rate)*d.Seconds()), toldFlows)}.Start(ctx)
		if err != nil {
			return nil, err
		}
		select {
		case <-f.Done():
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err = errors.Join(err, f.Stop()); err != nil {
			return nil, err
		}
		span := f.Elapsed().Seconds()
		ms, err := m.metrics()
		if err == nil && a.listener != nil {
			var told []Metric
			told, err = a.listener.told(ctx, from, stir, span)
			ms = append(told, ms...)
		}
		if err != nil {
			return nil, err
		}
		after, err := a.expense(ctx)
		ms = append(ms, Metric{Name: "offered", Unit: "flows/s", Value: float64(f.Sent()) / span})
		return append(ms, after.since(before, span)...), err
	}
}

// told is what a client was told when a flood of a span ended, and in the end.
func (l *listener) told(ctx context.Context, from account, stir func() error, span float64) ([]Metric, error) {
	at, err := l.account(ctx)
	if err != nil {
		return nil, err
	}
	at = at.since(from)
	all, err := l.settled(ctx, from, stir)
	return []Metric{
		{Name: "told", Unit: "events/s", Value: min(at.events(), all.events()) / span, Better: Higher},
		{Name: "told of all", Unit: "%", Value: 100 * all.events() / max(float64(all.written+all.lost), 1), Better: Higher},
		{Name: "lost", Unit: "events", Value: all.gone(), Better: Lower},
		{Name: "messages", Unit: "flows/s", Value: float64(at.told.Flows) / span, Better: Neither},
	}, err
}

// expense is the flows that an agent has, and the CPU time spent so far: its own, and
// that of this process, in which generator and client are.
type expense struct {
	flows      int
	agent, own cpuTime
}

func (a *agent) expense(ctx context.Context) (e expense, err error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return e, fmt.Errorf("read CPU time: %w", err)
	}
	e.own = cpuTime{time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano())}
	e.flows, e.agent, err = a.progress(ctx)
	return e, err
}

// since is what each flow took that has come since.
func (e expense) since(before expense, span float64) []Metric {
	n := float64(max(e.flows-before.flows, 1))
	ms := []Metric{{Name: "entered", Unit: "flows/s", Value: n / span}}
	for _, x := range []struct {
		name string
		d    time.Duration
	}{
		{"agent-user", e.agent.user - before.agent.user}, {"agent-sys", e.agent.system - before.agent.system},
		{"bench-user", e.own.user - before.own.user}, {"bench-sys", e.own.system - before.own.system},
	} {
		ms = append(ms, Metric{Name: x.name, Unit: "µs/flow", Value: float64(x.d.Nanoseconds()) / 1e3 / n})
	}
	return ms
}
