package forward_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/sluice-net/sluice/control/forward"
	"github.com/sluice-net/sluice/dataplane"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

// naivePlan reads the rule off: for each pod and each Service it looks at every
// backend by itself.
func naivePlan(set *rule.Set, in forward.Input) (calls, ways forward.Set) {
	calls, ways = forward.Set{}, forward.Set{}
	local := func(a netip.Addr) bool {
		return slices.ContainsFunc(in.Endpoints, func(e endpoint.Endpoint) bool { return slices.Contains(e.Addrs, a) })
	}
	for _, ep := range in.Endpoints {
		allowed := func(s *forward.Service, to netip.AddrPort) bool {
			action, _, _, _ := ruletest.Evaluate(set, ep.ID, rule.Egress, to.Addr(), uint8(s.Proto), to.Port())
			return action == rule.Allow || slices.Contains(ep.Addrs, to.Addr())
		}
		for _, src := range ep.Addrs {
			seen := map[string]bool{}
			for i := range in.Services {
				s := &in.Services[i]
				name := fmt.Sprint(s.Addr, s.Proto, s.Port)
				if s.Addr.Is4() != src.Is4() || seen[name] || len(s.Backends) == 0 {
					continue
				}
				seen[name] = true
				may := func(b netip.AddrPort) bool { return allowed(s, b) }
				mayNot := func(b netip.AddrPort) bool { return !allowed(s, b) && !local(b.Addr()) }
				if !slices.ContainsFunc(s.Backends, may) || !slices.ContainsFunc(s.Backends, mayNot) {
					continue
				}
				calls[forward.Tuple{Src: src, Dst: s.Addr, Proto: s.Proto, Port: s.Port}] = struct{}{}
				for _, b := range s.Ends {
					if allowed(s, b) || local(b.Addr()) {
						ways[forward.Tuple{Src: src, Dst: b.Addr(), Proto: s.Proto, Port: b.Port()}] = struct{}{}
					}
				}
			}
		}
	}
	return calls, ways
}

// churn is a node that changes at random.
type churn struct {
	*rand.Rand
	set  *rule.Set
	in   forward.Input
	gen  uint32
	pool []netip.Addr // of backends and pods
}

func (c *churn) addr() netip.Addr { return c.pool[c.IntN(len(c.pool))] }

func (c *churn) service() forward.Service {
	s := forward.Service{Service: dataplane.Service{Addr: ruletest.RandomAddr(c.Rand), Port: uint16(1 + c.IntN(2)),
		Proto: []packet.Proto{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP}[c.IntN(3)]}}
	for range 1 + c.IntN(4) {
		if a := c.addr(); a.Is4() == s.Addr.Is4() {
			s.Ends = append(s.Ends, netip.AddrPortFrom(a, uint16(80+c.IntN(3))))
		}
	}
	slices.SortFunc(s.Ends, netip.AddrPort.Compare)
	s.Ends = slices.Compact(s.Ends)
	for _, e := range s.Ends {
		if c.IntN(5) > 0 {
			s.Backends = append(s.Backends, e)
		}
	}
	return s
}

// pod has the addresses of both families, and at times none of one.
func (c *churn) pod(id endpoint.ID) endpoint.Endpoint {
	ep := endpoint.Endpoint{ID: id}
	for _, v4 := range []bool{true, false} {
		if a := c.addr(); a.Is4() == v4 || c.IntN(3) == 0 {
			ep.Addrs = append(ep.Addrs, a)
		}
	}
	return ep
}

// rules draws other programs for some endpoints.
func (c *churn) rules() {
	for i := range c.set.Endpoints {
		if e := &c.set.Endpoints[i]; c.IntN(2) == 0 {
			c.gen++
			e.Egress, e.Generation = rule.ProgramID(c.IntN(len(c.set.Programs))), c.gen
		}
	}
}

// step changes something; most of what there is stays.
func (c *churn) step() {
	switch c.IntN(6) {
	case 0:
		c.rules()
	case 1, 2:
		c.in.Services = slices.Clone(c.in.Services)
		c.in.Services[c.IntN(len(c.in.Services))] = c.service()
		c.in.Revision++
	case 3:
		c.in.Services = slices.Clone(c.in.Services)
		c.Shuffle(len(c.in.Services), func(i, k int) { c.in.Services[i], c.in.Services[k] = c.in.Services[k], c.in.Services[i] })
		c.in.Revision++
	case 4:
		c.in.Endpoints = slices.Clone(c.in.Endpoints)
		i := c.IntN(len(c.in.Endpoints))
		c.in.Endpoints[i] = c.pod(c.in.Endpoints[i].ID)
	case 5:
		c.in.Endpoints = nil // some have no link yet
		for i, e := range c.set.Endpoints {
			if c.IntN(5) > 0 || i == 0 {
				c.in.Endpoints = append(c.in.Endpoints, c.pod(e.ID))
			}
		}
	}
}

