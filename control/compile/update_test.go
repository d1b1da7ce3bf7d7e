package compile_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/networkpolicy"
	"github.com/sluice-net/sluice/control/publish"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// world is a cluster that changes, with what NetworkPolicy can't say: tiers,
// passes, logging, peers that are nodes or names.
type world struct {
	*cluster
	st      *store.Store
	extra   []policy.Origin
	domains map[string][]netip.Addr
	heard   []string      // as in compile.Input
	spare   []netip.Addr  // of the node, beside what the store has
	away    []*corev1.Pod // of a namespace, which will come back
	toggled bool          // whether that one is an audit, meanwhile
}

func (w *world) input(v store.View) compile.Input {
	return compile.Input{View: v, Node: node, Endpoints: w.endpoints(), NodeAddrs: w.spare, Domains: w.domains, Heard: w.heard}
}

// change changes up to three things in one transaction or several.
func (w *world) change(t testing.TB, r *rand.Rand, step int) {
	w.heard = []string{}
	for i := range 1 + r.IntN(3) {
		switch r.IntN(18) {
		case 0, 1:
			p := randomNeutral(r, fmt.Sprintf("extra%d-%d", step, i))
			w.extra = append(w.extra, p.Origin)
			w.st.Update(func(tx *store.Tx) { tx.SetPolicy(p) })
		case 2:
			if len(w.extra) > 0 {
				at := r.IntN(len(w.extra))
				w.st.Update(func(tx *store.Tx) { tx.DeletePolicy(w.extra[at]) })
				w.extra = slices.Delete(w.extra, at, at+1)
			}
		case 3:
			if len(w.extra) > 0 {
				p := randomNeutral(r, "changed")
				p.Origin = pick(r, w.extra)
				w.st.Update(func(tx *store.Tx) { tx.SetPolicy(p) })
			}
		case 4:
			if r.IntN(2) == 0 {
				w.domains, w.heard = randomDomains(r), nil
			} else {
				w.hear(r)
			}
		case 5:
			w.spare = nil
			if r.IntN(2) == 0 {
				w.spare = []netip.Addr{pick(r, someAddrs)}
			}
		case 6:
			ns := pick(r, someNamespaces)
			w.st.Update(func(tx *store.Tx) { tx.DeleteNamespace(ns) })
			delete(w.namespaces, ns)
			delete(w.audited, ns)
		case 7:
			svc := &store.Service{Namespace: pick(r, someNamespaces), Name: pick(r, someValues), Labels: randomLabels(r)}
			if r.IntN(3) > 0 {
				svc.Selector = randomLabels(r)
			}
			w.st.Update(func(tx *store.Tx) { tx.SetService(svc) })
		case 8:
			slice := &store.EndpointSlice{Namespace: pick(r, someNamespaces), Name: pick(r, someValues), Service: pick(r, someValues), Addrs: []netip.Addr{pick(r, someAddrs)}}
			if r.IntN(3) == 0 {
				slice.Namespace, slice.Service = "default", "kubernetes"
			}
			w.st.Update(func(tx *store.Tx) { tx.SetEndpointSlice(slice) })
		case 9:
			g := &store.Group{Name: pick(r, someValues), Labels: randomLabels(r), CIDRs: []netip.Prefix{netip.MustParsePrefix(pick(r, someCIDRs))}}
			w.st.Update(func(tx *store.Tx) {
				tx.DeleteService(store.Key{Namespace: pick(r, someNamespaces), Name: pick(r, someValues)})
				if r.IntN(3) == 0 {
					tx.DeleteGroup(g.Name)
				} else {
					tx.SetGroup(g)
				}
			})
		case 10, 11:
			w.leave(t, r)
		default:
			w.churn(t, r, w.st, 10*step+i)
		}
	}
}

// leave has all pods of a namespace go; then it becomes an audit or ceases to be
// one, then they come back.
func (w *world) leave(t testing.TB, r *rand.Rand) {
	switch {
	case len(w.away) == 0:
		ns := pick(r, someNamespaces)
		w.toggled = false
		w.pods = slices.DeleteFunc(w.pods, func(p *corev1.Pod) bool {
			if p.Namespace != ns {
				return false
			}
			w.away = append(w.away, p)
			w.st.Update(func(tx *store.Tx) { tx.DeletePod(store.Key{Namespace: ns, Name: p.Name}) })
			return true
		})
	case !w.toggled:
		if ns := w.away[0].Namespace; w.namespaces[ns] != nil {
			w.audited[ns] = !w.audited[ns]
		}
		w.toggled = true
	default:
		w.pods, w.away = append(w.pods, w.away...), nil
	}
	w.fill(t, w.st)
}

