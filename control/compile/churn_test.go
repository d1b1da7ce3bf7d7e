package compile_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

// verdictsOf evaluates an endpoint for every address and interesting port.
func verdictsOf(set *rule.Set, id endpoint.ID) string {
	var b []byte
	for _, a := range someAddrs {
		for _, proto := range someProtocols {
			for _, port := range somePorts {
				for _, dir := range []rule.Direction{rule.Ingress, rule.Egress} {
					action, audit, _, _ := ruletest.Evaluate(set, id, dir, a, uint8(numbersOf[proto]), uint16(port))
					b = append(b, byte('0'+action))
					if audit {
						b = append(b, 'a')
					}
				}
			}
		}
	}
	return string(b)
}

// churn changes one thing of a cluster, and the store with it.
func (c *cluster) churn(t testing.TB, r *rand.Rand, st *store.Store, step int) {
	switch r.IntN(9) {
	case 0:
		c.pods = append(c.pods, randomPod(r, fmt.Sprintf("new%d", step)))
	case 1:
		if len(c.pods) > 0 {
			i := r.IntN(len(c.pods))
			p := c.pods[i]
			st.Update(func(tx *store.Tx) { tx.DeletePod(store.Key{Namespace: p.Namespace, Name: p.Name}) })
			// Endpoint IDs are positions: the last pod takes the slot.
			c.pods[i] = c.pods[len(c.pods)-1]
			c.pods = c.pods[:len(c.pods)-1]
		}
	case 2:
		if len(c.pods) > 0 {
			i := r.IntN(len(c.pods))
			p := c.pods[i].DeepCopy()
			p.Labels = randomLabels(r)
			c.pods[i] = p
		}
	case 3:
		ns := pick(r, someNamespaces)
		c.namespaces[ns] = randomLabels(r)
	case 4:
		c.policies = append(c.policies, randomPolicy(r, fmt.Sprintf("new%d", step)))
		c.sort()
	case 5:
		if len(c.policies) > 0 {
			i := r.IntN(len(c.policies))
			np := c.policies[i]
			st.Update(func(tx *store.Tx) {
				tx.DeletePolicy(policy.Origin{Kind: "NetworkPolicy", Namespace: np.Namespace, Name: np.Name})
			})
			c.policies = append(c.policies[:i], c.policies[i+1:]...)
		}
	case 6:
		n := c.nodes[r.IntN(len(c.nodes))].DeepCopy()
		n.Status.Addresses[0].Address = fmt.Sprintf("192.168.0.%d", 1+r.IntN(3))
		c.nodes[slices.IndexFunc(c.nodes, func(x *corev1.Node) bool { return x.Name == n.Name })] = n
	case 7:
		if ns := pick(r, someNamespaces); c.namespaces[ns] != nil {
			c.audited[ns] = !c.audited[ns]
		}
	case 8:
		if len(c.pods) > 0 {
			i := r.IntN(len(c.pods))
			p, donor := c.pods[i].DeepCopy(), randomPod(r, "donor")
			p.Spec, p.Status = donor.Spec, donor.Status
			c.pods[i] = p
		}
	}
	c.fill(t, st)
}

// TestChurn checks after each random change that a Compiler with a history
// says what a new one says, and that an endpoint's generation changes if any
// of its verdicts does.
func TestChurn(t *testing.T) {
	runs := uint64(40)
	if testing.Short() {
		runs = 8
	}
	kept := 0
	for seed := range runs {
		r := rand.New(rand.NewPCG(seed, 2))
		c := randomCluster(r)
		st := store.New()
		c.fill(t, st)
		compiler := compile.New(compile.Config{})
		type state struct {
			pod        string
			generation uint32
			verdicts   string
		}
		before := map[endpoint.ID]state{}
		for step := range 25 {
			set := compileNow(compiler, st, c.endpoints())
			fresh := compileNow(compile.New(compile.Config{}), st, c.endpoints())
			if got, want := render(set), render(fresh); got != want {
				t.Fatalf("seed %d step %d: the Compiler with a history says\n%s\na new one says\n%s", seed, step, got, want)
			}
			checkForm(t, set)
			c.compare(t, st, set, r, 20)
			after := map[endpoint.ID]state{}
			for i, e := range c.endpoints() {
				s := state{e.String(), set.Endpoints[i].Generation, verdictsOf(set, e.ID)}
				after[e.ID] = s
				old, ok := before[e.ID]
				if ok && (old.pod != s.pod || old.verdicts != s.verdicts) && old.generation == s.generation {
					t.Fatalf("seed %d step %d: verdicts of %s changed, its generation did not", seed, step, e)
				}
				if ok && old.generation == s.generation {
					kept++
				}
			}
			before = after
			c.churn(t, r, st, step)
		}
	}
	if kept == 0 {
		t.Error("every change gave every endpoint a new generation")
	}
}

