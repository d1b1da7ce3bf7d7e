package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/forward"
	"github.com/sluice-net/sluice/control/link"
	"github.com/sluice-net/sluice/dataplane"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
)

// serviceLoop is what the loop knows of Services. The guard judges calls whose
// backends are allowed only in part and not all here: see package forward.
type serviceLoop struct {
	plane    plane
	read     input // what list was read from
	list     []forward.Service
	revision uint64 // of list
	told     told
	planner  *forward.Planner
	plan     *forward.Plan // in force, with the rules that it was made from
	guard    *forward.Guard

	// For the watch: calls are planned; and from it: another look is due.
	planned, suspect atomic.Bool
	others           atomic.Pointer[others]
	deaf             atomic.Pointer[string] // why nobody listens to what the guard drops, as listen last found
}

// plane is what is told of Services (dataplane.Plane).
type plane interface {
	SetHost(own []netip.Addr, list []dataplane.Service) error
	Publish(*classify.Table) error
	Repair() error
}

// told is what the dataplane was told last.
type told struct {
	revision uint64
	open     forward.Set // calls that it lets through because they are guarded
}

// others are programs beside Sluice's where pods' packets enter the host, by the
// pods' addresses.
type others map[netip.Addr]string

func (a *Agent) adoptGuard() {
	s := &a.services
	s.plane = a.plane
	s.planner, s.plan = forward.NewPlanner(), &forward.Plan{}
	s.others.Store(&others{})
	var err error
	if s.guard, err = forward.Adopt(uint16(a.cfg.NFLogGroup)); err != nil {
		a.log.Warn("read what an earlier agent guarded", "err", err)
	}
	// What it guarded is kept until there are rules, and then again looked at.
	s.suspect.Store(true)
}

// putInForce publishes rules, unless they are in force already, and what is to be
// known of Services with them. Calls that depend on which backend the host chooses
// are let through only while the guard judges that: it is widened before, and
// narrowed after. If it fails they are closed. While the kernel has not got all
// that it was to be told, nothing is narrowed: its caches may still let calls pass
// that are not allowed any more.
func (a *Agent) putInForce(table *classify.Table, eps []endpoint.Endpoint, publish bool) error {
	s := &a.services
	again := s.suspect.Swap(false)
	plan := s.planner.Next(forward.Input{Table: table, Endpoints: eps, Services: s.list, Revision: s.revision})
	open, closed := s.told.open, ""
	meanwhile := open
	var err error
	if again = again || plan != s.plan; again {
		if open, closed, err = a.widen(plan, eps); err == nil {
			meanwhile = union(meanwhile, open)
		} else {
			meanwhile = nil
		}
	}
	told := a.tellHost(meanwhile)
	if publish {
		told = errors.Join(told, s.plane.Publish(table))
	}
	if told != nil {
		return told
	}
	if again && err == nil {
		if err = s.guard.Apply(plan.Calls, plan.Ways); err != nil {
			open, closed = nil, err.Error()
		}
	}
	s.plan = plan
	if again {
		a.noteServices(plan, len(open), closed, err)
	}
	return a.tellHost(open)
}

// widen has the guard judge what it judges already and what a plan has. It returns
// the plan's calls that may then be let through, and why not all of them.
func (a *Agent) widen(plan *forward.Plan, eps []endpoint.Endpoint) (open forward.Set, closed string, err error) {
	s := &a.services
	calls, ways := s.guard.Sets()
	if err := s.guard.Apply(union(calls, plan.Calls), union(ways, plan.Ways)); err != nil {
		return nil, err.Error(), err
	}
	if plan.Left > 0 {
		closed = "there are more than the guard has room for"
	}
	all := findOthers(eps, plan.Calls)
	s.others.Store(&all)
	open = maps.Clone(plan.Calls)
	for c := range plan.Calls {
		if by := all[c.Src]; by != "" {
			closed = by
			delete(open, c)
		}
	}
	return open, closed, nil
}