// hear changes what one name resolves to.
func (w *world) hear(r *rand.Rand) {
	name := pick(r, someDomains2)
	if addrs := randomDomains(r)[name]; len(addrs) > 0 {
		w.domains[name] = addrs
	} else {
		delete(w.domains, name)
	}
	if w.heard != nil {
		w.heard = append(w.heard, name)
	}
}

var someDomains2 = []string{"a.test", "b.test", "x.b.test"}

func randomDomains(r *rand.Rand) map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	for _, d := range someDomains2 {
		for range r.IntN(3) {
			out[d] = append(out[d], pick(r, someAddrs))
		}
	}
	return out
}

// randomNeutral returns a policy of the neutral model, in any tier.
func randomNeutral(r *rand.Rand, name string) *policy.Policy {
	p := &policy.Policy{Origin: policy.Origin{Kind: "Any", Name: name}, Order: float64(r.IntN(3)),
		Tier: pick(r, []policy.Tier{policy.TierAdmin, policy.TierBaseline, {Name: "custom", Order: 1500}}), Audit: r.IntN(8) == 0}
	if r.IntN(3) == 0 {
		p.Origin.Namespace = pick(r, someNamespaces)
	}
	p.Subject = []*policy.Selector{randomNeutralSelector(r, policy.KindPod)}
	for _, s := range []*policy.Section{&p.Ingress, &p.Egress} {
		s.Applies = r.IntN(3) > 0
		s.Default = pick(r, []policy.Action{policy.Pass, policy.Pass, policy.Deny})
		for i := range r.IntN(4) {
			s.Rules = append(s.Rules, randomNeutralRule(r, i/2)) // two lines of one rule, now and then
		}
	}
	return p
}

func randomNeutralRule(r *rand.Rand, index int) policy.Rule {
	out := policy.Rule{Index: index, Action: policy.Action(r.IntN(3)), Log: r.IntN(4) == 0,
		AnyPeer: r.IntN(6) == 0, AnyPort: r.IntN(3) == 0}
	for range r.IntN(3) {
		switch r.IntN(6) {
		case 4:
			out.Peers = append(out.Peers, randomPlace(r))
		case 0:
			out.Peers = append(out.Peers, policy.Peer{Domain: pick(r, append([]string{"*.test"}, someDomains2...))})
		case 1:
			out.Peers = append(out.Peers, policy.Peer{Block: &policy.Block{Prefix: netip.MustParsePrefix(pick(r, someCIDRs)), Unmanaged: r.IntN(3) == 0}})
		case 2:
			out.Peers = append(out.Peers, policy.Peer{Selector: randomNeutralSelector(r, policy.KindNode)})
		default:
			out.Peers = append(out.Peers, policy.Peer{Selector: randomNeutralSelector(r, policy.KindPod)})
		}
	}
	if out.AnyPeer {
		out.Peers = nil
	}
	for range r.IntN(3) {
		port := policy.Port{Protocol: numbersOf[pick(r, someProtocols)]}
		switch r.IntN(3) {
		case 0:
			port.Name = pick(r, somePortNames)
			if r.IntN(3) == 0 {
				port.Protocol = 0
			}
		case 1:
			port.From = uint16(pick(r, somePorts))
			port.To = port.From
		default:
			port.To = 65535
		}
		out.Ports = append(out.Ports, port)
	}
	if out.AnyPort {
		out.Ports = nil
	}
	return out
}