// TestPlanner compares plans with naive ones while rules, Services and pods
// change.
func TestPlanner(t *testing.T) {
	found := 0
	for seed := range uint64(30) {
		c := &churn{Rand: rand.New(rand.NewPCG(seed, 1)), gen: 1000}
		c.set = ruletest.Random(c.Rand, ruletest.Small())
		c.set.Endpoints = append(c.set.Endpoints, rule.Endpoint{ID: 40, Generation: 1})
		for range 12 {
			c.pool = append(c.pool, ruletest.RandomAddr(c.Rand))
		}
		for range 40 {
			c.in.Services = append(c.in.Services, c.service())
		}
		c.in.Endpoints = []endpoint.Endpoint{c.pod(40)}
		p := forward.NewPlanner()
		var last *forward.Plan
		for n := range 40 {
			var err error
			if c.in.Table, err = classify.Build(c.set); err != nil {
				t.Fatal(err)
			}
			plan := p.Next(c.in)
			calls, ways := naivePlan(c.set, c.in)
			if !maps.Equal(plan.Calls, calls) || !maps.Equal(plan.Ways, ways) || plan.Left != 0 {
				t.Fatalf("seed %d, step %d: %d calls and %d ways, want %d and %d", seed, n, len(plan.Calls), len(plan.Ways), len(calls), len(ways))
			}
			if again := p.Next(c.in); again != plan {
				t.Fatalf("seed %d, step %d: another plan without a change", seed, n)
			}
			if last != nil && plan != last && len(plan.Calls)+len(last.Calls) == 0 {
				t.Fatalf("seed %d, step %d: another plan with nothing in it", seed, n)
			}
			last, found = plan, found+len(calls)
			set := *c.set // tables share nothing with what changes
			set.Endpoints = slices.Clone(set.Endpoints)
			c.set = &set
			c.step()
		}
	}
	if found < 1000 {
		t.Errorf("only %d calls in all: the test looks at nothing", found)
	}
}

// half is a node of n pods, each of which may reach every other backend of 10 in
// each of some Services.
func half(t testing.TB, pods, services int) forward.Input {
	set := &rule.Set{Generation: 1, Peers: 1, Causes: make([]rule.Cause, 2), Identities: []rule.Identity{{0}},
		Programs: []rule.Program{{}, {Tiers: []rule.Tier{{Default: rule.Deny, DefaultCause: 1,
			Rules: []rule.Rule{{Action: rule.Allow, Peers: []rule.PeerID{0}, AnyPort: true}}}}}}}
	var in forward.Input
	for i := range pods {
		id := endpoint.ID(i + 1)
		set.Endpoints = append(set.Endpoints, rule.Endpoint{ID: id, Egress: 1, Generation: 1})
		in.Endpoints = append(in.Endpoints, endpoint.Endpoint{ID: id, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}})
	}
	for i := range services {
		s := forward.Service{Service: dataplane.Service{Addr: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), Proto: packet.ProtoTCP, Port: 80}}
		for k := range 10 {
			a := netip.AddrFrom4([4]byte{10, byte(1 + k), byte(i >> 8), byte(i)})
			s.Backends = append(s.Backends, netip.AddrPortFrom(a, 8080))
			if k%2 == 0 {
				set.Addresses = append(set.Addresses, rule.Address{Addr: a})
			}
		}
		s.Ends = s.Backends
		in.Services = append(in.Services, s)
	}
	slices.SortFunc(set.Addresses, func(a, b rule.Address) int { return a.Addr.Compare(b.Addr) })
	table, err := classify.Build(set)
	if err != nil {
		t.Fatal(err)
	}
	in.Table = table
	return in
}

// What there is no room for is left out, whole calls of it.
func TestPlanIsBounded(t *testing.T) {
	const pods, services = 250, 100
	plan := forward.NewPlanner().Next(half(t, pods, services))
	if n := len(plan.Calls); n == 0 || n > 1<<14 || n+plan.Left != pods*services {
		t.Errorf("%d calls, %d left out, of %d", n, plan.Left, pods*services)
	}
	if n := len(plan.Ways); n > 1<<16 || n != 5*len(plan.Calls) {
		t.Errorf("%d ways for %d calls", n, len(plan.Calls))
	}
}

// BenchmarkPlanner is a node of 250 pods in a cluster of 5,000 Services with five
// backends each, nothing of it to be guarded: what a change costs of which nothing
// comes.
func BenchmarkPlanner(b *testing.B) {
	for _, bench := range []struct {
		name   string
		change func(in *forward.Input, n int)
	}{
		{"nothing", func(*forward.Input, int) {}},
		{"service", func(in *forward.Input, n int) {
			in.Services = slices.Clone(in.Services)
			s := &in.Services[n%len(in.Services)]
			s.Backends = s.Backends[:max(len(s.Backends)-1, 1)]
			s.Ends = s.Backends
			in.Revision++
		}},
		{"pod", func(in *forward.Input, n int) {
			in.Endpoints = slices.Clone(in.Endpoints)
			in.Endpoints[n%250].Addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(10 + n>>8), byte(n)})}
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			in := half(b, 250, 5000)
			for i := range in.Services {
				s := &in.Services[i]
				s.Backends = slices.DeleteFunc(slices.Clone(s.Backends), func(a netip.AddrPort) bool { return a.Addr().As4()[1]%2 == 0 })
				s.Ends = s.Backends
			}
			p := forward.NewPlanner()
			if n := len(p.Next(in).Calls); n > 0 {
				b.Fatalf("%d calls", n)
			}
			b.ResetTimer()
			for n := range b.N {
				bench.change(&in, n)
				p.Next(in)
			}
		})
	}
}
