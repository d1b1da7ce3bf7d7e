package scenario

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/traffic"
	"github.com/sluice-net/sluice/control/api"
)

// startFunc starts a generator.
type startFunc func(context.Context) (*traffic.Flooding, error)

// newFlows sends each packet on a flow of its own, out of real sockets.
func newFlows(ctx context.Context, s *Stage, d time.Duration) ([]Metric, error) {
	return admissions(ctx, s, d, traffic.Flood{
		Client: s.end(s.A, 0), From: s.addr(s.A), To: s.addr(s.B), PayloadBytes: smallPayload,
		Sockets: newSockets, Ports: newPorts, Once: true,
	}.Start)
}

// newFrames sends ready-made frames likewise: a generator that spends so little
// on each that what it meets is the limit. Each goes to another port, or with
// clients from another port to one of few.
func newFrames(clients bool) runFunc {
	return func(ctx context.Context, s *Stage, d time.Duration) ([]Metric, error) {
		w, err := s.wire()
		if err != nil {
			return nil, err
		}
		l, err := blast{sizes: smallest, flows: s.Workload.Flows, clients: clients}.load(s, w)
		if err != nil {
			return nil, err
		}
		return admissions(ctx, s, d, traffic.Blast{Client: w.out, Ifindex: w.outIndex, Load: l, Count: uint64(s.Workload.Flows)}.Start)
	}
}

// admissions counts the packets of new flows that arrive. What a filter that
// can't keep up with does not admit is lost, and not tried again.
func admissions(ctx context.Context, s *Stage, d time.Duration, begin startFunc) (_ []Metric, err error) {
	sink, err := openSink(s, unix.IPPROTO_UDP)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sink.Close()) }()
	a := agentOf(s.Running)
	flows0, cpu0, err := a.progress(ctx)
	if err != nil {
		return nil, err
	}
	var from account
	listening := a != nil && a.listener != nil
	if listening {
		if from, err = a.listener.quiet(ctx); err != nil {
			return nil, err
		}
		stir, err := s.stirrer(ctx)
		if err != nil {
			return nil, err
		}
		defer func() { // once the flood has ended
			if err == nil {
				_, err = a.listener.settled(ctx, from, stir)
			}
		}()
	}
	start := time.Now()
	f, err := begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Stop()) }()
	m, err := startMeter()
	if err != nil {
		return nil, err
	}
	select {
	case <-f.Done(): // out of new flows: what is counted so far is all
	case <-time.After(d):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	arrived, err := sink.Received()
	if err != nil {
		return nil, err
	}
	span, sent := time.Since(start).Seconds(), f.Sent()
	flows1, cpu1, err := a.progress(ctx)
	if err != nil {
		return nil, err
	}
	ms := []Metric{
		{Name: "admitted", Unit: "flows/s", Value: float64(arrived) / span, Better: Higher},
		{Name: "offered", Unit: "flows/s", Value: float64(sent) / span, Better: Neither},
	}
	cpu, err := m.metrics()
	ms = append(ms, cpu...)
	if err == nil && listening {
		var at account
		at, err = a.listener.account(ctx)
		now := at.since(from)
		ms = append(ms,
			Metric{Name: "told", Unit: "events/s", Value: now.events() / span, Better: Higher},
			Metric{Name: "lost", Unit: "events", Value: now.gone(), Better: Lower},
		)
	}
	if a != nil && flows1 > flows0 {
		n := float64(flows1 - flows0)
		ms = append(ms,
			Metric{Name: "entered", Unit: "flows/s", Value: n / span, Better: Neither},
			Metric{Name: "agent-user", Unit: "µs/flow", Value: float64((cpu1.user - cpu0.user).Microseconds()) / n, Better: Neither},
			Metric{Name: "agent-sys", Unit: "µs/flow", Value: float64((cpu1.system - cpu0.system).Microseconds()) / n, Better: Neither},
		)
	}
	return ms, err
}

// agentOf returns the agent behind a running system, or nil.
func agentOf(r Running) *agent {
	a, _ := base(r).(*agent)
	return a
}

// progress reads how many flows the agent has, and what it has spent on them.
func (a *agent) progress(ctx context.Context) (flows int, spent cpuTime, err error) {
	if a == nil {
		return 0, spent, nil
	}
	var st api.Status
	if st, err = a.client.Status(ctx); err != nil {
		return 0, spent, err
	}
	spent, err = a.process.usage()
	return st.Flows, spent, err
}
