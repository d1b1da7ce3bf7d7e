package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/hubble"
	"github.com/sluice-net/sluice/dataplane/event"
)

// maxSnapLen is how much of a packet is copied at most, bytes.
const maxSnapLen = 2048

// Packets implements api.Packets.
func (a *Agent) Packets(ctx context.Context, q api.PacketQuery, opened func(), visit func(*api.Packet) error) error {
	m, err := a.packetMatcher(&q)
	if err != nil {
		return &api.RequestError{Reason: err.Error()}
	}
	var told, now api.Packet // what was left out
	var second int64
	var inSecond [2]int // denied, allowed: each has the rate, or one would hide the other
	open := false
	take := func(f *observe.Flow, length int, data []byte) error {
		if !m.Match(f) {
			return nil
		}
		if s := time.Now().Unix(); s != second {
			second, inSecond = s, [2]int{}
		}
		n := &inSecond[0]
		if f.Allowed {
			n = &inSecond[1]
		}
		if *n++; *n > q.MaxRate {
			now.Omitted++
			return nil
		}
		flow := observe.JSON(f)
		flow.Node = a.cfg.NodeName
		return visit(&api.Packet{Flow: &flow, Length: length, Data: data, Lost: now.Lost, Omitted: now.Omitted})
	}
	want := m.Interest()
	if want&event.WantNew != 0 {
		want |= event.WantPassed
	}
	err = a.observer.Capture(ctx, q.SnapLen, want, take, func(lost uint64) error {
		if !open {
			open = true
			opened()
		}
		if now.Lost = lost; now.Lost != told.Lost || now.Omitted != told.Omitted {
			told = now
			if err := visit(&now); err != nil {
				return err
			}
		}
		return visit(nil)
	})
	if errors.Is(err, observe.ErrCapturing) {
		return &api.BusyError{Reason: err.Error()}
	}
	return err
}

func (a *Agent) packetMatcher(q *api.PacketQuery) (*hubble.Matcher, error) {
	if q.SnapLen < 1 || q.SnapLen > maxSnapLen {
		return nil, fmt.Errorf("snapLen %d: want 1 to %d", q.SnapLen, maxSnapLen)
	}
	if q.MaxRate < 1 {
		return nil, fmt.Errorf("maxRate %d: want 1 or more", q.MaxRate)
	}
	var lists [2][]*flowpb.FlowFilter
	for i, l := range []struct {
		name string
		text json.RawMessage
	}{{"allow", q.Allow}, {"deny", q.Deny}} {
		if len(l.text) == 0 {
			continue
		}
		if err := json.Unmarshal(l.text, &lists[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return hubble.NewMatcher(a.cfg.NodeName, a.NodeLabels(), lists[0], lists[1])
}

// Explain implements api.Explainer.
func (a *Agent) Explain(_ context.Context, q api.Question) (*api.Explanation, error) {
	if a.Explainer == nil {
		return nil, errors.New("this agent explains nothing")
	}
	a.mu.Lock()
	x := &api.Explanation{Generation: a.status.generation}
	a.mu.Unlock()
	var err error
	x.Trace, err = a.Explainer(q)
	if err != nil {
		return nil, &api.RequestError{Reason: err.Error()}
	}
	return x, nil
}