// randomPlace returns a peer that is no pod, block or domain.
func randomPlace(r *rand.Rand) policy.Peer {
	labels := []policy.Requirement{{Key: pick(r, someKeys), Values: []string{pick(r, someValues)}}}
	switch r.IntN(5) {
	case 0:
		return policy.Peer{Group: &policy.Group{Name: pick(r, someValues)}}
	case 1:
		return policy.Peer{Group: &policy.Group{Labels: labels}}
	case 2:
		if r.IntN(2) == 0 {
			return policy.Peer{Services: &policy.ServicePods{Labels: labels}}
		}
		return policy.Peer{Services: &policy.ServicePods{Namespace: pick(r, someNamespaces), Name: pick(r, someValues)}}
	case 3:
		name := policy.NewName("*.test", `^.*[.]test[.]$`)
		return policy.Peer{Name: &name}
	}
	return policy.Peer{Zone: policy.Zone(r.IntN(16)), APIServer: policy.Membership(r.IntN(3))}
}

func randomNeutralSelector(r *rand.Rand, kind policy.EntityKind) *policy.Selector {
	spec := policy.SelectorSpec{Kind: kind}
	if kind == policy.KindPod && r.IntN(2) == 0 {
		spec.Namespace = pick(r, someNamespaces)
	}
	for _, to := range []*[]policy.Requirement{&spec.Labels, &spec.NamespaceLabels} {
		if r.IntN(3) == 0 && kind == policy.KindPod {
			*to = append(*to, policy.Requirement{Key: pick(r, someKeys), Operator: policy.Operator(r.IntN(4)), Values: []string{pick(r, someValues)}})
		}
	}
	return policy.NewSelector(spec)
}

// differ asks two tables everything about all endpoints, and reports the
// first question that they answer differently.
func differ(got, want *classify.Table, endpoints []endpoint.Endpoint) string {
	gotCauses, wantCauses := texts(got), texts(want)
	var q, p []classify.Query
	for _, e := range endpoints {
		for _, dir := range []rule.Direction{rule.Ingress, rule.Egress} {
			q, p = q[:0], p[:0]
			for _, a := range someAddrs {
				for _, proto := range []packet.Proto{1, 6, 17, 132} {
					for _, port := range somePorts {
						ask := classify.Query{Remote: packet.AddrFrom(a), Row: got.Row(e.ID, dir), Proto: proto, Port: uint16(port)}
						q = append(q, ask)
						ask.Row = want.Row(e.ID, dir)
						p = append(p, ask)
					}
				}
			}
			x, y := make([]classify.Verdict, len(q)), make([]classify.Verdict, len(q))
			got.Classify(q, x)
			want.Classify(p, y)
			for i := range x {
				a, b := gotCauses[got.Cause(x[i])], wantCauses[want.Cause(y[i])]
				if a != b || x[i].Allowed() != y[i].Allowed() || x[i].Audit() != y[i].Audit() || x[i].Log() != y[i].Log() {
					return fmt.Sprintf("%s %s, remote %s, protocol %d port %d: allowed %v audit %v log %v by %s, want %v %v %v by %s",
						dir, e, q[i].Remote.Netip(), q[i].Proto, q[i].Port, x[i].Allowed(), x[i].Audit(), x[i].Log(), a,
						y[i].Allowed(), y[i].Audit(), y[i].Log(), b)
				}
			}
		}
	}
	return ""
}

func texts(t *classify.Table) []string {
	var out []string
	for _, c := range t.Set().Causes {
		out = append(out, fmt.Sprint(c))
	}
	return out
}

// updateSeed changes a random world step by step and compares, after each
// step, what the Publisher's table says with one that is made from nothing, and
// which endpoints got another generation with a Compiler that compiles all
// of it each time.
func updateSeed(t testing.TB, seed uint64, steps int) (updates int) {
	r := rand.New(rand.NewPCG(seed, 3))
	w := &world{cluster: randomCluster(r), st: store.New(), domains: randomDomains(r)}
	w.fill(t, w.st)
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	pub, whole := publish.New(compile.Config{}), compile.New(compile.Config{})
	var current atomic.Pointer[classify.Table]
	stop := readers(&current)
	defer stop()
	var before, wholeBefore map[string]uint32
	var last *classify.Table
	for step := range steps {
		var table *classify.Table
		var fresh, again *rule.Set
		w.st.Read(func(v store.View) {
			var err error
			if table, err = pub.Next(w.input(v)); err != nil {
				t.Fatal(err)
			}
			fresh, again = compile.New(compile.Config{}).Compile(w.input(v)), whole.Compile(w.input(v))
		})
		if last != nil && table != last {
			updates++
		}
		last = table
		current.Store(table)
		checkForm(t, fresh)
		scratch, err := classify.Build(fresh)
		if err != nil {
			t.Fatal(err)
		}
		if d := differ(table, scratch, w.endpoints()); d != "" {
			t.Fatalf("step %d: after an update: %s", step, d)
		}
		after, wholeAfter := generations(table.Set(), w.endpoints()), generations(again, w.endpoints())
		for name, gen := range after {
			if _, known := before[name]; known && (gen != before[name]) != (wholeAfter[name] != wholeBefore[name]) {
				t.Fatalf("step %d: generation of %s went from %d to %d, with a whole compile from %d to %d",
					step, name, before[name], gen, wholeBefore[name], wholeAfter[name])
			}
		}
		before, wholeBefore = after, wholeAfter
		w.change(t, r, step)
	}
	return updates
}