// findOthers looks for programs of others where pods that call enter the host. One
// that translates addresses itself would take packets past the guard.
func findOthers(eps []endpoint.Endpoint, calls forward.Set) others {
	out := others{}
	sources := map[netip.Addr]bool{}
	for c := range calls {
		sources[c.Src] = true
	}
	for i := range eps {
		ep := &eps[i]
		if !slices.ContainsFunc(ep.Addrs, func(x netip.Addr) bool { return sources[x] }) {
			continue
		}
		names, err := link.Others(ep.Link.Ifindex)
		if err != nil {
			names = []string{err.Error()}
		}
		for _, x := range ep.Addrs {
			if len(names) > 0 {
				out[x] = fmt.Sprintf("%s has programs beside Sluice's, which may translate addresses unseen: %s", ep.Link.Name, strings.Join(names, ", "))
			}
		}
	}
	return out
}

// tellHost tells the dataplane of the Services, of the node's own addresses and of
// the calls that are guarded, if any are others than it was last told. What it
// could not pass on to the kernel it tries again.
func (a *Agent) tellHost(open forward.Set) error {
	s := &a.services
	if s.told.revision == s.revision && maps.Equal(s.told.open, open) {
		return s.plane.Repair()
	}
	from := map[forward.Tuple][]netip.Addr{}
	for c := range open {
		service := forward.Tuple{Dst: c.Dst, Proto: c.Proto, Port: c.Port}
		from[service] = append(from[service], c.Src)
	}
	list := make([]dataplane.Service, len(s.list))
	for i := range s.list {
		list[i] = s.list[i].Service
		list[i].Guarded = from[forward.Tuple{Dst: list[i].Addr, Proto: list[i].Proto, Port: list[i].Port}]
		slices.SortFunc(list[i].Guarded, netip.Addr.Compare)
	}
	s.told = told{s.revision, open} // the workers are, even if the kernel can't be
	return s.plane.SetHost(s.read.hostAddrs, list)
}

// noteServices keeps for the status what became of a plan.
func (a *Agent) noteServices(plan *forward.Plan, open int, closed string, err error) {
	now := api.Services{Guarded: open, Closed: len(plan.Calls) + plan.Left - open, Reason: closed}
	a.services.planned.Store(len(plan.Calls) > 0)
	if err != nil && len(plan.Calls) == 0 {
		// Nothing is to be guarded: that it can't be is of no interest.
		now = api.Services{}
	}
	if now.Closed == 0 {
		now.Reason = ""
	}
	a.mu.Lock()
	was := a.status.services
	a.status.services = now
	a.mu.Unlock()
	switch {
	case now == was:
	case now.Closed > 0:
		a.log.Warn("calls of Services are closed though some backends are allowed", "calls", now.Closed, "guarded", now.Guarded, "reason", now.Reason)
	default:
		a.log.Info("calls of Services are judged where they are translated", "calls", now.Guarded)
	}
	if err != nil {
		a.services.planned.Store(true) // so that it is tried again
	}
}

// guardEvery is how often the watch looks whether the guard still holds.
const guardEvery = time.Second

// watchGuard has the loop look again if the guard has failed, is gone or is another, or
// if programs of others have come to links of pods whose calls are guarded, or gone.
func (a *Agent) watchGuard(ctx context.Context) error {
	s := &a.services
	for tick := time.NewTicker(guardEvery); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return nil
		case <-tick.C:
		}
		again := !s.guard.Intact()
		if s.planned.Load() {
			calls, _ := s.guard.Sets()
			a.mu.Lock()
			failed := a.status.services.Guarded == 0
			a.mu.Unlock()
			again = again || failed || !maps.Equal(findOthers(a.plane.Endpoints(), calls), *s.others.Load())
		}
		if again {
			s.suspect.Store(true)
			a.poke()
		}
	}
}

func union(a, b forward.Set) forward.Set {
	if len(a) == 0 {
		return b
	}
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}
