package publish_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/calico"
	"github.com/sluice-net/sluice/control/publish"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// The cluster of Calico's benchmark.
const (
	calicoPods     = 20000
	calicoPolicies = 2000
	calicoTiers    = 10
)

// calicoPolicy i is one of a tier: every tenth is for a whole app in all
// namespaces, the others are for one app of a namespace. All but the last tier
// pass on what they don't decide.
func calicoPolicy(b testing.TB, i int, nets string) *policy.Policy {
	kind, meta := calico.Kind, calico.Policy{}
	meta.Namespace, meta.Name = nsName(i), fmt.Sprintf("p-%d", i)
	if i%10 == 0 {
		kind, meta.Namespace = calico.GlobalKind, ""
	}
	end := `,{"action":"Pass"}`
	if i%calicoTiers == calicoTiers-1 {
		end = ""
	}
	meta.Spec = fmt.Appendf(nil, `{"tier":"t%d","order":%d,"selector":"app == 'app-%d'","types":["Ingress","Egress"],"ingress":[
		{"action":"Deny","source":{"selector":"app == 'app-%d' && version in {'2', '9'}","notNets":[%q]}},
		{"action":"Allow","protocol":"TCP","source":{"namespaceSelector":"projectcalico.org/name == '%s'"},"destination":{"ports":["http","9000:9010"]}}%s],
		"egress":[{"action":"Allow","protocol":"TCP","destination":{"nets":[%q]}}%s]}`,
		i%calicoTiers, i, i/namespaces%apps, (i+3)%apps, nets, nsName(i*7), end, nets, end)
	p, rejections := calico.Convert(kind)(&meta)
	if len(rejections) > 0 {
		b.Fatal(rejections)
	}
	return p
}

func newCalicoCluster(b *testing.B) *cluster {
	c := &cluster{st: store.New(), publisher: publish.New(compile.Config{})}
	c.st.Update(func(tx *store.Tx) {
		for i := range namespaces {
			tx.SetNamespace(&store.Namespace{Name: nsName(i)})
		}
		for i := range calicoTiers {
			tx.SetTier(&store.Tier{Name: fmt.Sprintf("t%d", i), Order: float64(i), Pass: i%2 == 0})
		}
		for i := range 100 {
			tx.SetNetworkSet(&store.NetworkSet{Name: fmt.Sprintf("set-%d", i), Labels: map[string]string{"app": fmt.Sprintf("app-%d", i%apps), "version": "9"},
				CIDRs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("192.168.%d.0/24", i))}})
		}
		for i := range calicoPods {
			p := pod(i)
			if i*7919%calicoPods < local {
				p.NodeName = node
				c.endpoints = append(c.endpoints, endpoint.Endpoint{ID: endpoint.ID(len(c.endpoints) + 1), Namespace: p.Namespace, Name: p.Name})
			}
			tx.SetPod(p)
		}
		for i := range calicoPolicies {
			tx.SetPolicy(calicoPolicy(b, i, cidr(i)))
		}
	})
	c.publish(b)
	return c
}

// BenchmarkPublishCalico is BenchmarkPublish for 2,000 of Calico's policies in
// 10 tiers over 20,000 pods.
func BenchmarkPublishCalico(b *testing.B) {
	for _, c := range []struct {
		name   string
		change func(tx *store.Tx, n int)
	}{
		{"pod-known-labels", func(tx *store.Tx, n int) { tx.SetPod(pod(calicoPods + n)) }},
		{"pod-new-labels", func(tx *store.Tx, n int) { tx.SetPod(pod(calicoPods+n, fmt.Sprint("hash-", n))) }},
		{"policy-nets", func(tx *store.Tx, n int) { tx.SetPolicy(calicoPolicy(b, n%calicoPolicies, cidr(n+1<<11))) }},
		{"tier", func(tx *store.Tx, n int) {
			tx.SetTier(&store.Tier{Name: fmt.Sprintf("t%d", n%calicoTiers), Order: float64(n%calicoTiers) + float64(n%2)/2, Pass: n%2 == 0})
		}},
		{"set", func(tx *store.Tx, n int) {
			tx.SetNetworkSet(&store.NetworkSet{Name: fmt.Sprintf("set-%d", n%100), Labels: map[string]string{"app": fmt.Sprintf("app-%d", n%apps), "version": "9"},
				CIDRs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("198.18.%d.0/24", n%256))}})
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			cl := newCalicoCluster(b)
			var took []time.Duration
			b.ReportAllocs()
			b.ResetTimer()
			for n := range b.N {
				start := time.Now()
				cl.st.Update(func(tx *store.Tx) { c.change(tx, n) })
				cl.publish(b)
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-µs")
		})
	}
	b.Run("first", func(b *testing.B) {
		cl := newCalicoCluster(b)
		for b.Loop() {
			cl.publisher = publish.New(compile.Config{})
			cl.publish(b)
		}
	})
}

// passChain is a pod behind tiers that all pass, and one that decides.
func passChain(t testing.TB, tiers int) *classify.Table {
	st := store.New()
	st.Update(func(tx *store.Tx) {
		tx.SetPod(pod(0))
		tx.SetPod(pod(1))
		for i := range tiers {
			tx.SetTier(&store.Tier{Name: fmt.Sprintf("t%d", i), Order: float64(i)})
			g := calico.Policy{Spec: fmt.Appendf(nil, `{"tier":"t%d","ingress":[{"action":"Deny","source":{"nets":["203.0.113.%d/32"]}},{"action":"Pass"}]}`, i, i)}
			g.Name = fmt.Sprintf("g%d", i)
			p, rejections := calico.Convert(calico.GlobalKind)(&g)
			if len(rejections) > 0 {
				t.Fatal(rejections)
			}
			tx.SetPolicy(p)
		}
		last := calico.Policy{Spec: []byte(`{"ingress":[{"action":"Allow","protocol":"TCP","source":{"selector":"app == 'app-0'"},"destination":{"ports":[8080]}}]}`)}
		last.Name = "last"
		p, _ := calico.Convert(calico.GlobalKind)(&last)
		tx.SetPolicy(p)
	})
	var table *classify.Table
	st.Read(func(v store.View) {
		p := pod(0)
		set := compile.New(compile.Config{}).Compile(compile.Input{View: v, Endpoints: []endpoint.Endpoint{{ID: 1, Namespace: p.Namespace, Name: p.Name}}})
		if n := len(set.Programs[set.Endpoints[0].Ingress].Tiers); n != tiers+1 {
			t.Fatalf("%d tiers, want %d", n, tiers+1)
		}
		var err error
		if table, err = classify.Build(set); err != nil {
			t.Fatal(err)
		}
	})
	return table
}

// BenchmarkPassChain looks packets up behind chains of tiers that pass: the
// chain is compiled away, so that ten tiers cost what none do.
func BenchmarkPassChain(b *testing.B) {
	for _, tiers := range []int{0, 10} {
		b.Run(fmt.Sprintf("tiers-%d", tiers), func(b *testing.B) {
			table := passChain(b, tiers)
			var q [64]classify.Query
			for i := range q {
				q[i] = classify.Query{Remote: packet.AddrFrom(pod(1).IPs[i%2]), Row: table.Row(1, rule.Ingress), Proto: packet.Proto(policy.TCP), Port: 8080 + uint16(i%3)}
			}
			var out [64]classify.Verdict
			for b.Loop() {
				table.Classify(q[:], out[:])
			}
			if !out[0].Allowed() || out[1].Allowed() {
				b.Fatal("wrong verdicts")
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(q)), "ns/packet")
		})
	}
}