// generations are keyed by slot and pod: another pod in the slot is another.
func generations(set *rule.Set, endpoints []endpoint.Endpoint) map[string]uint32 {
	out := map[string]uint32{}
	for i, e := range endpoints {
		out[fmt.Sprint(e.ID, e.String())] = set.Endpoints[i].Generation
	}
	return out
}

// readers classify with whatever table is current until stop is called: tables
// share memory with those that come after them.
func readers(current *atomic.Pointer[classify.Table]) (stop func()) {
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		q, out := make([]classify.Query, 64), make([]classify.Verdict, 64)
		for i := 0; !done.Load(); i++ {
			table := current.Load()
			if table == nil {
				continue
			}
			for k := range q {
				a := someAddrs[(i+k)%len(someAddrs)]
				q[k] = classify.Query{Remote: packet.AddrFrom(a), Row: table.Row(endpoint.ID(k%12), rule.Direction(i&1)),
					Proto: 6, Port: uint16(somePorts[i%len(somePorts)])}
			}
			table.Classify(q, out)
		}
	})
	return func() {
		done.Store(true)
		wg.Wait()
	}
}

func TestUpdateEqualsCompile(t *testing.T) {
	runs := uint64(60)
	if testing.Short() {
		runs = 8
	}
	updates := 0
	for seed := range runs {
		updates += updateSeed(t, seed, 25)
	}
	if updates < int(runs)*10 {
		t.Errorf("%d updates in %d runs", updates, runs)
	}
}

func FuzzUpdateEqualsCompile(f *testing.F) {
	f.Add(uint64(1 << 40))
	f.Fuzz(func(t *testing.T, seed uint64) { updateSeed(t, seed, 12) })
}

// What a policy denies is denied to a pod that starts when its namespace is no audit
// any more, though the last pod that the policy selects has gone while it was one.
func TestUpdateAudit(t *testing.T) {
	st, c := store.New(), compile.New(compile.Config{})
	set := func(audit bool, names ...string) {
		st.Update(func(tx *store.Tx) {
			tx.SetNamespace(&store.Namespace{Name: "a", Audit: audit})
			tx.DeletePod(store.Key{Namespace: "a", Name: "x"})
			for _, name := range names {
				tx.SetPod(&store.Pod{Namespace: "a", Name: name, NodeName: node, IPs: addrs("10.0.0.1")})
			}
		})
	}
	st.Update(func(tx *store.Tx) {
		p := &policy.Policy{Origin: policy.Origin{Kind: "Any", Namespace: "a", Name: "p"}, Tier: policy.TierAdmin,
			Subject: []*policy.Selector{policy.NewSelector(policy.SelectorSpec{Kind: policy.KindPod, Namespace: "a"})}}
		p.Ingress = policy.Section{Applies: true, Rules: []policy.Rule{{Action: policy.Deny, AnyPeer: true, AnyPort: true}}}
		tx.SetPolicy(p)
	})
	ends := func(name string) []endpoint.Endpoint { return []endpoint.Endpoint{{ID: 1, Namespace: "a", Name: name}} }
	update := func(endpoints []endpoint.Endpoint) (d rule.Delta) {
		st.Read(func(v store.View) {
			var ok bool
			if d, ok = c.Update(compile.Input{View: v, Node: node, Endpoints: endpoints}); !ok {
				t.Fatal("a new Set is due")
			}
		})
		return d
	}
	set(true, "x")
	compileNow(c, st, ends("x"))
	set(true)
	update(nil)
	set(false)
	update(nil)
	set(false, "y")
	d := update(ends("y"))
	denies := 0
	for _, p := range d.Programs {
		p.EachRule(func(r *rule.Rule) {
			if r.Action == rule.Deny {
				denies++
				if r.Audit {
					t.Error("a denial is an audit's")
				}
			}
		})
	}
	if denies != 1 {
		t.Errorf("%d denials, want one", denies)
	}
}

