package observe

import (
	"context"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// ServerAway is the reason of a Lost that stands where a server that is followed was
// away: DurationMs is for how long. What is known by number to be missing follows as
// another Lost, from the server.
const ServerAway = "server_away"

// slack is how far a node's events may be out of order.
const slack = 100 * time.Millisecond

// place is where in a node's events a reader is, so that it can go on there, and
// leave out what it has had.
type place struct {
	last  time.Time // of the latest flow
	begun bool      // there was one
	// The flows of the last slack and of the one before, by UUID.
	young, old map[string]struct{}
	since      time.Time // the first of young
}

func newPlace(now time.Time) *place {
	return &place{last: now, young: map[string]struct{}{}, old: map[string]struct{}{}}
}

// fresh notes a message, and reports whether it was not had before.
func (p *place) fresh(resp *observerpb.GetFlowsResponse) bool {
	f := resp.GetFlow()
	if f == nil || f.GetUuid() == "" {
		return true
	}
	_, young := p.young[f.GetUuid()]
	if _, old := p.old[f.GetUuid()]; young || old {
		return false
	}
	at := f.GetTime().AsTime()
	if p.since.IsZero() || at.Sub(p.since) > slack {
		p.old, p.young, p.since = p.young, map[string]struct{}{}, at
	}
	p.young[f.GetUuid()] = struct{}{}
	if !p.begun || at.After(p.last) {
		p.last, p.begun = at, true
	}
	return true
}

// How long to wait before a server is tried again, at first and at most.
const (
	firstWait = 100 * time.Millisecond
	mostWait  = 2 * time.Second
)

// again waits for a server that has gone away, and asks it for what comes after
// what was read. The stream is nil if ctx ended first.
func (r *reading) again(ctx context.Context, client observerpb.ObserverClient, s *Selection, why error) (observerpb.Observer_GetFlowsClient, error) {
	s.Away(why)
	gone := time.Now()
	next := *s
	next.First, next.Last, next.All, next.Since = 0, 0, false, r.place.last.Add(-slack)
	for wait := firstWait; ; wait = min(2*wait, mostWait) {
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(wait):
		}
		// Streams are opened without a word from the server: ask for one.
		_, err := client.ServerStatus(ctx, &observerpb.ServerStatusRequest{})
		if err == nil {
			var stream observerpb.Observer_GetFlowsClient
			if stream, err = client.GetFlows(ctx, next.request()); err == nil {
				s.Away(nil)
				e := &Event{}
				e.Event, e.Reason, e.DecidedBy = Lost, ServerAway, []rule.PolicyRef{}
				e.Time, e.DurationMs = time.Now().UTC(), time.Since(gone).Milliseconds()
				return stream, r.limiter.visit(e)
			}
		}
		if err = remote(ctx, err); !away(err) {
			return nil, err // nil if ctx has ended
		}
	}
}
