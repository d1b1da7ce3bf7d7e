package kube_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/source/kube"
	"github.com/sluice-net/sluice/control/source/kube/kubetest"
	"github.com/sluice-net/sluice/control/store"
)

// definitionYAML is a definition of one of Calico's kinds, as lax as can be.
func definitionYAML(group, version, kind, scope string) string {
	lower := strings.ToLower(kind)
	plural := lower + "s"
	if base, ok := strings.CutSuffix(lower, "y"); ok {
		plural = base + "ies"
	}
	return fmt.Sprintf(`apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[1]s.%[2]s}
spec:
  group: %[2]s
  names: {kind: %[3]s, listKind: %[3]sList, plural: %[1]s, singular: %[4]s}
  scope: %[5]s
  versions:
  - name: %[6]s
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`, plural, group, kind, lower, scope, version)
}

func gnpYAML(apiVersion string) string {
	return fmt.Sprintf(`apiVersion: %s
kind: GlobalNetworkPolicy
metadata: {name: security.guard}
spec: {tier: security, serviceAccountSelector: clearance == "high", ingress: [{action: Pass}]}
`, apiVersion)
}

// followed names the watches of a kind.
func followed(f *follower, plural string) string {
	var out []string
	for _, w := range f.State().Watches {
		if strings.HasPrefix(w.Resource, plural+".") {
			out = append(out, w.Resource)
		}
	}
	return strings.Join(out, " ")
}

// Calico's policies come with their tiers and what service accounts are
// labelled, and from one of its groups only.
func TestCalico(t *testing.T) {
	t.Parallel()
	s := kubetest.Start(t, kubetest.Options{})
	s.Apply(namespaceYAML("a"))
	s.Apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: {namespace: a, name: teller, labels: {clearance: high}}\n")
	s.Apply(strings.Replace(podYAML("a", "x", "here", "app: web", ""), "  nodeName", "  serviceAccountName: teller\n  nodeName", 1))
	setIP(t, s, "a", "x", "10.0.0.7")
	for _, kind := range []string{"GlobalNetworkPolicy", "Tier"} {
		s.Apply(definitionYAML("crd.projectcalico.org", "v1", kind, "Cluster"))
	}
	tier := func(apiVersion string) string {
		return "apiVersion: " + apiVersion + "\nkind: Tier\nmetadata: {name: security}\nspec: {order: 5, defaultAction: Pass}\n"
	}
	f := follow(t, kube.Config{Kubeconfig: s.Kubeconfig(kubetest.AdminToken, "")}).synced()
	s.Apply(tier("crd.projectcalico.org/v1"))
	s.Apply(gnpYAML("crd.projectcalico.org/v1"))
	guard := policy.Origin{Kind: "GlobalNetworkPolicy", Name: "security.guard"}
	f.has(guard)
	eventually(t, "tier", func() bool { p := f.policy(guard); return p.Tier.Order == 5 && p.Ingress.Default == policy.Pass })
	eventually(t, "label of the service account", func() (selects bool) {
		f.store.Read(func(v store.View) {
			id := v.PodIdentity(store.Key{Namespace: "a", Name: "x"})
			selects = id != nil && f.policy(guard).Selects(&id.Entity)
		})
		return selects
	})

	for _, kind := range []string{"GlobalNetworkPolicy", "Tier"} {
		s.Apply(definitionYAML("projectcalico.org", "v3", kind, "Cluster"))
	}
	s.Apply(tier("projectcalico.org/v3"))
	s.Apply(gnpYAML("projectcalico.org/v3"))
	client, _ := s.Client()
	eventually(t, "later group served", func() bool {
		list, err := client.Discovery().ServerResourcesForGroupVersion("projectcalico.org/v3")
		return err == nil && len(list.APIResources) == 2
	})
	// One that learns late which groups have definitions of their own does not
	// choose before.
	var looks atomic.Int32
	known := make(chan struct{})
	config := s.Before(func(r *http.Request) {
		switch {
		case r.URL.Path == "/apis/projectcalico.org/v3" && looks.Add(1) == 3:
			close(known)
		case strings.HasSuffix(r.URL.Path, "/customresourcedefinitions"):
			select {
			case <-known:
			case <-r.Context().Done():
			}
		}
	})
	fresh := follow(t, kube.Config{Kubeconfig: config}).synced()
	if got := followed(fresh, "globalnetworkpolicies"); got != "globalnetworkpolicies.projectcalico.org" {
		t.Errorf("who starts now follows %s", got)
	}
	fresh.has(guard)
	if got := followed(f, "globalnetworkpolicies"); got != "globalnetworkpolicies.crd.projectcalico.org" {
		t.Errorf("what was followed before is %s now", got)
	}
	s.Delete("apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: globalnetworkpolicies.crd.projectcalico.org}\n")
	eventually(t, "the other group takes over", func() bool { return followed(f, "globalnetworkpolicies") == "globalnetworkpolicies.projectcalico.org" })
	f.has(guard)
}