// A pod gets the address that a name resolves to at the same time: whoever asks who
// has the address knows of it.
func TestUpdateTakenName(t *testing.T) {
	all := netip.MustParsePrefix("0.0.0.0/0")
	name := policy.NewName("*.test", `^.*[.]test[.]$`)
	for what, r := range map[string]policy.Rule{
		"who is nobody":          {AnyPort: true, Peers: []policy.Peer{{Block: &policy.Block{Prefix: all, Unmanaged: true}}}},
		"who is nobody, by name": {AnyPort: true, Peers: []policy.Peer{{Name: &name}}},
		"who calls a port so":    {Ports: []policy.Port{{Name: "web"}}, Peers: []policy.Peer{{Block: &policy.Block{Prefix: all}}}},
	} {
		t.Run(what, func(t *testing.T) {
			st, pub := store.New(), publish.New(compile.Config{})
			set := func(name, node string, a netip.Addr) {
				st.Update(func(tx *store.Tx) {
					tx.SetPod(&store.Pod{Namespace: "a", Name: name, NodeName: node, IPs: []netip.Addr{a},
						Ports: []store.NamedPort{{Name: "web", Protocol: 6, Port: uint16(somePorts[0])}}})
				})
			}
			anybody := policy.NewSelector(policy.SelectorSpec{Kind: policy.KindPod})
			p := &policy.Policy{Origin: policy.Origin{Kind: "Any", Name: "p"}, Tier: policy.TierAdmin, Subject: []*policy.Selector{anybody}}
			r.Action, r.Index = policy.Allow, 1
			deny := policy.Rule{Action: policy.Deny, Peers: []policy.Peer{{Domain: "a.test"}}, Ports: []policy.Port{{Protocol: 17, To: 65535}}}
			p.Egress = policy.Section{Applies: true, Default: policy.Deny, Rules: []policy.Rule{deny, r}}
			st.Update(func(tx *store.Tx) { tx.SetPolicy(p) })
			set("x", node, addrs("10.9.0.1")[0])
			set("y", "other", someAddrs[2])
			endpoints := []endpoint.Endpoint{{ID: 1, Namespace: "a", Name: "x"}}
			domains := map[string][]netip.Addr{}
			next := func(heard ...string) {
				st.Read(func(v store.View) {
					in := compile.Input{View: v, Node: node, Endpoints: endpoints, Domains: domains, Heard: heard}
					table, err := pub.Next(in)
					if err != nil {
						t.Fatal(err)
					}
					scratch, err := classify.Build(compile.New(compile.Config{}).Compile(in))
					if err != nil {
						t.Fatal(err)
					}
					if d := differ(table, scratch, endpoints); d != "" {
						t.Error(d)
					}
				})
			}
			next()
			domains["a.test"] = someAddrs[:1]
			set("z", "other", someAddrs[0])
			next("a.test")
			delete(domains, "a.test")
			st.Update(func(tx *store.Tx) { tx.DeletePod(store.Key{Namespace: "a", Name: "z"}) })
			next("a.test")
		})
	}
}

