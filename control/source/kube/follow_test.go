package kube_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/source/kube"
	"github.com/sluice-net/sluice/control/source/kube/kubetest"
	"github.com/sluice-net/sluice/control/store"
)

// setIP gives a pod its address, as a kubelet does.
func setIP(tb testing.TB, s *kubetest.Server, namespace, name, ip string) {
	tb.Helper()
	k, _ := s.Client()
	_, err := k.CoreV1().Pods(namespace).Patch(context.Background(), name, "application/merge-patch+json",
		[]byte(`{"status":{"phase":"Running","podIP":"`+ip+`","podIPs":[{"ip":"`+ip+`"}]}}`), metav1.PatchOptions{}, "status")
	must(tb, err)
}

// cnpDefinition is the CustomResourceDefinition of ClusterNetworkPolicy.
func cnpDefinition(tb testing.TB) string {
	tb.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/network-policy-api").Output()
	must(tb, err)
	return filepath.Join(strings.TrimSpace(string(out)), "config/crd/experimental/policy.networking.k8s.io_clusternetworkpolicies.yaml")
}

const cnpYAML = `apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  ingress: [{name: none, action: Deny, from: [{namespaces: {}}]}]
`

const anpYAML = `apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: old}
spec:
  priority: 10
  subject: {namespaces: {}}
  ingress: [{action: Deny, from: [{namespaces: {}}]}]
`

func TestFollow(t *testing.T) {
	t.Parallel()
	s := kubetest.Start(t, kubetest.Options{})
	s.Apply(namespaceYAML("a"))
	s.Apply(podYAML("a", "x", "here", "app: web", ""))
	s.Apply(npYAML("a", "deny", "{podSelector: {}}"))
	f := follow(t, kube.Config{Kubeconfig: s.Kubeconfig(kubetest.AdminToken, "")}).synced()

	if p := f.pod("a", "x"); p == nil || p.NodeName != "here" || p.UID == "" || p.Labels["app"] != "web" || len(p.Ports) != 1 {
		t.Fatalf("pod: %+v", p)
	}
	setIP(t, s, "a", "x", "10.0.0.7")
	eventually(t, "address", func() bool { return len(f.pod("a", "x").IPs) == 1 })
	f.has(np("a", "deny"))

	t.Run("change and delete", func(t *testing.T) {
		s.Apply(npYAML("a", "deny", "{podSelector: {}, policyTypes: [Egress]}"))
		eventually(t, "changed policy", func() bool { return f.policy(np("a", "deny")).Egress.Applies })
		s.Delete(npYAML("a", "deny", "{podSelector: {}}"))
		f.lacks(np("a", "deny"))
		s.Delete(podYAML("a", "x", "here", "", ""))
		eventually(t, "pod gone", func() bool { return f.pod("a", "x") == nil })
	})

	t.Run("definitions come and go", func(t *testing.T) {
		cnp := policy.Origin{Kind: "ClusterNetworkPolicy", Name: "guard"}
		anp := policy.Origin{Kind: "AdminNetworkPolicy", Name: "old"}
		s.ApplyFile(cnpDefinition(t))
		s.Apply(cnpYAML)
		f.has(cnp)
		s.ApplyFile("testdata/crds.yaml")
		s.Apply(anpYAML)
		f.has(anp)
		f.sameAsFresh(s)
		s.Delete("apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: adminnetworkpolicies.policy.networking.k8s.io}\n")
		f.lacks(anp)
		if f.policy(cnp) == nil {
			t.Error("the policy of another definition has gone too")
		}
		// Its objects go first: what is applied to the rest of it goes with it.
		eventually(t, "the definition has gone", func() bool {
			return !slices.ContainsFunc(f.State().Watches, func(w kube.Watch) bool { return w.Resource == "adminnetworkpolicies.policy.networking.k8s.io" })
		})
		s.ApplyFile("testdata/crds.yaml")
		s.Apply(anpYAML)
		f.has(anp)
	})

	t.Run("nodes and namespaces", func(t *testing.T) {
		k, _ := s.Client()
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"zone": "z"}},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.168.0.1"}}}}
		made, err := k.CoreV1().Nodes().Create(context.Background(), node, metav1.CreateOptions{})
		must(t, err)
		made.Status = node.Status
		_, err = k.CoreV1().Nodes().UpdateStatus(context.Background(), made, metav1.UpdateOptions{})
		must(t, err)
		s.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {team: red}}\n")
		eventually(t, "node and label", func() bool {
			var ok bool
			f.store.Read(func(v store.View) {
				ok = len(v.NodeAddrs("n1")) == 1 && v.NamespaceLabels("a")["team"] == "red"
			})
			return ok
		})
	})
	// The definition that came back may have been heard of just now.
	eventually(t, "all watches are well", func() bool {
		for _, w := range f.State().Watches {
			if !w.Healthy || !w.Synced || w.Err != "" {
				return false
			}
		}
		return true
	})
}
