package uninstall

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/dynamic/fake"
	"sigs.k8s.io/yaml"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// agents reads the DaemonSet of the manifests.
func agents(t *testing.T) *appsv1.DaemonSet {
	t.Helper()
	data, err := os.ReadFile("../../deploy/kustomize/base/daemonset.yaml")
	must(t, err)
	ds := &appsv1.DaemonSet{}
	must(t, yaml.UnmarshalStrict(data, ds))
	return ds
}

// apply is what kubectl apply makes of what is live, and helm: what a list has
// beyond the manifest's items, by their names, stays.
func apply(t *testing.T, manifest, live *appsv1.DaemonSet) *appsv1.DaemonSet {
	t.Helper()
	encode := func(ds *appsv1.DaemonSet) []byte {
		data, err := json.Marshal(ds)
		must(t, err)
		return data
	}
	meta, err := strategicpatch.NewPatchMetaFromStruct(appsv1.DaemonSet{})
	must(t, err)
	patch, err := strategicpatch.CreateThreeWayMergePatch(encode(manifest), encode(manifest), encode(live), meta, true)
	must(t, err)
	data, err := strategicpatch.StrategicMergePatch(encode(live), patch, appsv1.DaemonSet{})
	must(t, err)
	ds := &appsv1.DaemonSet{}
	must(t, json.Unmarshal(data, ds))
	return ds
}

// commands are those of a pod, in their order.
func commands(ds *appsv1.DaemonSet) (out []string) {
	spec := ds.Spec.Template.Spec
	for _, c := range append(spec.InitContainers, spec.Containers...) {
		out = append(out, strings.Join(c.Command, " "))
	}
	return out
}

// cleanCommands are those that clean a node.
var cleanCommands = []string{
	"/sluice cni uninstall --cni-bin-dir=/host/opt/cni/bin --cni-conf-dir=/host/etc/cni/net.d",
	"/sluice agent --config=/etc/sluice/agent.yaml --node-name=$(NODE_NAME) --cleanup --wait",
}

// TestClean looks that it changes command lines only, and those once.
func TestClean(t *testing.T) {
	ds := agents(t)
	must(t, Clean(ds))
	if !slices.Equal(commands(ds), cleanCommands) {
		t.Errorf("commands %q", commands(ds))
	}
	again := ds.DeepCopy()
	must(t, Clean(again))
	if !apiequality.Semantic.DeepEqual(again, ds) {
		t.Errorf("a second time changes something: %q", commands(again))
	}
	was := agents(t)
	for _, list := range [][2][]corev1.Container{
		{was.Spec.Template.Spec.InitContainers, ds.Spec.Template.Spec.InitContainers},
		{was.Spec.Template.Spec.Containers, ds.Spec.Template.Spec.Containers},
	} {
		for i := range list[1] {
			list[1][i].Command = list[0][i].Command
		}
	}
	if !apiequality.Semantic.DeepEqual(ds.Spec.Template, was.Spec.Template) {
		t.Errorf("more than commands has changed: %+v", ds.Spec.Template)
	}
}

// TestReinstall applies the manifests again after an uninstall that was given up:
// the agents are what they were, and the next uninstall doesn't take them for clean.
func TestReinstall(t *testing.T) {
	manifest := agents(t)
	live := manifest.DeepCopy()
	must(t, Clean(live))
	live = apply(t, manifest, live)
	if !apiequality.Semantic.DeepEqual(live, manifest) {
		t.Errorf("not what was applied: %v, %q", live.Annotations, commands(live))
	}

	live.Status = appsv1.DaemonSetStatus{DesiredNumberScheduled: 3, UpdatedNumberScheduled: 3, NumberReady: 3}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
	must(t, err)
	u := &unstructured.Unstructured{Object: object}
	u.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("DaemonSet"))
	scheme := runtime.NewScheme()
	must(t, appsv1.AddToScheme(scheme))
	client := fake.NewSimpleDynamicClient(scheme, u)
	must(t, clean(t.Context(), client, Options{Namespace: "kube-system", Timeout: time.Second, Say: func(string) {}}))
	u, err = client.Resource(daemonSets).Namespace("kube-system").Get(t.Context(), Name, metav1.GetOptions{})
	must(t, err)
	var ds appsv1.DaemonSet
	must(t, runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &ds))
	if !slices.Equal(commands(&ds), cleanCommands) {
		t.Errorf("taken for clean: %q", commands(&ds))
	}
}

// TestStay asks what the kubelet asks of a container that has cleaned.
func TestStay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr := l.Addr().String()
	must(t, l.Close())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- Stay(ctx, addr) }()
	container := agents(t).Spec.Template.Spec.Containers[0]
	for _, p := range []*corev1.Probe{container.StartupProbe, container.LivenessProbe, container.ReadinessProbe} {
		var code int
		for end := time.Now().Add(10 * time.Second); code != http.StatusOK && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if resp, err := http.Get("http://" + addr + p.HTTPGet.Path); err == nil {
				code = resp.StatusCode
				resp.Body.Close()
			}
		}
		if code != http.StatusOK {
			t.Errorf("%s: %d", p.HTTPGet.Path, code)
		}
	}
	cancel()
	must(t, <-done)
}
