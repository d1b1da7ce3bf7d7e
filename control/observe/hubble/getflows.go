package hubble

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/filter"
)

// lostEvery is how often at most a slow client is told what it missed.
const lostEvery = time.Second

// relabelEvery is after how many events or waits the node's labels are looked at.
const relabelEvery = 64

// query is one GetFlows request under way.
type query struct {
	s            *Server
	req          *observerpb.GetFlowsRequest
	filters      *filter.Set
	since, until time.Time // zero: none
	mask         *mask
	labels       []string   // of the node
	conv         *converter // for filters and masks
	out          *stream
	sent         uint64
	missed       missed
}

// missed is what a client lost to the history's end and was not told of yet.
type missed struct {
	n           uint64
	first, last time.Time
	told        time.Time
}

// getFlows answers a GetFlows request of Observer.
func (s *Server) getFlows(ctx context.Context, body io.Reader, out *stream) error {
	req := &observerpb.GetFlowsRequest{}
	if err := readMessage(body, req); err != nil {
		return err
	}
	q, err := s.newQuery(req, out)
	if err != nil {
		return err
	}
	if req.GetFollow() {
		defer s.observer.Want(q.filters.Interest())()
	}
	err = q.run(ctx)
	if s.ctx.Err() != nil {
		return status.Error(codes.Unavailable, "the agent is going away")
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	return err
}

func (s *Server) newQuery(req *observerpb.GetFlowsRequest, out *stream) (*query, error) {
	q := &query{s: s, req: req, out: out}
	q.relabel(s.peers.NodeLabels())
	if err := q.times(req); err != nil {
		return nil, err
	}
	var err error
	if q.filters, err = filter.Compile(req.GetWhitelist(), req.GetBlacklist()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if q.mask, err = newMask(req.GetFieldMask().GetPaths()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return q, nil
}

// relabel has flows carry other labels of the node from now on.
func (q *query) relabel(labels []string) {
	q.labels = labels
	o := origin{q.s.observer.Tag(), q.s.cfg.Node, labels}
	q.conv, q.out.enc = newConverter(o), newEncoder(o)
}

// request is what requests for flows and for events have in common.
type request interface {
	GetFirst() bool
	GetFollow() bool
	GetSince() *timestamppb.Timestamp
	GetUntil() *timestamppb.Timestamp
}

func (q *query) times(req request) error {
	if req.GetFirst() && req.GetFollow() {
		return status.Error(codes.InvalidArgument, "first cannot be specified with follow")
	}
	for _, t := range []struct {
		name string
		in   *timestamppb.Timestamp
		out  *time.Time
	}{{"since", req.GetSince(), &q.since}, {"until", req.GetUntil(), &q.until}} {
		if t.in == nil {
			continue
		}
		if err := t.in.CheckValid(); err != nil {
			return status.Errorf(codes.InvalidArgument, "%s: %v", t.name, err)
		}
		*t.out = eventTime(t.in.AsTime())
	}
	return nil
}

// earliest and latest are what an event's time, nanoseconds in an int64, can be
// compared with, and clockSlack more: years 1677 and 2262. A Timestamp goes further.
var earliest, latest = time.Unix(0, math.MinInt64).Add(time.Hour), time.Unix(0, math.MaxInt64).Add(-time.Hour)

// eventTime returns the time next to t that an event can have.
func eventTime(t time.Time) time.Time {
	switch {
	case t.Before(earliest):
		return earliest
	case t.After(latest):
		return latest
	}
	return t
}

// start returns where in the history to begin: event and view.
func (q *query) start() (number uint64, view int) {
	oldest, next := q.s.observer.Bounds()
	number = next
	switch {
	case q.req.GetFirst() && q.since.IsZero():
		return oldest, 0
	case q.req.GetFollow() && q.req.GetNumber() == 0 && q.since.IsZero():
		return next, 0
	}
	found := uint64(0)
	q.s.observer.EachBack(func(n uint64, f *observe.Flow) bool {
		if !q.since.IsZero() && f.TimeNs < q.since.UnixNano()-int64(clockSlack) {
			return false
		}
		number, view = n, 0
		if !q.since.IsZero() {
			return true // since has precedence over number
		}
		for v := len(f.Views()) - 1; v >= 0; v-- {
			// Without a number all of it is wanted.
			if q.filters.Match(q.conv.flow(f, v)) && q.inTime(f) {
				if found++; found == q.req.GetNumber() {
					view = v
					return false
				}
			}
		}
		return true
	})
	return number, view
}

// clockSlack is how far the history's events may be out of order: workers stamp
// a burst as it begins, and the rings of a worker are read one by one.
const clockSlack = 100 * time.Millisecond

func (q *query) inTime(f *observe.Flow) bool {
	return (q.since.IsZero() || f.TimeNs >= q.since.UnixNano()) && (q.until.IsZero() || f.TimeNs <= q.until.UnixNano())
}

func (q *query) run(ctx context.Context) error {
	number, view := q.start()
	_, end := q.s.observer.Bounds() // of what is there already
	r := q.s.observer.ReaderAt(number)
	if q.req.GetFollow() && !q.since.IsZero() && q.since.Before(q.s.observer.Started()) {
		r = q.s.observer.ReaderOfAll() // of this agent: who followed the last one is told what it missed
	}
	if err := q.out.flush(); err != nil { // no later event can be missed
		return err
	}
	for n := 0; q.more(r.Number() < end); n++ {
		if n%relabelEvery == 0 {
			if labels := q.s.peers.NodeLabels(); !slices.Equal(labels, q.labels) {
				q.relabel(labels)
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if q.missed.n > 0 && time.Since(q.missed.told) >= lostEvery {
			if err := q.tellMissed(); err != nil {
				return err
			}
		}
		f, missed := r.Next()
		if missed > 0 {
			q.missed.add(missed)
		}
		if f == nil {
			if err := q.wait(ctx, r); err != nil {
				return err
			}
			continue
		}
		if q.req.GetFollow() && !q.until.IsZero() && f.TimeNs > q.until.UnixNano()+int64(clockSlack) {
			break
		}
		if err := q.event(f, view); err != nil {
			return err
		}
		view = 0
	}
	if q.missed.n > 0 {
		return q.tellMissed()
	}
	return nil
}

// more reports whether the request is not answered yet.
func (q *query) more(held bool) bool {
	if q.req.GetFollow() {
		return true
	}
	return held && (q.req.GetNumber() == 0 || q.sent < q.req.GetNumber())
}

// wait waits for the next event, or until a loss is to be told.
func (q *query) wait(ctx context.Context, r *observe.Reader) error {
	if err := q.out.flush(); err != nil {
		return err
	}
	if q.missed.n == 0 {
		return r.Wait(ctx)
	}
	limit, cancel := context.WithDeadline(ctx, q.missed.told.Add(lostEvery))
	defer cancel()
	if err := r.Wait(limit); err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return nil
}

// event sends the views of an event that pass, from one on.
func (q *query) event(f *observe.Flow, from int) error {
	if f.Lost > 0 {
		return q.sendLost(flowpb.LostEventSource_PERF_EVENT_RING_BUFFER, f.Lost, time.Unix(0, f.TimeNs), time.Unix(0, f.TimeNs))
	}
	if !q.inTime(f) || !q.filters.Interest().Wants(&f.Record) {
		return nil
	}
	begun := false
	for v := from; v < len(f.Views()); v++ {
		var flow *flowpb.Flow
		if !q.filters.All() || q.mask != nil {
			if flow = q.conv.flow(f, v); !q.filters.Match(flow) {
				continue
			}
		}
		if !q.req.GetFollow() && q.req.GetNumber() > 0 && q.sent == q.req.GetNumber() {
			return nil
		}
		if !begun && q.mask == nil {
			q.out.enc.begin(f)
			begun = true
		}
		if err := q.view(v, flow); err != nil {
			return err
		}
		q.sent++
	}
	return nil
}

// view sends a view of an event; flow is the same as a message, if there is a mask.
func (q *query) view(i int, flow *flowpb.Flow) error {
	if q.mask == nil {
		return q.out.view(i)
	}
	return q.out.message(&observerpb.GetFlowsResponse{Time: flow.Time, NodeName: flow.NodeName,
		ResponseTypes: &observerpb.GetFlowsResponse_Flow{Flow: q.mask.apply(flow)}})
}

func (m *missed) add(n uint64) {
	now := time.Now()
	if m.n == 0 {
		m.first = now
	}
	m.n += n
	m.last = now
}

func (q *query) tellMissed() error {
	m := q.missed
	q.missed = missed{told: time.Now()}
	return q.sendLost(flowpb.LostEventSource_HUBBLE_RING_BUFFER, m.n, m.first, m.last)
}

func (q *query) sendLost(source flowpb.LostEventSource, n uint64, first, last time.Time) error {
	return q.out.message(&observerpb.GetFlowsResponse{
		Time: timestamppb.Now(), NodeName: q.s.cfg.Node,
		ResponseTypes: &observerpb.GetFlowsResponse_LostEvents{LostEvents: &flowpb.LostEvent{
			Source: source, NumEventsLost: n, First: timestamppb.New(first), Last: timestamppb.New(last),
		}},
	})
}