// TestDelta says what a change costs: of what does not change, a Delta says
// nothing, and of what concerns nobody here it is empty.
func TestDelta(t *testing.T) {
	tests := []struct {
		name   string
		change func(*store.Tx)
		want   string
	}{
		{"nothing", func(*store.Tx) {}, ""},
		{"a pod of a namespace that no policy names", func(tx *store.Tx) { tx.SetPod(benchPod(1<<20, "elsewhere", false)) }, ""},
		{"a policy of another namespace", func(tx *store.Tx) { tx.SetPolicy(converted(benchPolicy(99, "elsewhere"))) }, ""},
		{"a pod with known labels", func(tx *store.Tx) { tx.SetPod(benchPod(311, "ns-0", false)) }, "bind 2 endpoints"},
		{"a pod with labels never seen", func(tx *store.Tx) {
			p := benchPod(312, "ns-0", false)
			p.Labels["pod-template-hash"] = "new"
			tx.SetPod(p)
		}, "bind 2 endpoints"},
		{"a pod goes", func(tx *store.Tx) { tx.DeletePod(store.Key{Namespace: "ns-0", Name: "pod-1"}) }, "unbind 2 endpoints"},
		{"a policy goes", func(tx *store.Tx) {
			tx.DeletePolicy(policy.Origin{Kind: "NetworkPolicy", Namespace: "ns-0", Name: "np-0"})
		}, "programs endpoints causes"},
		{"a policy that names a block", func(tx *store.Tx) {
			np := benchPolicy(0, "ns-0")
			np.Spec.Ingress[1].From[0].IPBlock.CIDR = "172.20.0.0/16"
			tx.SetPolicy(converted(np))
		}, "programs endpoints blocks"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st, endpoints := large(300, 20, 30)
			c := compile.New(compile.Config{})
			compileNow(c, st, endpoints)
			st.Update(tt.change)
			st.Read(func(v store.View) {
				d, ok := c.Update(compile.Input{View: v, Node: node, Endpoints: endpoints})
				if got := describe(&d); !ok || got != tt.want || d.Empty() != (tt.want == "") {
					t.Errorf("delta %q (%v), want %q", got, ok, tt.want)
				}
				if d, ok = c.Update(compile.Input{View: v, Node: node, Endpoints: endpoints}); !ok || !d.Empty() {
					t.Errorf("nothing changed since, and the delta is %q", describe(&d))
				}
			})
		})
	}
}

func describe(d *rule.Delta) string {
	var out []string
	add := func(s string, has bool) {
		if has {
			out = append(out, s)
		}
	}
	add(fmt.Sprint("bind ", len(d.Bind)), len(d.Bind) > 0)
	add(fmt.Sprint("unbind ", len(d.Unbind)), len(d.Unbind) > 0)
	add("programs", d.Programs != nil)
	add("endpoints", d.Endpoints != nil)
	add("blocks", d.Blocks != nil)
	add("causes", d.Causes != nil)
	return strings.Join(out, " ")
}

func converted(np *networkingv1.NetworkPolicy) *policy.Policy {
	p, _ := networkpolicy.Convert(np)
	return p
}

// TestForgetsNames edits a policy again and again, each time with the name of a
// port that nobody has, or of a Service that there is not: no peer comes of it, and
// what is remembered of it has to go at some time.
func TestForgetsNames(t *testing.T) {
	all := policy.NewSelector(policy.SelectorSpec{Namespace: "a"})
	for what, rule := range map[string]func(name string) policy.Rule{
		"port": func(name string) policy.Rule {
			return policy.Rule{Action: policy.Allow, Peers: []policy.Peer{{Selector: all}}, Ports: []policy.Port{{Name: name}}}
		},
		"Service": func(name string) policy.Rule {
			return policy.Rule{Action: policy.Allow, Peers: []policy.Peer{{Services: &policy.ServicePods{Namespace: "a", Name: name}}}, AnyPort: true}
		},
	} {
		st := store.New()
		st.Update(func(tx *store.Tx) { tx.SetPod(&store.Pod{Namespace: "a", Name: "x", IPs: addrs("10.0.0.1")}) })
		c := compile.New(compile.Config{})
		endpoints := []endpoint.Endpoint{{ID: 1, Namespace: "a", Name: "x"}}
		compileNow(c, st, endpoints)
		due := false
		for i := 0; i < 5000 && !due; i++ {
			st.Update(func(tx *store.Tx) {
				tx.SetPolicy(&policy.Policy{Origin: policy.Origin{Kind: "Any", Name: "p"}, Tier: policy.TierAdmin, Subject: []*policy.Selector{all},
					Egress: policy.Section{Applies: true, Rules: []policy.Rule{rule(fmt.Sprint("name", i))}}})
			})
			st.Read(func(v store.View) {
				_, ok := c.Update(compile.Input{View: v, Node: node, Endpoints: endpoints})
				due = !ok
			})
		}
		if !due {
			t.Errorf("5000 names of a %s are remembered", what)
		}
	}
}