// TestUnrelatedChurn lists changes that concern the endpoint a/web, and
// changes that don't.
func TestUnrelatedChurn(t *testing.T) {
	pod := func(ns, name, app, ip string) *store.Pod {
		p := &store.Pod{Namespace: ns, Name: name, Labels: map[string]string{"app": app}, NodeName: "n2"}
		if ip != "" {
			p.IPs = addrs(ip)
		}
		return p
	}
	allow := func(ns, name, subject, from string) *policy.Policy {
		sel := func(app string) *policy.Selector {
			return policy.NewSelector(policy.SelectorSpec{Namespace: ns,
				Labels: []policy.Requirement{{Key: "app", Values: []string{app}}}})
		}
		return &policy.Policy{Origin: policy.Origin{Kind: "NetworkPolicy", Namespace: ns, Name: name},
			Tier: policy.TierNetworkPolicy, Subject: []*policy.Selector{sel(subject)},
			Ingress: policy.Section{Applies: true, Default: policy.Deny, Rules: []policy.Rule{
				{Action: policy.Allow, AnyPort: true, Peers: []policy.Peer{{Selector: sel(from)}}}}}}
	}
	named := pod("a", "client2", "client", "10.0.0.9")
	named.Ports = []store.NamedPort{{Name: "http", Protocol: policy.TCP, Port: 80}}
	tests := []struct {
		name    string
		change  func(*store.Tx)
		changes bool
	}{
		{"nothing", func(tx *store.Tx) {}, false},
		{"a pod that no peer selects", func(tx *store.Tx) { tx.SetPod(pod("a", "other", "other", "10.0.0.20")) }, false},
		{"a pod of another namespace", func(tx *store.Tx) { tx.SetPod(pod("b", "client", "client", "10.0.0.21")) }, false},
		{"a policy of another namespace", func(tx *store.Tx) { tx.SetPolicy(allow("b", "x", "web", "client")) }, false},
		{"a policy of another pod", func(tx *store.Tx) { tx.SetPolicy(allow("a", "x", "db", "client")) }, false},
		{"an equal policy", func(tx *store.Tx) { tx.SetPolicy(allow("a", "x", "web", "client")) }, false},
		{"labels of another namespace", func(tx *store.Tx) {
			tx.SetNamespace(&store.Namespace{Name: "b", Labels: map[string]string{"k": "v"}})
		}, false},
		{"labels of the namespace that no selector looks at", func(tx *store.Tx) {
			tx.SetNamespace(&store.Namespace{Name: "a", Labels: map[string]string{"k": "v"}})
		}, false},
		{"a peer without an address", func(tx *store.Tx) { tx.SetPod(pod("a", "client2", "client", "")) }, false},
		{"another node", func(tx *store.Tx) { tx.SetNode(&store.Node{Name: "n9", Addrs: addrs("192.168.9.9")}) }, false},
		{"a peer that gets a port name nobody uses", func(tx *store.Tx) {
			p := pod("a", "client", "client", "10.0.0.2")
			p.Ports = named.Ports
			tx.SetPod(p)
		}, false},
		{"a peer appears", func(tx *store.Tx) { tx.SetPod(pod("a", "client2", "client", "10.0.0.9")) }, true},
		{"a peer goes", func(tx *store.Tx) { tx.DeletePod(store.Key{Namespace: "a", Name: "client"}) }, true},
		{"a peer moves", func(tx *store.Tx) { tx.SetPod(pod("a", "client", "client", "10.0.0.10")) }, true},
		{"a peer gets a second address", func(tx *store.Tx) {
			p := pod("a", "client", "client", "10.0.0.2")
			p.IPs = addrs("10.0.0.2", "fd00::2")
			tx.SetPod(p)
		}, true},
		{"a peer finishes", func(tx *store.Tx) {
			p := pod("a", "client", "client", "10.0.0.2")
			p.Phase = store.Finished
			tx.SetPod(p)
		}, true},
		{"a peer changes its labels", func(tx *store.Tx) { tx.SetPod(pod("a", "client", "other", "10.0.0.2")) }, true},
		{"another rule", func(tx *store.Tx) { tx.SetPolicy(allow("a", "x", "web", "other")) }, true},
		{"the policy goes", func(tx *store.Tx) {
			tx.DeletePolicy(policy.Origin{Kind: "NetworkPolicy", Namespace: "a", Name: "web"})
		}, true},
		{"the namespace becomes an audit", func(tx *store.Tx) { tx.SetNamespace(&store.Namespace{Name: "a", Audit: true}) }, true},
		{"the node gets another address", func(tx *store.Tx) { tx.SetNode(&store.Node{Name: node, Addrs: addrs("192.168.0.7")}) }, true},
		{"the pod itself changes its labels", func(tx *store.Tx) { tx.SetPod(pod("a", "web", "free", "10.0.0.1")) }, true},
		{"the pod itself goes", func(tx *store.Tx) { tx.DeletePod(store.Key{Namespace: "a", Name: "web"}) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := store.New()
			st.Update(func(tx *store.Tx) {
				tx.SetNode(&store.Node{Name: node, Addrs: addrs("192.168.0.1")})
				tx.SetPod(pod("a", "web", "web", "10.0.0.1"))
				tx.SetPod(pod("a", "client", "client", "10.0.0.2"))
				tx.SetPod(pod("b", "web", "web", "10.0.1.1"))
				tx.SetPolicy(allow("a", "web", "web", "client"))
			})
			endpoints := []endpoint.Endpoint{{ID: 3, Namespace: "a", Name: "web"}}
			c := compile.New(compile.Config{})
			before := compileNow(c, st, endpoints)
			st.Update(tt.change)
			after := compileNow(c, st, endpoints)
			if changed := before.Endpoints[0].Generation != after.Endpoints[0].Generation; changed != tt.changes {
				t.Errorf("generation changed: %v, want %v", changed, tt.changes)
			}
			if before.Generation >= after.Generation {
				t.Errorf("Set generation went from %d to %d", before.Generation, after.Generation)
			}
		})
	}
}

