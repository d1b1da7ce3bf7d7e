// Package oracle_test has other projects' own code judge the deployment: helm
// and kustomize render it, the Prometheus operator's types decode it, and
// go-containerregistry reads the image. It is a module of its own, so that none
// of this is a dependency of the product.
package oracle_test

import (
	"io"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const deploy = "../../deploy"

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // helm logs each symbolic link that it follows
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type object = map[string]any

// kustomize renders a folder.
func kustomize(t *testing.T, dir string) string {
	t.Helper()
	m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(deploy, "kustomize", dir))
	must(t, err)
	text, err := m.AsYaml()
	must(t, err)
	return string(text)
}

// helm renders the chart as a release in kube-system.
func helm(t *testing.T, values string) (string, error) {
	t.Helper()
	chart, err := loader.Load(filepath.Join(deploy, "chart", "sluice"))
	must(t, err)
	vals, err := chartutil.ReadValues([]byte(values))
	must(t, err)
	full, err := chartutil.ToRenderValues(chart, vals, chartutil.ReleaseOptions{Name: "sluice", Namespace: "kube-system", IsInstall: true}, chartutil.DefaultCapabilities)
	if err != nil {
		return "", err
	}
	files, err := engine.Engine{Strict: true}.Render(chart, full)
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".yaml") {
			all.WriteString("---\n" + files[name] + "\n")
		}
	}
	return all.String(), nil
}

// objects decodes documents, by kind and name.
func objects(t *testing.T, text string) map[string]object {
	t.Helper()
	out := map[string]object{}
	for doc := range strings.SplitSeq("\n"+text, "\n---") {
		var o object
		must(t, yaml.UnmarshalStrict([]byte(doc), &o))
		if len(o) == 0 {
			continue
		}
		key := o["kind"].(string) + " " + o["metadata"].(object)["name"].(string)
		if out[key] != nil {
			t.Errorf("two objects are %s", key)
		}
		out[key] = o
	}
	return out
}

// save keeps what was rendered where SLUICE_RENDERED says, for the test that
// applies it to an API server.
func save(t *testing.T, name, text string) {
	t.Helper()
	if dir := os.Getenv("SLUICE_RENDERED"); dir != "" {
		must(t, os.MkdirAll(dir, 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o644))
	}
}

// substance removes what helm and kustomize each add of their own: labels of the
// release, the name or the annotation by which a changed configuration is seen,
// and hooks.
func substance(t *testing.T, in map[string]object) map[string]object {
	t.Helper()
	out := map[string]object{}
	for _, o := range in {
		meta := o["metadata"].(object)
		if a, ok := meta["annotations"].(object); ok && a["helm.sh/hook"] != nil {
			continue
		}
		name, kind := meta["name"].(string), o["kind"].(string)
		if l, ok := meta["labels"].(object); ok {
			delete(l, "app.kubernetes.io/managed-by")
			delete(l, "helm.sh/chart")
		}
		switch kind {
		case "ConfigMap":
			name = strings.Join(strings.Split(name, "-")[:2], "-")
			data := o["data"].(object)
			var conf object
			must(t, yaml.Unmarshal([]byte(data["agent.yaml"].(string)), &conf))
			data["agent.yaml"] = conf
		case "DaemonSet":
			template := o["spec"].(object)["template"].(object)
			delete(template["metadata"].(object)["annotations"].(object), "sluice.dev/config")
			volumes := template["spec"].(object)["volumes"].([]any) // kustomize puts what it has patched first
			slices.SortFunc(volumes, func(a, b any) int {
				return strings.Compare(a.(object)["name"].(string), b.(object)["name"].(string))
			})
			for _, v := range volumes {
				if cm, ok := v.(object)["configMap"].(object); ok {
					cm["name"] = strings.Join(strings.Split(cm["name"].(string), "-")[:2], "-")
				}
			}
		}
		meta["name"] = name
		out[kind+" "+name] = o
	}
	return out
}

// TestSame renders both and compares what is left without each one's own marks.
func TestSame(t *testing.T) {
	for name, c := range map[string]struct{ overlay, values string }{
		"base":           {"base", ""},
		"k3s":            {"overlays/k3s", "cni: {binDir: /var/lib/rancher/k3s/data/cni, confDir: /var/lib/rancher/k3s/agent/etc/cni/net.d}\n"},
		"monitoring":     {"overlays/monitoring", "config: {metrics: {listen: ':9965'}}\npodMonitor: {enabled: true}\n"},
		"servicemonitor": {"../../tools/deploy-oracle/testdata/servicemonitor", "config: {metrics: {listen: ':9965'}}\nserviceMonitor: {enabled: true}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			k := kustomize(t, c.overlay)
			h, err := helm(t, c.values)
			must(t, err)
			save(t, "kustomize-"+name, k)
			save(t, "helm-"+name, h)
			want, got := substance(t, objects(t, k)), substance(t, objects(t, h))
			if len(want) < 7 {
				t.Errorf("kustomize made %d objects", len(want))
			}
			for key, o := range want {
				diff(t, key, got[key], o)
				delete(got, key)
			}
			for key := range got {
				t.Errorf("only helm makes %s", key)
			}
		})
	}
}

// diff reports each place where two values differ.
func diff(t *testing.T, at string, helm, kustomize any) {
	t.Helper()
	a, aok := helm.(object)
	b, bok := kustomize.(object)
	x, xok := helm.([]any)
	y, yok := kustomize.([]any)
	switch {
	case aok && bok:
		for _, k := range slices.Sorted(maps.Keys(b)) {
			diff(t, at+"."+k, a[k], b[k])
		}
		for _, k := range slices.Sorted(maps.Keys(a)) {
			if _, ok := b[k]; !ok {
				t.Errorf("%s.%s: only helm has it: %v", at, k, a[k])
			}
		}
	case xok && yok && len(x) == len(y):
		for i := range x {
			diff(t, at+"[]", x[i], y[i])
		}
	default:
		p, _ := yaml.Marshal(helm)
		q, _ := yaml.Marshal(kustomize)
		if string(p) != string(q) {
			t.Errorf("%s: helm has %s, kustomize %s", at, p, q)
		}
	}
}

// TestConfigRolls looks that a changed configuration changes the pods.
func TestConfigRolls(t *testing.T) {
	template := func(values string) string {
		text, err := helm(t, values)
		must(t, err)
		out, err := yaml.Marshal(objects(t, text)["DaemonSet sluice-agent"]["spec"])
		must(t, err)
		return string(out)
	}
	if template("") == template("config: {failOpen: true}\n") {
		t.Error("agents are not restarted when their configuration changes")
	}
	if template("") != template("config: {failOpen: false}\n") {
		t.Error("agents are restarted although nothing has changed")
	}
}
