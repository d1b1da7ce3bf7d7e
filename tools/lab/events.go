package lab

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// eventPatience is how long the dataplane may take to report a verdict.
const eventPatience = 10 * time.Second

var noPolicies = []rule.PolicyRef{} // "[]" in JSON, not "null"

// tuple names a flow by its first packet.
type tuple struct {
	src, dst netip.AddrPort
	proto    string
}

// events collects what the dataplane says while probes run.
type events struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	flows map[tuple]*said
	news  chan struct{} // receives after an event
}

// said is what the dataplane said about one flow.
type said struct{ allowed, denied []api.Flow }

// watchEvents subscribes to the agent's events: it returns once no later one
// can be missed.
func watchEvents(ctx context.Context, client *api.Client) (*events, error) {
	ctx, cancel := context.WithCancel(ctx)
	e := &events{cancel: cancel, done: make(chan struct{}), flows: map[tuple]*said{}, news: make(chan struct{}, 1)}
	open := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		defer close(e.done)
		failed <- client.Flows(ctx, 0, true, func() { close(open) }, e.add)
	}()
	select {
	case <-open:
		return e, nil
	case err := <-failed:
		cancel()
		return nil, err
	}
}

func (e *events) close() {
	e.cancel()
	<-e.done
}

// add files an event under the flow that it is about. Verdicts on replies and
// the end of flows say nothing about who may connect.
func (e *events) add(f *api.Flow) error {
	if f.Reply || f.Event != "new" && f.Event != "denied" {
		return nil
	}
	t := tuple{netip.AddrPortFrom(f.Src.Addr, f.Src.Port), netip.AddrPortFrom(f.Dst.Addr, f.Dst.Port), f.Proto}
	e.mu.Lock()
	s := e.flows[t]
	if s == nil {
		s = &said{}
		e.flows[t] = s
	}
	if f.Verdict == Deny {
		s.denied = append(s.denied, *f)
	} else {
		s.allowed = append(s.allowed, *f)
	}
	e.mu.Unlock()
	select {
	case e.news <- struct{}{}:
	default:
	}
	return nil
}

// of returns a copy of what was said about a flow.
func (e *events) of(t tuple) said {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.flows[t]; s != nil {
		return said{slices.Clone(s.allowed), slices.Clone(s.denied)}
	}
	return said{}
}

// await gives the dataplane time to say the last of what the attempts need.
func (e *events) await(ctx context.Context, attempts []attempt) {
	limit := time.After(eventPatience)
	for !e.complete(attempts) {
		select {
		case <-e.news:
		case <-limit:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (e *events) complete(attempts []attempt) bool {
	for i := range attempts {
		a := &attempts[i]
		if a.err != nil || !a.judged() {
			continue
		}
		s := e.of(a.flow)
		if !s.has(a.verdict()) {
			return false
		}
	}
	return true
}

func (s *said) has(verdict string) bool { return len(s.events(verdict)) > 0 }

func (s *said) events(verdict string) []api.Flow {
	if verdict == Deny {
		return s.denied
	}
	return s.allowed
}

// by returns the policies that gave the verdict, in the order in which the
// packet met them, and the reason where there is one beside them.
func (s *said) by(verdict string) (refs []rule.PolicyRef, reason string) {
	refs = noPolicies
	for _, f := range s.events(verdict) {
		for _, ref := range f.DecidedBy {
			if !slices.Contains(refs, ref) {
				refs = append(slices.Clip(refs), ref)
			}
		}
		if f.Text != "" {
			reason = f.Text
		} else if f.Reason != "ok" {
			reason = f.Reason
		}
	}
	return refs, reason
}

// audited reports whether the verdict would be another one without an audit.
func (s *said) audited(verdict string) bool {
	return slices.ContainsFunc(s.events(verdict), func(f api.Flow) bool { return f.Audit })
}