func TestEndpointGenerations(t *testing.T) {
	st := store.New()
	st.Update(func(tx *store.Tx) {
		tx.SetPod(&store.Pod{Namespace: "a", Name: "x", UID: "1", IPs: addrs("10.0.0.1")})
		tx.SetPod(&store.Pod{Namespace: "a", Name: "y", UID: "2", IPs: addrs("10.0.0.2")})
	})
	x := endpoint.Endpoint{ID: 1, Namespace: "a", Name: "x", UID: "1"}
	y := endpoint.Endpoint{ID: 1, Namespace: "a", Name: "y", UID: "2"}
	c := compile.New(compile.Config{Generation: 10, EndpointGeneration: 1<<32 - 1})
	seen := map[uint32]string{}
	for i, endpoints := range [][]endpoint.Endpoint{{x}, {y}, {}, {y}, {x}, {{ID: 1, Namespace: "a", Name: "x", UID: "3"}}} {
		set := compileNow(c, st, endpoints)
		if set.Generation != uint64(11+i) {
			t.Errorf("Set %d has generation %d", i, set.Generation)
		}
		for _, e := range set.Endpoints {
			if e.Generation == 0 || seen[e.Generation] != "" {
				t.Errorf("Set %d: generation %d is 0 or was given before", i, e.Generation)
			}
			seen[e.Generation] = "given"
		}
	}
	if !reflect.DeepEqual(compileNow(c, st, nil).Endpoints, []rule.Endpoint(nil)) {
		t.Error("endpoints out of nothing")
	}
}
