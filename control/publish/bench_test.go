package publish_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/networkpolicy"
	"github.com/sluice-net/sluice/control/publish"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
)

// The cluster of the benchmark.
const (
	pods       = 50000
	policies   = 10000
	local      = 250
	namespaces = 500
	apps       = 10
	node       = "n1"
)

func nsName(i int) string { return fmt.Sprintf("ns-%d", i%namespaces) }

// pod i is one of a namespace's apps; dual-stack, on a node of 200 pods.
func pod(i int, labels ...string) *store.Pod {
	host, at := i/200, byte(2+i%200)
	p := &store.Pod{Namespace: nsName(i), Name: fmt.Sprintf("pod-%d", i), NodeName: fmt.Sprintf("other-%d", host),
		Labels: map[string]string{"app": fmt.Sprintf("app-%d", i/namespaces%apps), "version": fmt.Sprint(i / namespaces / apps % 3)},
		IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(host >> 8), byte(host), at}),
			netip.AddrFrom16([16]byte{0: 0xfd, 5: 1, 6: byte(host >> 8), 7: byte(host), 15: at})},
		Ports: []store.NamedPort{{Name: "http", Protocol: policy.TCP, Port: 8080}}}
	for _, l := range labels {
		p.Labels[l] = l
	}
	return p
}

// networkPolicy i selects an app of a namespace: in from two apps, a namespace
// and a block, and every third one out to an app's port by its name.
func networkPolicy(i int, cidr string) *policy.Policy {
	app := func(n int) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("app-%d", n%apps)}}
	}
	other := &metav1.LabelSelector{MatchLabels: map[string]string{store.NameLabel: nsName(i * 7)}}
	http, sql := intstr.FromString("http"), intstr.FromInt32(5432)
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: nsName(i), Name: fmt.Sprintf("np-%d", i)}}
	np.Spec.PodSelector = *app(i / namespaces)
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{
		{From: []networkingv1.NetworkPolicyPeer{{PodSelector: app(i + 1)}, {PodSelector: app(i + 3), NamespaceSelector: other}}, Ports: []networkingv1.NetworkPolicyPort{{Port: &http}, {Port: &sql}}},
		{From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: cidr}}}},
	}
	if i%3 == 0 {
		np.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{
			{To: []networkingv1.NetworkPolicyPeer{{PodSelector: app(i + 2)}}, Ports: []networkingv1.NetworkPolicyPort{{Port: &http}}}}
	}
	p, _ := networkpolicy.Convert(np)
	return p
}

func cidr(i int) string { return fmt.Sprintf("172.%d.%d.0/24", 16+i>>8%16, i%256) }

// cluster is a store with an agent's place in it.
type cluster struct {
	st        *store.Store
	endpoints []endpoint.Endpoint
	publisher *publish.Publisher
	current   atomic.Pointer[classify.Table] // as the dataplane's snapshot
}

func newCluster(b *testing.B) *cluster {
	c := &cluster{st: store.New(), publisher: publish.New(compile.Config{})}
	c.st.Update(func(tx *store.Tx) {
		for i := range namespaces {
			tx.SetNamespace(&store.Namespace{Name: nsName(i)})
		}
		for i := range pods {
			p := pod(i)
			if isLocal(i) {
				p.NodeName = node
				c.endpoints = append(c.endpoints, endpoint.Endpoint{ID: endpoint.ID(len(c.endpoints) + 1), Namespace: p.Namespace, Name: p.Name})
			}
			tx.SetPod(p)
		}
		for i := range policies {
			tx.SetPolicy(networkPolicy(i, cidr(i)))
		}
	})
	c.publish(b)
	return c
}

func (c *cluster) publish(b *testing.B) {
	c.st.Read(func(v store.View) {
		t, err := c.publisher.Next(compile.Input{View: v, Endpoints: c.endpoints, Node: node})
		if err != nil {
			b.Fatal(err)
		}
		c.current.Store(t)
	})
}

// isLocal spreads local pods over namespaces and apps.
func isLocal(i int) bool { return i*7919%pods < local }

// locals are the numbers of the local pods.
var locals = func() (out []int) {
	for i := range pods {
		if isLocal(i) {
			out = append(out, i)
		}
	}
	return out
}()

// like returns the number of a new pod of an app that a policy of a local pod
// lets in.
func like(n int) int {
	i := localPolicy(n)
	return pods + (i+1)%apps*namespaces + i%namespaces + n/local*namespaces*apps
}

// localPolicy is the number of a policy that selects a local pod.
func localPolicy(n int) int { return locals[n%local] % (namespaces * apps) }

// BenchmarkPublish measures changes from the store to the table that lookups
// use, with what they cost at the median and at the 99th percentile.
func BenchmarkPublish(b *testing.B) {
	changes := []struct {
		name   string
		change func(tx *store.Tx, n int)
	}{
		{"pod-known-labels", func(tx *store.Tx, n int) { tx.SetPod(pod(like(n))) }},
		{"pod-of-others", func(tx *store.Tx, n int) { tx.SetPod(pod(pods + n*7919%200000)) }},
		{"pod-new-labels", func(tx *store.Tx, n int) { tx.SetPod(pod(like(n), fmt.Sprint("hash-", n))) }},
		{"pod-removed", func(tx *store.Tx, n int) {
			tx.DeletePod(pod(like(n) % pods).Key())
		}},
		{"policy-of-others", func(tx *store.Tx, n int) { tx.SetPolicy(networkPolicy(n*7%policies, "192.0.2.0/24")) }},
		{"policy-peers", func(tx *store.Tx, n int) {
			i := localPolicy(n)
			p := networkPolicy(i+n%7*3*namespaces*apps, cidr(i))
			p.Origin = networkPolicy(i, cidr(i)).Origin
			tx.SetPolicy(p)
		}},
		{"policy-cidr", func(tx *store.Tx, n int) { tx.SetPolicy(networkPolicy(localPolicy(n), cidr(n+1<<11))) }},
	}
	for _, c := range changes {
		b.Run(c.name, func(b *testing.B) {
			cl := newCluster(b)
			var took []time.Duration
			before, made := cl.current.Load(), 0
			b.ReportAllocs()
			b.ResetTimer()
			for n := range b.N {
				start := time.Now()
				cl.st.Update(func(tx *store.Tx) { c.change(tx, n) })
				cl.publish(b)
				took = append(took, time.Since(start))
				if t := cl.current.Load(); t != before {
					before = t
					made++
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-µs")
			b.ReportMetric(float64(made)/float64(b.N), "tables")
		})
	}
	b.Run("first", func(b *testing.B) {
		cl := newCluster(b)
		for b.Loop() {
			cl.publisher = publish.New(compile.Config{})
			cl.publish(b)
		}
	})
}
