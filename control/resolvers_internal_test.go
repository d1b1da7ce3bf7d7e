package control

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	learn "github.com/sluice-net/sluice/control/names"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/cilium"
	"github.com/sluice-net/sluice/control/store"
)

const resolverPolicy = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: names, namespace: x}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toEndpoints: [{matchLabels: {k8s:io.kubernetes.pod.namespace: kube-system, k8s-app: kube-dns}}]
    toPorts: [{ports: [{port: "53"}], rules: {dns: [{matchPattern: "*.pods"}]}}]
  - toCIDR: [192.0.2.0/24]
    toPorts: [{ports: [{port: "53"}], rules: {dns: [{matchName: a.cidr}]}}]
  - toFQDNs: [{matchName: dns.pods}]
    toPorts: [{ports: [{port: "53"}], rules: {dns: [{matchName: a.name}]}}]
  - toEndpoints: []
    toPorts: [{ports: [{port: "53"}], rules: {dns: [{matchName: a.nobody}]}}]
  - toPorts: [{ports: [{port: "53"}], rules: {dns: [{matchName: a.all}]}}]
  - toEntities: [all]
`

// A resolver teaches what lookups say that mean it: as a pod, by the Service before
// it, by its address or its name. That a pod may reach it for another rule's sake
// is not enough.
func TestResolvers(t *testing.T) {
	np := &cilium.NetworkPolicy{}
	if err := yaml.Unmarshal([]byte(resolverPolicy), np); err != nil {
		t.Fatal(err)
	}
	p, rejected := cilium.Convert(np)
	if len(rejected) > 0 {
		t.Fatal(rejected)
	}
	st := store.New()
	pod := func(tx *store.Tx, namespace, name, addr string, labels map[string]string) {
		tx.SetNamespace(&store.Namespace{Name: namespace})
		tx.SetPod(&store.Pod{Namespace: namespace, Name: name, Phase: store.Alive, IPs: []netip.Addr{netip.MustParseAddr(addr)}, Labels: labels})
	}
	service := func(tx *store.Tx, name, addr, to string) {
		port := store.NamedPort{Name: "dns", Protocol: policy.UDP, Port: 53}
		tx.SetService(&store.Service{Namespace: "x", Name: name, Addrs: []netip.Addr{netip.MustParseAddr(addr)}, Exposed: []store.ServicePort{{NamedPort: port}}})
		port.Port = 5353
		tx.SetEndpointSlice(&store.EndpointSlice{Namespace: "x", Name: name, Service: name, Addrs: []netip.Addr{netip.MustParseAddr(to)}, Ports: []store.NamedPort{port}})
	}
	st.Update(func(tx *store.Tx) {
		pod(tx, "x", "client", "10.0.0.1", map[string]string{"app": "client"})
		pod(tx, "kube-system", "dns", "10.0.0.53", map[string]string{"k8s-app": "kube-dns"})
		pod(tx, "x", "mallory", "10.0.0.66", map[string]string{"k8s-app": "kube-dns"})
		service(tx, "dns", "10.96.0.10", "10.0.0.53")
		service(tx, "mallory", "10.96.0.66", "10.0.0.66")
		tx.SetPolicy(p)
	})
	cfg := learn.Default()
	cfg.File = filepath.Join(t.TempDir(), "names")
	known := fmt.Sprintf(`{"version":1,"names":[{"name":"dns.pods","address":"198.51.100.1","until":%q}]}`, time.Now().Add(time.Hour).Format(time.RFC3339))
	if err := os.WriteFile(cfg.File, []byte(known), 0o600); err != nil {
		t.Fatal(err)
	}

	l := lookups{learner: learn.New(cfg, nil), naming: map[policy.Origin]struct{}{}, domain: map[string]policy.Name{}}
	var r *resolvers
	st.Read(func(v store.View) {
		l.note(p)
		names, lookups := l.learns(v, v.PodIdentity(store.Key{Namespace: "x", Name: "client"}))
		if len(names) > 0 || len(lookups) != 4 {
			t.Errorf("whoever answers teaches %v, %d lookups do", names, len(lookups))
		}
		r = newResolvers(st, "n", l.learner, lookups)
	})
	want := func(when string, all map[string]string) {
		t.Helper()
		for addr, want := range all {
			for range 2 { // what is remembered, too
				if got := fmt.Sprint(r.teach(netip.MustParseAddr(addr))); got != want {
					t.Errorf("%s, %s teaches %s, want %s", when, addr, got, want)
				}
			}
		}
	}
	want("at first", map[string]string{
		"10.0.0.53": "[*.pods a.all]", "10.96.0.10": "[*.pods a.all]", "10.0.0.66": "[a.all]", "10.96.0.66": "[a.all]",
		"203.0.113.66": "[a.all]", "192.0.2.53": "[a.cidr a.all]", "198.51.100.1": "[a.name a.all]", "fd00::53": "[a.all]",
	})
	st.Update(func(tx *store.Tx) {
		tx.DeletePod(store.Key{Namespace: "kube-system", Name: "dns"})
		pod(tx, "kube-system", "another", "10.0.0.54", map[string]string{"k8s-app": "kube-dns"})
	})
	want("when pods have changed", map[string]string{"10.0.0.53": "[a.all]", "10.0.0.54": "[*.pods a.all]"})
}
