package kube_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sluice-net/sluice/control/source/kube"
	"github.com/sluice-net/sluice/control/source/kube/kubetest"
	"github.com/sluice-net/sluice/control/source/object"
)

const roleFile = "../../../deploy/kustomize/base/clusterrole.yaml"

// bindings give the deployed roles to an account.
const bindings = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: sluice-agent}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: sluice-agent}
subjects: [{kind: ServiceAccount, namespace: kube-system, name: sluice-agent}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: sluice-agent, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: sluice-agent}
subjects: [{kind: ServiceAccount, namespace: kube-system, name: sluice-agent}]
`

// TestLeastPrivilege has the agent live on the roles that are deployed, and
// looks that they allow nothing else.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	s := kubetest.Start(t, kubetest.Options{})
	s.ApplyFile("testdata/crds.yaml")
	s.ApplyFile(cnpDefinition(t))
	s.ApplyFile(roleFile)
	s.Apply(bindings)
	token := s.ServiceAccount("kube-system", "sluice-agent")
	f := follow(t, kube.Config{Kubeconfig: s.Kubeconfig(token, ""), Report: true, ReportNamespace: "kube-system"}).synced()
	s.Apply(cnpYAML)
	s.Apply(fmt.Sprintf(brokenANP, 5000))
	s.Apply(npYAML("default", "deny", "{podSelector: {}}"))
	f.has(np("default", "deny"))
	eventually(t, "event", func() bool { return len(s.Events("default")) == 1 })
	eventually(t, "condition", func() bool {
		c, _ := condition(t, s, "v1alpha2", "clusternetworkpolicies", "guard")
		return c != nil
	})
	for _, n := range f.State().Notes {
		t.Errorf("note: %s", n)
	}

	k, err := kubernetes.NewForConfig(s.Config(token))
	must(t, err)
	rules, err := k.AuthorizationV1().SelfSubjectRulesReviews().Create(context.Background(),
		&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "default"}}, metav1.CreateOptions{})
	must(t, err)
	for _, r := range rules.Status.ResourceRules {
		for _, res := range r.Resources {
			writes := slices.DeleteFunc(slices.Clone(r.Verbs), func(v string) bool { return v == "get" || v == "list" || v == "watch" })
			self := strings.HasPrefix(res, "selfsubject")
			if len(writes) > 0 && !self && !slices.Equal(writes, []string{"create"}) && !slices.Equal(writes, []string{"patch"}) {
				t.Errorf("may %v %s", writes, res)
			}
			if len(writes) > 0 && !self && res != "events" && !strings.HasSuffix(res, "/status") {
				t.Errorf("may %v %s", writes, res)
			}
			if res == "*" || res == "secrets" || res == "configmaps" {
				t.Errorf("may %v %s", r.Verbs, res)
			}
		}
	}
}

// Every kind that the agent would follow has a place in the deployed role: an
// agent that may not read one would wait for it for ever.
func TestRoleIsComplete(t *testing.T) {
	t.Parallel()
	s := kubetest.Start(t, kubetest.Options{})
	s.ApplyFile(roleFile)
	s.Apply(bindings)
	k, err := kubernetes.NewForConfig(s.Config(s.ServiceAccount("kube-system", "sluice-agent")))
	must(t, err)
	for apiVersion, kinds := range object.Custom() {
		group, _, _ := strings.Cut(apiVersion, "/")
		for _, kind := range kinds {
			resource := strings.ToLower(kind) + "s"
			if base, ok := strings.CutSuffix(resource, "ys"); ok {
				resource = base + "ies"
			}
			for _, verb := range []string{"get", "list", "watch"} {
				review, err := k.AuthorizationV1().SelfSubjectAccessReviews().Create(context.Background(), &authorizationv1.SelfSubjectAccessReview{
					Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
						Group: group, Resource: resource, Verb: verb}}}, metav1.CreateOptions{})
				must(t, err)
				if !review.Status.Allowed {
					t.Errorf("may not %s %s.%s", verb, resource, group)
				}
			}
		}
	}
}
