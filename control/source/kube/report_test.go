package kube_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-net/sluice/control/source/kube"
	"github.com/sluice-net/sluice/control/source/kube/kubetest"
)

// condition returns what agents have said in an object's status.
func condition(tb testing.TB, s *kubetest.Server, version, resource, name string) (c map[string]any, version2 string) {
	tb.Helper()
	_, d := s.Client()
	u, err := d.Resource(schema.GroupVersionResource{Group: "policy.networking.k8s.io", Version: version, Resource: resource}).
		Get(context.Background(), name, metav1.GetOptions{})
	must(tb, err)
	list, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, x := range list {
		if m := x.(map[string]any); m["type"] == kube.ConditionType {
			return m, u.GetResourceVersion()
		}
	}
	return nil, u.GetResourceVersion()
}

// brokenANP has a priority that the language doesn't know.
const brokenANP = `apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: broken}
spec:
  priority: %d
  subject: {namespaces: {}}
  ingress: [{action: Deny, from: [{namespaces: {}}]}]
`

func TestReports(t *testing.T) {
	t.Parallel()
	s := kubetest.Start(t, kubetest.Options{})
	s.ApplyFile("testdata/crds.yaml")
	s.ApplyFile(cnpDefinition(t))
	agent := func(name string) *follower {
		return follow(t, kube.Config{Kubeconfig: s.Kubeconfig(kubetest.AdminToken, ""), NodeName: name,
			Report: true, ReportNamespace: "kube-system", LeaseDuration: 10 * time.Second}).synced()
	}
	a, b := agent("a"), agent("b")
	s.Apply(fmt.Sprintf(brokenANP, 5000))
	s.Apply(cnpYAML)
	rejected := func() []corev1.Event { return s.Events("default") }
	eventually(t, "event", func() bool { return len(rejected()) == 1 })
	e := rejected()[0]
	if e.InvolvedObject.Name != "broken" || e.InvolvedObject.Kind != "AdminNetworkPolicy" || e.InvolvedObject.UID == "" ||
		e.Reason != "Rejected" || !strings.Contains(e.Message, "spec.priority") || e.Type != corev1.EventTypeWarning {
		t.Errorf("event: %+v", e)
	}
	var good, bad map[string]any
	var version string
	eventually(t, "conditions", func() bool {
		good, version = condition(t, s, "v1alpha2", "clusternetworkpolicies", "guard")
		bad, _ = condition(t, s, "v1alpha1", "adminnetworkpolicies", "broken")
		return good != nil && bad != nil
	})
	if good["status"] != "True" || bad["status"] != "False" || !strings.Contains(bad["message"].(string), "spec.priority") {
		t.Errorf("conditions: %v, %v", good, bad)
	}

	// A successor says nothing again.
	a.stop()
	b.stop()
	c := agent("c")
	s.Apply(fmt.Sprintf(strings.Replace(brokenANP, "broken", "second", 1), 6000))
	eventually(t, "event of a successor", func() bool { return len(rejected()) == 2 })
	if _, now := condition(t, s, "v1alpha2", "clusternetworkpolicies", "guard"); now != version {
		t.Error("a condition that was there was written again")
	}
	// What is repaired is accepted.
	s.Apply(fmt.Sprintf(brokenANP, 5))
	eventually(t, "repaired", func() bool {
		bad, _ = condition(t, s, "v1alpha1", "adminnetworkpolicies", "broken")
		return bad["status"] == "True"
	})
	eventually(t, "no rejection but one", func() bool { return len(c.State().Rejections) == 1 })
}

// A policy that changes all the time, as by a controller gone wild, is not
// answered by as many events.
func TestReportsNoStorm(t *testing.T) {
	t.Parallel()
	s := kubetest.Start(t, kubetest.Options{})
	s.ApplyFile("testdata/crds.yaml")
	f := follow(t, kube.Config{Kubeconfig: s.Kubeconfig(kubetest.AdminToken, ""), Report: true, ReportNamespace: "kube-system"}).synced()
	began := time.Now()
	const changes = 300
	for i := range changes {
		s.Apply(fmt.Sprintf(brokenANP, 5000+i))
	}
	eventually(t, "last change known", func() bool {
		r := f.State().Rejections
		return len(r) > 0 && strings.Contains(r[0].Reason, fmt.Sprint(5000+changes-1))
	})
	n := len(s.Events("default"))
	took := time.Since(began).Seconds() // the listing included: more may come meanwhile
	if most := 50 + 5*took + 1; float64(n) > most {
		t.Errorf("%d events in %.1f s: more than %.0f", n, took, most)
	}
}
