package forward

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/dataplane"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Service is what the host translates, and to where.
type Service struct {
	dataplane.Service
	// Ends are all that the host may have sent a connection to that lives on:
	// Backends, and those that are draining or not ready. Sorted.
	Ends []netip.AddrPort
}

// Input is all that a Plan depends on.
type Input struct {
	Table     *classify.Table
	Endpoints []endpoint.Endpoint // sorted by ID
	Services  []Service           // of two with one address and port the first counts
	Revision  uint64              // changes when Services do
}

// Plan is what is to be guarded.
type Plan struct {
	Calls, Ways Set
	Left        int // calls that would have been, if there were room
}

// How much a Plan has at most: what the kernel spends on it, some 20 MB, and the
// time that a first transaction takes, are bounded by it.
const (
	maxCalls = 1 << 14
	maxWays  = 1 << 16
)

// Planner finds the calls that depend on which backend the host chooses: some may
// be reached, and one that may not is not on this node. It looks again only at
// pods whose rules have changed and at Services that have.
type Planner struct {
	services  map[key]*service
	pods      map[endpoint.ID]*pod
	endpoints []endpoint.Endpoint
	locals    map[netip.Addr]bool // their addresses
	moved     map[netip.Addr]bool // those that have come or gone
	revision  uint64
	plan      *Plan

	queries  []classify.Query // scratch
	verdicts []classify.Verdict
}

// key names a Service as packets do.
type key struct {
	addr  netip.Addr
	proto packet.Proto
	port  uint16
}

// service is immutable: one that has changed is another.
type service struct {
	key
	in   *Service
	ends []end
}

type end struct {
	netip.AddrPort
	backend bool // new connections may go there
	local   bool
}

type pod struct {
	generation uint32 // of the rules that calls follow; 0: none yet
	addrs      []netip.Addr
	calls      map[*service][]netip.AddrPort // what is guarded, and where it may go
}

// NewPlanner returns a Planner that has seen nothing yet.
func NewPlanner() *Planner {
	return &Planner{services: map[key]*service{}, pods: map[endpoint.ID]*pod{}, plan: &Plan{}}
}

// Next returns the Plan for in: the same one if nothing has changed.
func (p *Planner) Next(in Input) *Plan {
	moved := !slices.EqualFunc(in.Endpoints, p.endpoints, func(a, b endpoint.Endpoint) bool {
		return a.ID == b.ID && slices.Equal(a.Addrs, b.Addrs)
	})
	changed := moved && p.takeEndpoints(in.Endpoints)
	var fresh []*service
	if len(p.moved) > 0 || in.Revision != p.revision {
		var gone bool
		fresh, gone = p.takeServices(in)
		changed = changed || gone
	}
	var all []*service
	rules := in.Table.Endpoints()
	for i := range in.Endpoints {
		id := in.Endpoints[i].ID
		x, list := p.pods[id], fresh
		for len(rules) > 0 && rules[0].ID < id {
			rules = rules[1:]
		}
		if len(rules) > 0 && rules[0].ID == id && rules[0].Generation != x.generation {
			if all == nil {
				all = slices.Collect(maps.Values(p.services))
			}
			x.generation, list = rules[0].Generation, all
			changed = changed || len(x.calls) > 0
			clear(x.calls)
		}
		if len(list) > 0 && p.judge(in.Table, x, in.Table.Row(id, rule.Egress), list) {
			changed = true
		}
	}
	if changed {
		p.plan = p.sum()
	}
	return p.plan
}

// takeEndpoints brings pods up to date. It reports whether calls have gone.
func (p *Planner) takeEndpoints(list []endpoint.Endpoint) (changed bool) {
	old, before := p.pods, p.locals
	p.endpoints, p.pods = list, make(map[endpoint.ID]*pod, len(list))
	p.locals, p.moved = map[netip.Addr]bool{}, map[netip.Addr]bool{}
	for i := range list {
		ep := &list[i]
		x := old[ep.ID]
		if x == nil || !slices.Equal(x.addrs, ep.Addrs) {
			x = &pod{addrs: ep.Addrs, calls: map[*service][]netip.AddrPort{}}
		}
		p.pods[ep.ID] = x
		for _, a := range ep.Addrs {
			p.locals[a] = true
			if !before[a] {
				p.moved[a] = true
			}
		}
	}
	for a := range before {
		if !p.locals[a] {
			p.moved[a] = true
		}
	}
	for id, x := range old {
		changed = changed || p.pods[id] != x && len(x.calls) > 0
	}
	return changed
}

