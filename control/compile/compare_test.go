package compile_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/networkpolicy"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

var update = flag.Bool("update", false, "rewrite golden files")

var numbersOf = map[corev1.Protocol]policy.Protocol{
	corev1.ProtocolTCP: policy.TCP, corev1.ProtocolUDP: policy.UDP, corev1.ProtocolSCTP: policy.SCTP, "ICMP": policy.ICMP,
}

// node is the one whose pods are the endpoints.
const node = "n1"

func storePod(p *corev1.Pod) *store.Pod {
	out := &store.Pod{Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Labels: p.Labels,
		NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork}
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		out.Phase = store.Finished
	}
	for _, ip := range p.Status.PodIPs {
		out.IPs = append(out.IPs, netip.MustParseAddr(ip.IP))
	}
	for _, c := range p.Spec.Containers {
		for _, cp := range c.Ports {
			out.Ports = append(out.Ports, store.NamedPort{Name: cp.Name, Protocol: numbersOf[cp.Protocol], Port: uint16(cp.ContainerPort)})
		}
	}
	return out
}

func storeNode(n *corev1.Node) *store.Node {
	out := &store.Node{Name: n.Name, Labels: n.Labels}
	for _, a := range n.Status.Addresses {
		out.Addrs = append(out.Addrs, netip.MustParseAddr(a.Address))
	}
	return out
}

// fill puts a cluster into a store; what the store has besides stays.
func (c *cluster) fill(t testing.TB, st *store.Store) {
	st.Update(func(tx *store.Tx) {
		for name, labels := range c.namespaces {
			tx.SetNamespace(&store.Namespace{Name: name, Labels: labels, Audit: c.audited[name]})
		}
		for _, n := range c.nodes {
			tx.SetNode(storeNode(n))
		}
		for _, p := range c.pods {
			tx.SetPod(storePod(p))
		}
		for _, np := range c.policies {
			p, rejections := networkpolicy.Convert(np)
			if len(rejections) > 0 {
				t.Fatalf("convert %s/%s: %v", np.Namespace, np.Name, rejections)
			}
			tx.SetPolicy(p)
		}
	})
}

// endpoints are the pods of node, in the order of the cluster.
func (c *cluster) endpoints() []endpoint.Endpoint {
	var out []endpoint.Endpoint
	for i, p := range c.pods {
		if p.Spec.NodeName == node && !p.Spec.HostNetwork {
			out = append(out, endpoint.Endpoint{ID: endpoint.ID(i + 1), Namespace: p.Namespace, Name: p.Name})
		}
	}
	return out
}

func compileNow(c *compile.Compiler, st *store.Store, endpoints []endpoint.Endpoint) *rule.Set {
	var set *rule.Set
	st.Read(func(v store.View) {
		set = c.Compile(compile.Input{View: v, Node: node, Endpoints: endpoints})
	})
	return set
}

// compare asks set, Explain and the oracle the same questions.
func (c *cluster) compare(t testing.TB, st *store.Store, set *rule.Set, r *rand.Rand, queries int) {
	t.Helper()
	endpoints := c.endpoints()
	if len(endpoints) == 0 {
		return
	}
	for range queries {
		e := pick(r, endpoints)
		pod := c.pods[e.ID-1]
		dir := rule.Direction(r.IntN(2))
		remote := pick(r, someAddrs)
		proto := pick(r, someProtocols)
		port := uint16(pick(r, somePorts) + int32(r.IntN(3)) - 1)
		want := c.judge(dir, pod, remote, proto, port)

		action, audit, _, cause := ruletest.Evaluate(set, e.ID, dir, remote, uint8(numbersOf[proto]), port)
		got := verdict{action == rule.Allow, audit, set.Causes[cause].Refs}
		what := fmt.Sprintf("%s %s, remote %s, %s %d", dir, e, remote, proto, port)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: the Set says %+v, the oracle %+v", what, got, want)
		}
		c.compareExplain(t, st, e, dir, remote, proto, port, want, what)
	}
}

func (c *cluster) compareExplain(t testing.TB, st *store.Store, e endpoint.Endpoint, dir rule.Direction, remote netip.Addr,
	proto corev1.Protocol, port uint16, want verdict, what string) {
	t.Helper()
	self, other := resolve.End{Pod: store.Key{Namespace: e.Namespace, Name: e.Name}}, resolve.End{Addr: remote}
	pod := c.pods[e.ID-1]
	if has(pod, remote) {
		return // the pod itself
	}
	q := resolve.Query{Src: other, Dst: self, Protocol: numbersOf[proto], Port: port}
	if dir == rule.Egress {
		q.Src, q.Dst = self, other
	}
	var d resolve.Decision
	var err error
	st.Read(func(v store.View) { d, err = resolve.Explain(v, q, resolve.World{}) })
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	j := d.Ingress
	if dir == rule.Egress {
		j = d.Egress
	}
	got := verdict{j.Action == rule.Allow || j.Audit, j.Audit, j.Refs}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s: Explain says %+v, the oracle %+v", what, got, want)
	}
}

// dump describes a cluster for a failure.
func (c *cluster) dump(t testing.TB) {
	for _, p := range c.pods {
		t.Logf("pod %s/%s %v ips %v host %v phase %v node %s", p.Namespace, p.Name, p.Labels, p.Status.PodIPs, p.Spec.HostNetwork, p.Status.Phase, p.Spec.NodeName)
	}
	for _, np := range c.policies {
		t.Logf("policy %s/%s %+v", np.Namespace, np.Name, np.Spec)
	}
}

func compareSeed(t testing.TB, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	c := randomCluster(r)
	st := store.New()
	c.fill(t, st)
	set := compileNow(compile.New(compile.Config{}), st, c.endpoints())
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
			c.dump(t)
		}
	}()
	checkForm(t, set)
	c.compare(t, st, set, r, 200)
}

// checkForm checks what package rule promises about every Set.
func checkForm(t testing.TB, set *rule.Set) {
	t.Helper()
	if !slices.IsSortedFunc(set.Addresses, func(a, b rule.Address) int {
		return a.Addr.Compare(b.Addr)
	}) {
		t.Fatal("addresses are not sorted")
	}
	for i := 1; i < len(set.Addresses); i++ {
		if set.Addresses[i-1].Addr == set.Addresses[i].Addr {
			t.Fatalf("address %s comes twice", set.Addresses[i].Addr)
		}
	}
	for _, id := range set.Identities {
		if len(id) == 0 || !slices.IsSorted(id) || int(id[len(id)-1]) >= set.Peers {
			t.Fatalf("identity %v of %d peers", id, set.Peers)
		}
	}
	for _, e := range set.Endpoints {
		if e.Generation == 0 || int(e.Ingress) >= len(set.Programs) || int(e.Egress) >= len(set.Programs) {
			t.Fatalf("endpoint %+v", e)
		}
	}
	for i := range set.Programs {
		for j := range i {
			if reflect.DeepEqual(set.Programs[i], set.Programs[j]) {
				t.Fatalf("programs %d and %d are equal", i, j)
			}
		}
	}
}

func TestSetEqualsOracle(t *testing.T) {
	clusters := uint64(1500)
	if testing.Short() {
		clusters = 200
	}
	for seed := range clusters {
		compareSeed(t, seed)
	}
}

func FuzzSetEqualsOracle(f *testing.F) {
	f.Add(uint64(1 << 40))
	f.Fuzz(func(t *testing.T, seed uint64) { compareSeed(t, seed) })
}
