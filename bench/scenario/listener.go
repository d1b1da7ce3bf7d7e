package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sluice-net/sluice/bench/listen"
	"github.com/sluice-net/sluice/bench/traffic"
	"github.com/sluice-net/sluice/control/api"
)

// listenFunc starts a client of an agent's flows.
type listenFunc func(ctx context.Context, socket string) (*listen.Client, error)

// listener is a client that follows all flows of an agent, in the benchmark's own
// process, and what it takes to see that it is told of all.
type listener struct {
	*listen.Client
	agent *api.Client
	conn  *grpc.ClientConn
}

func newListener(ctx context.Context, agent *api.Client, socket string, start listenFunc) (*listener, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("ask for flows: %w", err)
	}
	c, err := start(ctx, socket)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &listener{c, agent, conn}, nil
}

func (l *listener) close() error {
	l.Client.Close()
	return l.conn.Close()
}

// account is what there was to tell, and what was told.
type account struct {
	written, lost uint64 // events, by the workers' count
	seen          uint64 // flows in the written events that were read from the workers' rings
	told          listen.Tally
}

// account takes stock.
func (l *listener) account(ctx context.Context) (a account, err error) {
	st, err := l.agent.Status(ctx)
	if err != nil {
		return a, fmt.Errorf("ask agent for events: %w", err)
	}
	s, err := observerpb.NewObserverClient(l.conn).ServerStatus(ctx, &observerpb.ServerStatusRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return a, fmt.Errorf("ask agent for flows: %w", err)
	}
	a.told, err = l.Tally()
	a.written, a.lost, a.seen = st.Events.Written, st.Events.Lost, s.GetSeenFlows()
	return a, err
}

// since returns what has come since an earlier account. Numbers of flows are as they
// are.
func (a account) since(b account) account {
	a.written, a.lost, a.seen = a.written-b.written, a.lost-b.lost, a.seen-b.seen
	a.told.Flows, a.told.Ring, a.told.History = a.told.Flows-b.told.Flows, a.told.Ring-b.told.Ring, a.told.History-b.told.History
	a.told.Late -= b.told.Late
	return a
}

// unaccounted is how many flows and lost events the client was not told of yet.
func (a account) unaccounted() int64 {
	return int64(a.seen+a.lost) - int64(a.told.Flows+a.told.Ring+a.told.History)
}

// events are those whose flows were told, all of an event's or none.
func (a account) events() float64 {
	return float64(a.written) * float64(a.told.Flows) / float64(max(a.seen, 1))
}

// gone are the events that the client will not get: for want of room in a worker's
// ring, or in the history until it was their turn.
func (a account) gone() float64 {
	return float64(a.lost) + float64(a.written)*float64(a.told.History)/float64(max(a.seen, 1))
}

// A client is told of what was lost with what comes next, and after a second of
// what it was too slow for: some stir is needed until it is.
const (
	tellPatience = 5 * time.Second
	tellPoll     = 20 * time.Millisecond
	stirEvery    = 10 // polls
)

// quiet returns an account after which nothing more comes by itself.
func (l *listener) quiet(ctx context.Context) (a account, err error) {
	for {
		now, err := l.account(ctx)
		if err != nil || now == a {
			return now, err
		}
		a = now
		if err := sleep(ctx, tellPoll); err != nil {
			return a, err
		}
	}
}

// settled waits until the client has been told of all since an earlier account, and
// fails if the numbers do not add up in the end: what was told and what was told as
// lost is what there was. stir makes an event.
func (l *listener) settled(ctx context.Context, from account, stir func() error) (a account, err error) {
	for poll := 1; ; poll++ {
		now, err := l.quiet(ctx)
		if err != nil {
			return a, err
		}
		if a = now.since(from); a.unaccounted() == 0 && now.told.Missing() == 0 {
			break
		}
		if time.Duration(poll)*tellPoll > tellPatience {
			return a, fmt.Errorf("%d flows and %d lost events are not what was told: %+v, %d numbers are missing", a.seen, a.lost, a.told, now.told.Missing())
		}
		if poll%stirEvery == 0 {
			if err := stir(); err != nil {
				return a, err
			}
		}
	}
	// That events are missing here can itself go from the history: then they are among
	// those that it is said to have had no more.
	if a.told.Late > 0 || a.told.Ring > a.lost {
		return a, fmt.Errorf("%d flows came out of their order; %d events were told as lost, of %d", a.told.Late, a.told.Ring, a.lost)
	}
	return a, nil
}

// stirrer returns a function that sends a packet of a flow that no workload has.
func (s *Stage) stirrer(ctx context.Context) (func() error, error) {
	const first, flows = 64, 128 // of source ports; floods have fewer
	w, err := s.wire()
	if err != nil {
		return nil, err
	}
	l, err := traffic.Mix{FromMAC: w.fromMAC, ToMAC: w.toMAC, From: s.addr(s.A), To: s.addr(s.B), Sizes: smallest, Flows: flows, Clients: true}.Load()
	next := first
	return func() error {
		one := &traffic.Load{Frames: l.Frames[next : next+1], Order: []uint32{0}}
		next = min(next+1, flows-1)
		return once(ctx, traffic.Blast{Client: w.out, Ifindex: w.outIndex, Load: one, Count: 1})
	}, err
}
