package oracle_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"sigs.k8s.io/yaml"
)

// variants of the chart that are rendered besides, by name.
var variants = map[string]string{
	"no-cni":   "cni: {enabled: false}\n",
	"away":     "cni: {onAgentAway: closed, wait: 90s}\n",
	"digest":   "image: {repository: registry.example/sluice, digest: 'sha256:" + strings.Repeat("0a", 32) + "'}\nimagePullSecrets: [{name: pull}]\n",
	"api":      "apiServer: {host: 192.0.2.1, port: 8443}\nremoval: {timeout: 90s}\n",
	"percents": "maxUnavailable: 10%\npodLabels: {team: net}\npodAnnotations: {a: b}\npriorityClassName: ''\n",
	"tuned":    "config: {workers: 4, hubble: {listen: '127.0.0.1:4244'}, metrics: {listen: '127.0.0.1:9999'}}\nresources: {}\n",
}

func TestVariants(t *testing.T) {
	for name, values := range variants {
		t.Run(name, func(t *testing.T) {
			text, err := helm(t, values)
			must(t, err)
			save(t, "helm-"+name, text)
			ds, err := yaml.Marshal(objects(t, text)["DaemonSet sluice-agent"])
			must(t, err)
			for want, in := range map[string]string{
				"--on-agent-away=closed": "away", "sluice@sha256:0a": "digest", "value: 192.0.2.1": "api",
				"maxUnavailable: 10%": "percents", "containerPort: 9999": "tuned",
				"- uninstall\n": "no-cni", "- install\n": "",
			} {
				has := strings.Contains(string(ds), want)
				if in != "" && has != (in == name) || in == "" && has != (name != "no-cni") {
					t.Errorf("%s: has %q: %v", name, want, has)
				}
			}
		})
	}
}

// TestLint is helm lint, where a warning is an error.
func TestLint(t *testing.T) {
	for name, values := range variants {
		var vals map[string]any
		must(t, yaml.Unmarshal([]byte(values), &vals))
		for _, m := range lint.AllWithKubeVersion(filepath.Join(deploy, "chart", "sluice"), vals, "kube-system", nil).Messages {
			if m.Severity > support.InfoSev {
				t.Errorf("%s: %v", name, m)
			}
		}
	}
}

// TestSchema tries values that the schema must refuse.
func TestSchema(t *testing.T) {
	for _, values := range []string{
		"imgae: {}", "image: {repository: ''}", "image: {pullPolicy: Sometimes}", "image: {digest: latest}",
		"config: {onExit: stay}", "config: {metrics: {listen: '9965'}}", "config: {manifests: /etc}", "config: {workers: 0}",
		"config: {pinPath: /tmp/x}", "config: {uplink: [eth1]}", "config: {uplinks: eth1}", "config: {frameSize: 3000}",
		"config: {metrics: {listen: ':9965', policy: 3}}", "config: {nodeName: a}", "config: {hubble: {tls: {ca: /x}}}",
		"config: {heartbeatTimeout: 2}", "cni: {onAgentAway: open}", "cni: {binDir: opt}", "cni: {wait: soon}",
		"maxUnavailable: 0", "maxUnavailable: '0%'", "podMonitor: {interval: often}", "apiServer: {port: 70000}",
		"terminationGracePeriodSeconds: 0", "removal: {timeout: 5}", "tolerations: all",
	} {
		if _, err := helm(t, values+"\n"); err == nil {
			t.Errorf("accepted: %s", values)
		}
	}
}

// TestValues looks that whoever reads values.yaml reads of everything that there is:
// the schema knows all values there, and each that it knows is there.
func TestValues(t *testing.T) {
	read := func(name string, into any) {
		data, err := os.ReadFile(filepath.Join(deploy, "chart", "sluice", name))
		must(t, err)
		must(t, yaml.Unmarshal(data, into))
	}
	var schema, values object
	read("values.schema.json", &schema)
	read("values.yaml", &values)
	var compare func(path string, s, v object)
	compare = func(path string, s, v object) {
		props, _ := s["properties"].(object)
		for name, sub := range props {
			at := path + name
			if value, ok := v[name]; !ok {
				t.Errorf("%s is not in values.yaml", at)
			} else if o, ok := value.(object); ok && at != "config" { // its fields have a page of their own
				compare(at+".", sub.(object), o)
			}
		}
		for name := range v {
			if props != nil && props[name] == nil {
				t.Errorf("%s%s is not in the schema", path, name)
			}
		}
	}
	delete(schema["properties"].(object), "global") // helm's own
	compare("", schema, values)
}

// TestNotes reads what helm says after an installation and after an upgrade.
func TestNotes(t *testing.T) {
	chart, err := loader.Load(filepath.Join(deploy, "chart", "sluice"))
	must(t, err)
	for _, upgrade := range []bool{false, true} {
		vals := map[string]any{"image": map[string]any{"repository": "registry.example/sluice", "tag": "v9"}}
		full, err := chartutil.ToRenderValues(chart, vals, chartutil.ReleaseOptions{Name: "mine", Namespace: "net", Revision: 2,
			IsInstall: !upgrade, IsUpgrade: upgrade}, chartutil.DefaultCapabilities)
		must(t, err)
		files, err := engine.Engine{Strict: true}.Render(chart, full)
		must(t, err)
		notes := files["sluice/templates/NOTES.txt"]
		for _, want := range []string{"kubectl -n net rollout status daemonset/sluice-agent", "--image registry.example/sluice:v9", "helm uninstall mine -n net"} {
			if !strings.Contains(notes, want) {
				t.Errorf("upgrade %v: %q lacks %q", upgrade, notes, want)
			}
		}
		if upgrade != strings.Contains(notes, "helm rollback mine -n net") {
			t.Errorf("upgrade %v: %q", upgrade, notes)
		}
	}
}

// TestMonitors decodes the monitors strictly by the operator's own types.
func TestMonitors(t *testing.T) {
	text, err := helm(t, "podMonitor: {enabled: true, labels: {release: prometheus}}\nserviceMonitor: {enabled: true}\n")
	must(t, err)
	strict := func(key string, into any) {
		t.Helper()
		data, err := json.Marshal(objects(t, text)[key])
		must(t, err)
		must(t, yaml.UnmarshalStrict(data, into))
	}
	var p monitoringv1.PodMonitor
	strict("PodMonitor sluice-agent", &p)
	var s monitoringv1.ServiceMonitor
	strict("ServiceMonitor sluice-agent", &s)
	if len(p.Spec.PodMetricsEndpoints) != 1 || len(s.Spec.Endpoints) != 1 || p.Labels["release"] != "prometheus" {
		t.Errorf("%+v, %+v", p.Spec, s.Spec)
	}
}

// TestRemoval looks that what runs before "helm uninstall" may touch nothing but
// the one DaemonSet.
func TestRemoval(t *testing.T) {
	text, err := helm(t, "")
	must(t, err)
	all := objects(t, text)
	for _, key := range []string{"ServiceAccount sluice-removal", "Role sluice-removal", "RoleBinding sluice-removal", "Job sluice-removal"} {
		if all[key] == nil || all[key]["metadata"].(object)["annotations"].(object)["helm.sh/hook"] != "pre-delete" {
			t.Errorf("%s: %v", key, all[key])
		}
	}
	rules := all["Role sluice-removal"]["rules"].([]any)
	r := rules[0].(object)
	if len(rules) != 1 || !slices.Equal(r["resourceNames"].([]any), []any{"sluice-agent"}) || !slices.Equal(r["verbs"].([]any), []any{"get", "update"}) {
		t.Errorf("rules %v", rules)
	}
}