// takeServices brings services up to date. It returns those that are new, and
// whether calls of others have gone.
func (p *Planner) takeServices(in Input) (fresh []*service, changed bool) {
	old := p.services
	p.services = make(map[key]*service, len(in.Services))
	for i := range in.Services {
		x := &in.Services[i]
		k := key{x.Addr, x.Proto, x.Port}
		if _, twice := p.services[k]; twice || len(x.Backends) == 0 || x.Addr == dataplane.AnyLinkLocal {
			continue // tables would have to know each of its addresses: what is allowed in part is closed
		}
		s := old[k]
		if s == nil || !p.still(s, x) {
			s = p.service(k, x)
			fresh = append(fresh, s)
		}
		p.services[k] = s
	}
	p.revision, p.moved = in.Revision, nil
	for k, was := range old {
		if p.services[k] == was {
			continue
		}
		for _, x := range p.pods {
			if _, ok := x.calls[was]; ok {
				changed = true
				delete(x.calls, was)
			}
		}
	}
	return fresh, changed
}

// still reports whether a service is what in says.
func (p *Planner) still(s *service, in *Service) bool {
	return slices.Equal(s.in.Ends, in.Ends) && slices.Equal(s.in.Backends, in.Backends) &&
		(len(p.moved) == 0 || !slices.ContainsFunc(in.Ends, func(a netip.AddrPort) bool { return p.moved[a.Addr()] }))
}

func (p *Planner) service(k key, in *Service) *service {
	s := &service{key: k, in: in, ends: make([]end, 0, len(in.Ends))}
	for _, b := range in.Ends {
		_, backend := slices.BinarySearchFunc(in.Backends, b, netip.AddrPort.Compare)
		s.ends = append(s.ends, end{b, backend, p.locals[b.Addr()]})
	}
	return s
}

// lookupBatch is how many look-ups the classifier gets at once.
const lookupBatch = 256

// judge finds out which of the services are to be guarded for a pod. It reports
// whether any is.
func (p *Planner) judge(t *classify.Table, x *pod, row classify.Row, list []*service) (any bool) {
	for len(list) > 0 {
		p.queries = p.queries[:0]
		n := 0
		for ; n < len(list) && len(p.queries) < lookupBatch; n++ {
			for _, e := range list[n].ends {
				p.queries = append(p.queries, classify.Query{Row: row, Remote: packet.AddrFrom(e.Addr()), Proto: list[n].proto, Port: e.Port()})
			}
		}
		p.verdicts = slices.Grow(p.verdicts[:0], len(p.queries))[:len(p.queries)]
		t.Classify(p.queries, p.verdicts)
		v := p.verdicts
		for _, s := range list[:n] {
			if x.guards(s, v) {
				x.calls[s] = x.ways(s, v)
				any = true
			}
			v = v[len(s.ends):]
		}
		list = list[n:]
	}
	return any
}

// guards reports whether a pod's calls of a Service are to be guarded, given what
// its rules say of the ends: serviceScratch.ask, of the dataplane, has the rule.
func (x *pod) guards(s *service, verdicts []classify.Verdict) bool {
	var some, beyond bool
	for i := range s.ends {
		if e := &s.ends[i]; e.backend {
			allowed := x.allowed(e, verdicts[i])
			some = some || allowed
			beyond = beyond || !allowed && !e.local
		}
	}
	return some && beyond && slices.ContainsFunc(x.addrs, func(a netip.Addr) bool { return a.Is4() == s.addr.Is4() })
}

// ways returns where the calls may go.
func (x *pod) ways(s *service, verdicts []classify.Verdict) (out []netip.AddrPort) {
	for i := range s.ends {
		if e := &s.ends[i]; e.local || x.allowed(e, verdicts[i]) {
			out = append(out, e.AddrPort)
		}
	}
	return out
}

// allowed reports whether a pod may reach an end; itself it always may.
func (x *pod) allowed(e *end, v classify.Verdict) bool {
	return v.Allowed() || e.local && slices.Contains(x.addrs, e.Addr())
}

// sum makes the Plan of what is known of all pods.
func (p *Planner) sum() *Plan {
	type call struct {
		Tuple
		ways []netip.AddrPort
	}
	var all []call
	for _, x := range p.pods {
		for s, ways := range x.calls {
			for _, a := range x.addrs {
				if a.Is4() == s.addr.Is4() {
					all = append(all, call{Tuple{a, s.addr, s.proto, s.port}, ways})
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b call) int { return a.compare(&b.Tuple) })
	plan := &Plan{Calls: make(Set, len(all)), Ways: Set{}}
	for _, c := range all {
		if len(plan.Calls) == maxCalls || len(plan.Ways)+len(c.ways) > maxWays {
			plan.Left++
			continue
		}
		plan.Calls[c.Tuple] = struct{}{}
		for _, w := range c.ways {
			plan.Ways[Tuple{c.Src, w.Addr(), c.Proto, w.Port()}] = struct{}{}
		}
	}
	return plan
}

func (a *Tuple) compare(b *Tuple) int {
	return cmp.Or(a.Src.Compare(b.Src), a.Dst.Compare(b.Dst), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
}
