package compile_test

import (
	"fmt"
	"net/netip"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/policy/networkpolicy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/endpoint"
)

// large fills a store as a cluster of many applications would: namespaces of
// 10 apps, dual-stack pods, policies that name apps of their own and of other
// namespaces, whole namespaces, blocks and ports by name.
func large(pods, policies, local int) (*store.Store, []endpoint.Endpoint) {
	st := store.New()
	namespaces := max(1, pods/100)
	ns := func(i int) string { return fmt.Sprintf("ns-%d", i%namespaces) }
	var endpoints []endpoint.Endpoint
	st.Update(func(tx *store.Tx) {
		for i := range namespaces {
			tx.SetNamespace(&store.Namespace{Name: ns(i), Labels: map[string]string{"team": fmt.Sprint(i % 10), "env": fmt.Sprint(i % 3)}})
		}
		for i := range pods {
			isLocal := i*7919%pods < local // spread over namespaces and apps
			tx.SetPod(benchPod(i, ns(i/100), isLocal))
			if isLocal {
				endpoints = append(endpoints, endpoint.Endpoint{ID: endpoint.ID(len(endpoints) + 1), Namespace: ns(i / 100), Name: fmt.Sprintf("pod-%d", i)})
			}
		}
		for i := range policies {
			p, _ := networkpolicy.Convert(benchPolicy(i, ns(i)))
			tx.SetPolicy(p)
		}
	})
	return st, endpoints
}

func benchPod(i int, ns string, local bool) *store.Pod {
	p := &store.Pod{Namespace: ns, Name: fmt.Sprintf("pod-%d", i), NodeName: "other",
		Labels: map[string]string{"app": fmt.Sprintf("app-%d", i%10), "version": fmt.Sprint(i % 3), "pod-template-hash": fmt.Sprint(i % 30)},
		IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}),
			netip.AddrFrom16([16]byte{0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})},
		Ports: []store.NamedPort{{Name: "http", Protocol: 6, Port: 8080 + uint16(i%2)}}}
	if local {
		p.NodeName = node
	}
	return p
}

func benchPolicy(i int, ns string) *networkingv1.NetworkPolicy {
	app := func(n int) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("app-%d", n%10)}}
	}
	team := &metav1.LabelSelector{MatchLabels: map[string]string{"team": fmt.Sprint(i % 10)}}
	http, sql := intstr.FromString("http"), intstr.FromInt32(5432)
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("np-%d", i)}}
	np.Spec.PodSelector = *app(i / 7)
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{
		{From: []networkingv1.NetworkPolicyPeer{{PodSelector: app(i + 1)}, {NamespaceSelector: team}}, Ports: []networkingv1.NetworkPolicyPort{{Port: &http}}},
		{From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("172.16.%d.0/24", i%256)}}}},
	}
	if i%3 == 0 {
		np.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{
			{To: []networkingv1.NetworkPolicyPeer{{PodSelector: app(i + 2), NamespaceSelector: team}}, Ports: []networkingv1.NetworkPolicyPort{{Port: &http}, {Port: &sql}}}}
	}
	return np
}

func BenchmarkCompile(b *testing.B) {
	for _, s := range []struct{ pods, policies, local int }{{500, 100, 50}, {5000, 1000, 100}, {50000, 10000, 100}} {
		st, endpoints := large(s.pods, s.policies, s.local)
		name := fmt.Sprintf("pods=%d/policies=%d", s.pods, s.policies)
		b.Run(name+"/first", func(b *testing.B) {
			for b.Loop() {
				compileNow(compile.New(compile.Config{}), st, endpoints)
			}
		})
		b.Run(name+"/again", func(b *testing.B) {
			c := compile.New(compile.Config{})
			compileNow(c, st, endpoints)
			for i := 0; b.Loop(); i++ {
				st.Update(func(tx *store.Tx) { tx.SetPod(benchPod(s.pods+i%256, "ns-0", false)) })
				set := compileNow(c, st, endpoints)
				b.ReportMetric(float64(len(set.Addresses)), "addresses")
				b.ReportMetric(float64(len(set.Programs)), "programs")
				b.ReportMetric(float64(set.Peers), "peers")
			}
		})
	}
}
