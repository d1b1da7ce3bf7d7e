package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/sluice-net/sluice/bench/netlab"
)

const (
	// Probes start this far apart, lest a node with a limit on new flows a pod
	// takes them for a flood.
	startInterval = time.Millisecond
	// What should arrive is waited for longer than silence would be believed.
	wantedPatience = 10 * time.Second
	// maxAtOnce bounds the open sockets.
	maxAtOnce = 1000
	// Probes use source ports between servers' and the kernel's own choice.
	firstSourcePort, lastSourcePort = 10000, 32000
)

// attempt is one query on its way.
type attempt struct {
	query    *Query
	src, dst side
	flow     tuple
	tag      uint32
	arrived  chan struct{}
	result   netlab.Result
	err      error
	bad      bool // err is the query's own
}

// judged reports whether the dataplane has to say something about the packets.
// What the node itself sends to its pods always passes, said or not.
func (a *attempt) judged() bool {
	switch {
	case a.src.ns == a.dst.ns || a.src.node:
		return false
	default:
		return a.src.ownNetwork() || a.dst.ownNetwork()
	}
}

func (a *attempt) verdict() string {
	if a.result.Passed {
		return Allow
	}
	return Deny
}

// Probe attempts each query as a real, new connection, all at once, and
// answers in their order. Several Probes may run at once.
func (l *Lab) Probe(ctx context.Context, queries []Query) ([]Answer, error) {
	attempts, err := l.planAll(queries)
	if err != nil {
		return nil, err
	}
	events, err := watchEvents(ctx, l.client)
	if err != nil {
		return nil, err
	}
	defer events.close()
	l.runAll(ctx, attempts)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	events.await(ctx, attempts)
	answers := make([]Answer, len(attempts))
	for i := range attempts {
		answers[i] = attempts[i].answer(events)
	}
	return answers, nil
}

// planAll prepares the node for all queries.
func (l *Lab) planAll(queries []Query) ([]attempt, error) {
	l.node.Lock()
	defer l.node.Unlock()
	attempts := make([]attempt, len(queries))
	for i := range queries {
		attempts[i].query = &queries[i]
		if err := l.plan(&attempts[i]); err != nil {
			attempts[i].err, attempts[i].bad = err, true
		}
	}
	return attempts, l.publish() // there may be new external hosts
}

// plan finds both ends of a query, serves its port and picks a source port.
func (l *Lab) plan(a *attempt) (err error) {
	q := a.query
	if q.err != nil {
		return q.err
	}
	if a.src, err = l.side(q.Src); err != nil {
		return fmt.Errorf("src: %w", err)
	}
	if a.dst, err = l.side(q.Dst); err != nil {
		return fmt.Errorf("dst: %w", err)
	}
	from, to, err := addressPair(a.src, a.dst)
	if err != nil {
		return err
	}
	if a.dst.ownNetwork() {
		err = l.servePort(a.dst.pod, Port{q.Proto, q.Port})
	} else {
		_, err = l.servers.open(a.dst.ns, to, Port{q.Proto, q.Port}, l.initArrived)
	}
	if err != nil {
		return fmt.Errorf("serve %s: %w", q.Dst, err)
	}
	sport, err := l.sourcePort(a.src.ns, from, q.Proto)
	if err != nil {
		return err
	}
	a.flow = tuple{netip.AddrPortFrom(from, sport), netip.AddrPortFrom(to, q.Port), q.Proto}
	if q.Proto == "SCTP" {
		a.tag, a.arrived = l.expectInit()
	}
	return nil
}

// sourcePort gives each query of a source a port of its own, so that no two
// flows are alike, and none that is served.
func (l *Lab) sourcePort(ns *netlab.Namespace, from netip.Addr, proto string) (uint16, error) {
	port := max(l.lastPort[ns.Name()], firstSourcePort-1)
	for {
		if port++; port > lastSourcePort {
			return 0, fmt.Errorf("more than %d queries from %s", lastSourcePort-firstSourcePort+1, ns.Name())
		}
		if l.servers[service{ns.Name(), from, Port{proto, port}}] == nil {
			l.lastPort[ns.Name()] = port
			return port, nil
		}
	}
}

// expectInit registers a probe that waits for its INIT.
func (l *Lab) expectInit() (uint32, chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		tag := rand.Uint32()
		if tag != 0 && l.inits[tag] == nil {
			c := make(chan struct{}, 1)
			l.inits[tag] = c
			return tag, c
		}
	}
}

// runAll runs the attempts that are possible.
func (l *Lab) runAll(ctx context.Context, attempts []attempt) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxAtOnce)
	tick := time.NewTicker(startInterval)
	defer tick.Stop()
	for i := range attempts {
		a := &attempts[i]
		if a.err != nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			a.result, a.err = a.run(ctx)
		})
	}
	wg.Wait()
}

func (a *attempt) run(ctx context.Context) (netlab.Result, error) {
	if a.query.Want == Allow {
		ctx = netlab.Patiently(ctx, wantedPatience)
	}
	switch a.query.Proto {
	case "TCP":
		return a.src.ns.ProbeTCP(ctx, a.flow.src, a.flow.dst)
	case "UDP":
		return a.src.ns.ProbeUDP(ctx, a.flow.src, a.flow.dst)
	case "SCTP":
		return a.src.ns.ProbeSCTP(ctx, netlab.SCTPInit{Src: a.flow.src, Dst: a.flow.dst, Tag: a.tag}, a.arrived)
	}
	return netlab.Result{}, errors.New("no probe for protocol " + a.query.Proto)
}

// answer sets what the packets did against what the dataplane said.
func (a *attempt) answer(events *events) Answer {
	q := a.query
	ans := Answer{
		Src: q.Src, Dst: q.Dst, Proto: q.Proto, Port: q.Port, Want: q.Want,
		DecidedBy: noPolicies, Bad: a.bad,
	}
	if a.err != nil {
		ans.Error = a.err.Error()
		return ans
	}
	ans.Verdict, ans.Seen = a.verdict(), a.result.Seen
	said := events.of(a.flow)
	ans.DecidedBy, ans.Reason = said.by(ans.Verdict)
	ans.Audit = said.audited(ans.Verdict)
	switch {
	case said.has(ans.Verdict):
	case said.has(Allow):
		ans.Error = "the dataplane allowed the packets, but they did not arrive"
	case said.has(Deny):
		ans.Error = "the dataplane denied the packets, but they arrived"
	case ans.Verdict == Deny:
		ans.Error = "packets were lost, and the dataplane says nothing about them"
	case a.judged():
		ans.Error = "packets passed, and the dataplane says nothing about them"
	}
	return ans
}
