package deploytest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/sluice-net/sluice/control/source/kube/kubetest"
	"github.com/sluice-net/sluice/tools/uninstall"
)

const sluiceConfig = `apiVersion: v1
kind: ConfigMap
metadata: {name: sluice-agent-abc, namespace: kube-system, labels: {app.kubernetes.io/name: sluice, app.kubernetes.io/component: agent}}
`

const foreign = `apiVersion: v1
kind: ConfigMap
metadata: {name: sluice-agent-notes, namespace: kube-system}
`

// controller reports a DaemonSet of three nodes of which some become clean, once
// it is told to clean.
type controller struct {
	k     kubernetes.Interface
	clean atomic.Int32
}

func (c *controller) run(ctx context.Context, tb testing.TB) {
	for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		ds, err := c.k.AppsV1().DaemonSets(namespace).Get(ctx, uninstall.Name, metav1.GetOptions{})
		if err != nil || !slices.Contains(container(tb, &ds.Spec.Template.Spec, "agent").Command, "--cleanup") {
			continue
		}
		status := fmt.Sprintf(`{"status":{"observedGeneration":%d,"desiredNumberScheduled":3,"currentNumberScheduled":3,"numberMisscheduled":0,"updatedNumberScheduled":%d,"numberReady":3}}`,
			ds.Generation, c.clean.Load())
		_, err = c.k.AppsV1().DaemonSets(namespace).Patch(ctx, ds.Name, types.MergePatchType, []byte(status), metav1.PatchOptions{}, "status")
		if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
			tb.Errorf("report status: %v", err)
		}
	}
}

// clusterWith starts an API server with the manifests and a controller.
func clusterWith(t *testing.T, clean int32) (*kubetest.Server, *controller) {
	t.Helper()
	s := kubetest.Start(t, kubetest.Options{})
	for _, doc := range append(documents(t, base), sluiceConfig, foreign) {
		s.Apply(doc)
	}
	k, _ := s.Client()
	c := &controller{k: k}
	c.clean.Store(clean)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run(ctx, t)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s, c
}

// TestUninstall takes everything off a cluster, but nothing before all nodes are
// clean, and nothing of others.
func TestUninstall(t *testing.T) {
	s, c := clusterWith(t, 2)
	var said []string
	o := uninstall.Options{Namespace: namespace, Timeout: 4 * time.Second, Say: func(text string) { said = append(said, text) }}
	ctx := t.Context()
	err := uninstall.Run(ctx, s.Config(kubetest.AdminToken), o)
	for end := time.Now().Add(patience); err != nil && !strings.Contains(err.Error(), "2 of 3 nodes are clean") && time.Now().Before(end); {
		err = uninstall.Run(ctx, s.Config(kubetest.AdminToken), o) // goes on where it was, if the server was slow
	}
	if err == nil || !strings.Contains(err.Error(), "2 of 3 nodes are clean") {
		t.Fatalf("with a node that is not clean: %v", err)
	}
	ds, err := c.k.AppsV1().DaemonSets(namespace).Get(ctx, uninstall.Name, metav1.GetOptions{})
	must(t, err)
	cleans(t, ds)
	if _, err := c.k.RbacV1().ClusterRoles().Get(ctx, uninstall.Name, metav1.GetOptions{}); err != nil {
		t.Errorf("role is gone before the nodes are clean: %v", err)
	}

	c.clean.Store(3)
	o.Timeout = patience
	must(t, uninstall.Run(ctx, s.Config(kubetest.AdminToken), o))
	if !slices.Contains(said, "3 of 3 nodes are clean") || !slices.Contains(said, "deleted configmaps sluice-agent-abc") {
		t.Errorf("said %q", said)
	}
	for _, doc := range append(documents(t, base), sluiceConfig) {
		if _, err := s.Get(doc); !apierrors.IsNotFound(err) {
			t.Errorf("left: %v: %s", err, doc)
		}
	}
	if _, err := s.Get(foreign); err != nil {
		t.Errorf("deleted what belongs to others: %v", err)
	}
	must(t, uninstall.Run(ctx, s.Config(kubetest.AdminToken), o)) // once more: nothing to do
}

// cleans looks at what the DaemonSet has become.
func cleans(t *testing.T, ds *appsv1.DaemonSet) {
	t.Helper()
	spec := ds.Spec.Template.Spec
	var commands []string
	for _, c := range append(spec.InitContainers, spec.Containers...) {
		commands = append(commands, strings.Join(c.Command, " "))
	}
	want := []string{
		"/sluice cni uninstall --cni-bin-dir=/host/opt/cni/bin --cni-conf-dir=/host/etc/cni/net.d",
		"/sluice agent --config=/etc/sluice/agent.yaml --node-name=$(NODE_NAME) --cleanup --wait",
	}
	if !slices.Equal(commands, want) {
		t.Errorf("commands %q, want %q", commands, want)
	}
	if u := ds.Spec.UpdateStrategy.RollingUpdate; u.MaxUnavailable.String() != "100%" {
		t.Errorf("nodes are cleaned one by one: %v", u)
	}
}

// TestRemovalJob has the nodes cleaned on the rights of helm's Job alone, and
// looks that the objects stay, and that without --nodes-only helm is named.
func TestRemovalJob(t *testing.T) {
	s, c := clusterWith(t, 3)
	s.Apply(`apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: sluice-removal, namespace: kube-system}
rules: [{apiGroups: [apps], resources: [daemonsets], resourceNames: [sluice-agent], verbs: [get, update]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: sluice-removal, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: sluice-removal}
subjects: [{kind: ServiceAccount, namespace: kube-system, name: sluice-removal}]
`)
	_, err := c.k.AppsV1().DaemonSets(namespace).Patch(t.Context(), uninstall.Name, types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"app.kubernetes.io/managed-by":"Helm"}}}`), metav1.PatchOptions{})
	must(t, err)
	cfg := s.Config(s.ServiceAccount(namespace, "sluice-removal"))
	o := uninstall.Options{Namespace: namespace, Timeout: patience, Say: func(text string) { t.Log(text) }}
	if err := uninstall.Run(t.Context(), cfg, o); !errors.Is(err, uninstall.ErrHelm) {
		t.Errorf("removes what helm has installed: %v", err)
	}
	o.NodesOnly = true
	must(t, uninstall.Run(t.Context(), cfg, o))
	ds, err := c.k.AppsV1().DaemonSets(namespace).Get(t.Context(), uninstall.Name, metav1.GetOptions{})
	must(t, err)
	cleans(t, ds)
}
