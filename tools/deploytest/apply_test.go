package deploytest_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/control/source/kube/kubetest"
)

// monitorsDefinition makes the server know the Prometheus operator's kinds. Their
// fields are judged by the operator's own types elsewhere.
const monitorsDefinition = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: PLURAL.monitoring.coreos.com, annotations: {api-approved.kubernetes.io: unapproved}}
spec:
  group: monitoring.coreos.com
  names: {kind: KIND, listKind: KINDList, plural: PLURAL, singular: SINGULAR}
  scope: Namespaced
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`

// TestApply applies every object of every rendering to an API server, with
// server-side dry run and strict validation: unknown and doubled fields are
// errors.
func TestApply(t *testing.T) {
	s := kubetest.Start(t, kubetest.Options{})
	for _, kind := range []string{"PodMonitor", "ServiceMonitor"} {
		singular := strings.ToLower(kind)
		s.Apply(strings.NewReplacer("KIND", kind, "PLURAL", singular+"s", "SINGULAR", singular).Replace(monitorsDefinition))
	}
	for _, doc := range []string{"PodMonitor", "ServiceMonitor"} { // wait until they are served
		_, err := s.Try("apiVersion: monitoring.coreos.com/v1\nkind: " + doc + "\nmetadata: {name: probe, namespace: default}\n")
		must(t, err)
	}
	renderings := map[string][]string{"base": documents(t, base)}
	dir := os.Getenv("SLUICE_RENDERED")
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	must(t, err)
	needs(t, "renderings at SLUICE_RENDERED", dir != "" && len(files) >= 8)
	for _, f := range files {
		text, err := os.ReadFile(f)
		must(t, err)
		renderings[strings.TrimSuffix(filepath.Base(f), ".yaml")] = strings.Split("\n"+string(text), "\n---")
	}
	k, d := s.Client()
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(k.Discovery()))
	for name, docs := range renderings {
		t.Run(name, func(t *testing.T) {
			applied := 0
			for _, doc := range docs {
				var u unstructured.Unstructured
				must(t, yaml.UnmarshalStrict([]byte(doc), &u.Object))
				if len(u.Object) == 0 {
					continue
				}
				m, err := mapper.RESTMapping(u.GroupVersionKind().GroupKind(), u.GroupVersionKind().Version)
				must(t, err)
				data, err := u.MarshalJSON()
				must(t, err)
				at := d.Resource(m.Resource)
				ri := at.Namespace(u.GetNamespace())
				force := true
				opts := metav1.PatchOptions{FieldManager: "test", DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict, Force: &force}
				if m.Scope.Name() == meta.RESTScopeNameRoot {
					_, err = at.Patch(context.Background(), u.GetName(), "application/apply-patch+yaml", data, opts)
				} else {
					if u.GetNamespace() == "" {
						t.Errorf("%s %s has no namespace", u.GetKind(), u.GetName())
					}
					_, err = ri.Patch(context.Background(), u.GetName(), "application/apply-patch+yaml", data, opts)
				}
				if err != nil {
					t.Errorf("%s %s: %v", u.GetKind(), u.GetName(), err)
				}
				applied++
			}
			if applied < 6 {
				t.Errorf("%d objects", applied)
			}
		})
	}
}

// TestReasons looks that the pod asks for no more than its comments give reasons
// for: no privilege, no other namespace of the host, each capability and each
// folder of the host with a comment.
func TestReasons(t *testing.T) {
	spec := agentDaemonSet(t).Spec.Template.Spec
	text, err := os.ReadFile(filepath.Join(base, "daemonset.yaml"))
	must(t, err)
	lines := strings.Split(string(text), "\n")
	line := func(part string) int {
		return slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, part) })
	}
	if spec.HostPID || spec.HostIPC {
		t.Error("shares the host's processes or memory")
	}
	for _, c := range append(spec.InitContainers, spec.Containers...) {
		sc := c.SecurityContext
		if *sc.Privileged || *sc.AllowPrivilegeEscalation || !*sc.ReadOnlyRootFilesystem {
			t.Errorf("%s: %+v", c.Name, sc)
		}
		for _, add := range sc.Capabilities.Add {
			if i := line("- " + string(add) + " "); i < 0 || !strings.Contains(lines[i], "# ") {
				t.Errorf("%s: no reason for %s", c.Name, add)
			}
		}
		if c.Resources.Requests.Cpu().IsZero() || c.Resources.Limits.Memory().IsZero() || !c.Resources.Limits.Cpu().IsZero() {
			t.Errorf("%s: resources %v", c.Name, c.Resources)
		}
	}
	for _, v := range spec.Volumes {
		if i := line("- name: " + v.Name); v.HostPath != nil && (i < 1 || !strings.Contains(lines[i-1], "# ")) {
			t.Errorf("no reason for %s", v.HostPath.Path)
		}
	}
}
