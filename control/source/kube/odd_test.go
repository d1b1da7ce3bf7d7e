package kube_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/source/kube"
	"github.com/sluice-net/sluice/control/source/kube/kubetest"
	"github.com/sluice-net/sluice/control/store"
)

// TestOddObjects has the server admit what means nothing, is not valid by
// today's rules, or is large. Each is in force or rejected with a reason.
func TestOddObjects(t *testing.T) {
	t.Parallel()
	s := kubetest.Start(t, kubetest.Options{})
	s.ApplyFile("testdata/crds.yaml")
	f := follow(t, kube.Config{Kubeconfig: s.Kubeconfig(kubetest.AdminToken, "")}).synced()

	inForce := map[string]string{
		"selects nothing":        "{podSelector: {matchLabels: {nobody: has-this}}, ingress: [{from: [{podSelector: {matchLabels: {none: none}}}]}]}",
		"port that nobody has":   "{podSelector: {}, ingress: [{ports: [{port: no-such-port}]}]}",
		"odd labels":             `{podSelector: {matchLabels: {"a.b-c.d/x.Y_z-0": "", "UPPER": "a.b_c-d"}}}`,
		"empty rules":            "{podSelector: {}, ingress: [], egress: [], policyTypes: [Ingress, Egress]}",
		"operators on nothing":   "{podSelector: {matchExpressions: [{key: k, operator: NotIn, values: [v]}, {key: k, operator: DoesNotExist}]}}",
		"all of the world":       `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: "0.0.0.0/0", except: ["10.0.0.0/8"]}}, {ipBlock: {cidr: "::/0"}}]}]}`,
		"rules of the other way": "{podSelector: {}, policyTypes: [Ingress], egress: [{to: [{podSelector: {}}]}]}",
	}
	n := 0
	for what, spec := range inForce {
		n++
		o := np("default", fmt.Sprintf("odd-%d", n))
		s.Apply(npYAML(o.Namespace, o.Name, spec))
		if p := f.has(o); p.Rejected {
			t.Errorf("%s: rejected", what)
		}
	}

	// What a lax definition admits.
	rejected := map[string]struct{ spec, reason string }{
		"priority":           {"{priority: -7, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}", "spec.priority"},
		"action":             {"{priority: 1, subject: {namespaces: {}}, ingress: [{action: Perhaps, from: [{namespaces: {}}]}]}", "action"},
		"subject":            {"{priority: 1, ingress: [{action: Allow, from: [{namespaces: {}}]}]}", "spec.subject"},
		"no peers":           {"{priority: 1, subject: {namespaces: {}}, ingress: [{action: Allow, from: []}]}", "from"},
		"peer of the future": {"{priority: 1, subject: {namespaces: {}}, ingress: [{action: Allow, from: [{planets: {}}]}]}", "from"},
		"type of a field":    {`{priority: "high", subject: 5}`, "must be of type"},
		"selector":           {`{priority: 1, subject: {namespaces: {matchLabels: {"not a label": "nor/a value!"}}}, ingress: [{action: Allow, from: [{namespaces: {}}]}]}`, "subject"},
	}
	for what, c := range rejected {
		n++
		name := fmt.Sprintf("odd-%d", n)
		s.Apply(fmt.Sprintf("apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: %s}\nspec: %s\n", name, c.spec))
		o := policy.Origin{Kind: "AdminNetworkPolicy", Name: name}
		eventually(t, what+" rejected", func() bool {
			for _, r := range f.State().Rejections {
				if r.Object == o.String() && (strings.Contains(r.Field, c.reason) || strings.Contains(r.Reason, c.reason)) {
					return true
				}
			}
			return false
		})
		if p := f.policy(o); p != nil {
			for _, r := range append(p.Ingress.Rules, p.Egress.Rules...) {
				if r.Action == policy.Allow {
					t.Errorf("%s: allows", what)
				}
			}
		}
	}

	t.Run("ten thousand rules", func(t *testing.T) {
		var rules strings.Builder
		for i := range 10000 {
			fmt.Fprintf(&rules, "{ports: [{port: %d}]}, ", 1+i)
		}
		s.Apply(npYAML("default", "long", "{podSelector: {}, ingress: ["+rules.String()+"]}"))
		if p := f.has(np("default", "long")); len(p.Ingress.Rules) != 10000 || p.Rejected {
			t.Errorf("%d rules", len(p.Ingress.Rules))
		}
	})

	t.Run("five megabytes", func(t *testing.T) {
		s.Apply(namespaceYAML("large"))
		k, _ := s.Client()
		for i := range 25 {
			large := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p-%d", i)}}
			for j := range 2000 {
				large.Spec.Ingress = append(large.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{
					{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app.example.org/name": fmt.Sprintf("workload-number-%d-of-many-%d", j, i)}}}}})
			}
			_, err := k.NetworkingV1().NetworkPolicies("large").Create(context.Background(), large, metav1.CreateOptions{})
			must(t, err)
		}
		eventually(t, "all known", func() bool {
			rules := 0
			f.store.Read(func(v store.View) {
				for p := range v.Policies("large") {
					rules += len(p.Ingress.Rules)
				}
			})
			return rules == 50000
		})
	})
	f.sameAsFresh(s)
}
