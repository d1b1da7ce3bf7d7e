package manifest_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/source/manifest"
	"github.com/sluice-net/sluice/control/store"
)

// folder writes files below a new folder and returns its path.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "manifests")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string) (*manifest.Source, *store.Store) {
	t.Helper()
	st := store.New()
	src, err := manifest.Open(path, st)
	if err != nil {
		t.Fatal(err)
	}
	return src, st
}

func reload(t *testing.T, src *manifest.Source) {
	t.Helper()
	if _, err := src.Reload(); err != nil {
		t.Fatal(err)
	}
}

// names lists what a store has: pods, and policies with "!" for rejected
// parts.
func names(st *store.Store) []string {
	var out []string
	st.Read(func(v store.View) {
		for p := range v.Pods() {
			out = append(out, "pod "+p.Key().String())
		}
		for p := range v.AllPolicies() {
			s := "policy " + p.Origin.Namespace + "/" + p.Origin.Name
			if p.Rejected {
				s += "!"
			}
			out = append(out, s)
		}
	})
	slices.Sort(out)
	return out
}

func expect(t *testing.T, st *store.Store, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := names(st); !slices.Equal(got, want) {
		t.Errorf("the store has\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func pod(ns, name string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", namespace: " + ns + "}\n"
}

func np(ns, name, spec string) string {
	return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " + name + ", namespace: " + ns + "}\nspec: " + spec + "\n"
}

func TestObjects(t *testing.T) {
	dir := folder(t, map[string]string{
		"10-ns.yaml": "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: prod\n  labels: {team: a}\n  annotations: {sluice.dev/audit: \"true\"}\n",
		"sub/pod.yml": `apiVersion: v1
kind: Pod
metadata: {name: web, namespace: prod, uid: u1, labels: {app: web}, annotations: {sluice.dev/ips: "10.0.0.9, fd00::9"}}
spec:
  nodeName: n1
  serviceAccountName: runner
  initContainers:
  - {name: once, ports: [{name: gone, containerPort: 1}]}
  - {name: side, restartPolicy: Always, ports: [{name: metrics, containerPort: 9090}]}
  containers:
  - {name: c, ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}, {containerPort: 99}]}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "::ffff:10.0.0.2"}, {ip: "fd00::1"}]}
`,
		"pods.json": `{"apiVersion":"v1","kind":"PodList","items":[
			{"metadata":{"name":"done"},"status":{"phase":"Succeeded","podIP":"10.0.0.3"}},
			{"metadata":{"name":"host","namespace":"kube-system"},"spec":{"hostNetwork":true,"nodeName":"n1"},"status":{"podIP":"192.168.0.1"}},
			{"metadata":{"name":"young","namespace":"kube-system"},"spec":{"hostNetwork":true,"nodeName":"n1"},"status":{"hostIP":"192.168.0.1","hostIPs":[{"ip":"192.168.0.1"},{"ip":"203.0.113.1"}]}},
			{"metadata":{"name":"unborn","namespace":"kube-system"},"spec":{"nodeName":"n1"},"status":{"hostIP":"192.168.0.1"}}]}`,
		"node.yaml": "---\n# a node\napiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {zone: z}}\nstatus: {addresses: [{type: InternalIP, address: 192.168.0.1}, {type: Hostname, address: n1}, {type: ExternalIP, address: 203.0.113.1}]}\n",
		"more.yaml": "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ServiceAccount, metadata: {name: runner, namespace: prod}}\n- {apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}\n",
		"notes.txt": "not a manifest",
	})
	src, st := open(t, dir)
	state := src.State()
	if len(state.Rejections) > 0 {
		t.Errorf("rejections: %+v", state.Rejections)
	}
	wantNotes := []string{"apps/v1 Deployment: kind not used, 1 skipped, the first in more.yaml document 1 item 2"}
	if !slices.Equal(state.Notes, wantNotes) {
		t.Errorf("notes: %q", state.Notes)
	}
	if state.Files != 5 || state.Objects != 8 {
		t.Errorf("%d files, %d objects", state.Files, state.Objects)
	}
	ip := netip.MustParseAddr
	st.Read(func(v store.View) {
		want := &store.Pod{Namespace: "prod", Name: "web", UID: "u1", Labels: map[string]string{"app": "web"},
			ServiceAccount: "runner", NodeName: "n1",
			IPs: []netip.Addr{ip("10.0.0.1"), ip("10.0.0.2"), ip("fd00::1"), ip("10.0.0.9"), ip("fd00::9")},
			Ports: []store.NamedPort{{Name: "metrics", Protocol: policy.TCP, Port: 9090},
				{Name: "http", Protocol: policy.TCP, Port: 8080}, {Name: "dns", Protocol: policy.UDP, Port: 53}}}
		if got := v.Pod(store.Key{Namespace: "prod", Name: "web"}); !reflect.DeepEqual(got, want) {
			t.Errorf("pod %+v, want %+v", got, want)
		}
		if p := v.Pod(store.Key{Namespace: "default", Name: "done"}); p == nil || p.Addrs() != nil || p.ServiceAccount != "default" {
			t.Errorf("finished pod %+v", p)
		}
		if p := v.Pod(store.Key{Namespace: "kube-system", Name: "young"}); p == nil || !slices.Equal(p.Addrs(), []netip.Addr{ip("192.168.0.1"), ip("203.0.113.1")}) {
			t.Errorf("pod of the host's network without a status %+v", p)
		}
		if p := v.Pod(store.Key{Namespace: "kube-system", Name: "unborn"}); p == nil || len(p.Addrs()) > 0 {
			t.Errorf("pod without addresses %+v", p)
		}
		if got := v.NodeAddrs("n1"); !slices.Equal(got, []netip.Addr{ip("192.168.0.1"), ip("203.0.113.1")}) {
			t.Errorf("addresses of the node: %v", got)
		}
		if ns := v.Namespace("prod"); ns == nil || !ns.Audit {
			t.Errorf("namespace %+v", ns)
		}
		if got := v.NamespaceLabels("prod"); got["team"] != "a" || got[store.NameLabel] != "prod" {
			t.Errorf("labels of the namespace: %v", got)
		}
		if got := v.NamespaceLabels("kube-system"); v.Namespace("kube-system") != nil || got[store.NameLabel] != "kube-system" {
			t.Errorf("labels of the implicit namespace: %v", got)
		}
	})
}

func TestRejections(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string // names
		rejected   []policy.Rejection
		notes      []string
	}{
		{"syntax", pod("a", "x") + "---\nfoo: [\n---\n" + pod("a", "z"), []string{"pod a/x", "pod a/z"},
			[]policy.Rejection{{Source: "f.yaml document 2", Reason: "line 5: did not find expected node content",
				Effect: "what this file last said, and doesn't say any more, stays in force"}}, nil},
		{"key twice", "apiVersion: v1\nkind: Pod\nkind: Pod\n", nil,
			[]policy.Rejection{{Source: "f.yaml document 1", Reason: "line 3: key \"kind\" already set in map",
				Effect: "what this file last said, and doesn't say any more, stays in force"}}, nil},
		{"no object", "- a\n", nil, []policy.Rejection{{Source: "f.yaml document 1", Reason: "line 1: not an object",
			Effect: "what this file last said, and doesn't say any more, stays in force"}}, nil},
		{"no kind", "---\n---\napiVersion: v1\n", nil, []policy.Rejection{{Source: "f.yaml document 1", Reason: "kind: Required value",
			Effect: "what this file last said, and doesn't say any more, stays in force"}}, nil},
		{"no version", "kind: NetworkPolicy\nmetadata: {name: x}\n", nil, []policy.Rejection{{Source: "f.yaml document 1", Reason: "apiVersion: Required value",
			Effect: "what this file last said, and doesn't say any more, stays in force"}}, nil},
		{"another version", "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: x}\n", nil,
			[]policy.Rejection{{Source: "f.yaml document 1", Reason: `no matches for kind "NetworkPolicy" in version "extensions/v1beta1"`,
				Effect: "what this file last said, and doesn't say any more, stays in force"}}, nil},
		{"another group", "apiVersion: crd.antrea.io/v1beta1\nkind: NetworkPolicy\nmetadata: {name: x}\n", nil, nil,
			[]string{"crd.antrea.io/v1beta1 NetworkPolicy: kind not used, 1 skipped, the first in f.yaml document 1"}},
		{"JSON objects without markers", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"}}
{"apiVersion":"v1","kind":"Pod","metadata":{"name":"y"}} {"apiVersion":"v1","kind":"Pod",
"metadata":{"name":"z"},"spec":7}
`, []string{"pod default/x", "pod default/y"}, []policy.Rejection{{Object: "Pod default/z", Source: "f.yaml document 3",
			Reason: "json: cannot unmarshal number into Go struct field Pod.spec of type v1.PodSpec",
			Effect: "its last valid version stays, if there is one"}}, nil},
		{"something behind a JSON object", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"}}
# a comment
{"apiVersion":"v1","kind":"Pod"`, []string{"pod default/x"}, []policy.Rejection{{Source: "f.yaml document 2",
			Reason: "line 3: did not find expected ',' or '}'",
			Effect: "what this file last said, and doesn't say any more, stays in force"}}, nil},
		{"the same twice", pod("default", "x") + "---\napiVersion: v1\nkind: Pod\nmetadata: {name: x}\n", []string{"pod default/x"},
			[]policy.Rejection{{Object: "Pod default/x", Source: "f.yaml document 2", Field: "metadata.name",
				Reason: `Duplicate value: "x"`, Effect: "the one in f.yaml document 1 is in force"}}, nil},
		{"policies without names", strings.ReplaceAll(np("a", "x-", "{podSelector: {}}")+"---\n"+np("a", "y-", "{podSelector: {}}"), "name:", "generateName:"),
			[]string{"policy a/(f.yaml document 1)!", "policy a/(f.yaml document 2)!"},
			[]policy.Rejection{{Object: "NetworkPolicy a/(f.yaml document 1)", Source: "f.yaml document 1", Field: "metadata.name",
				Reason: "Required value: name or generateName is required", Effect: "the pods that it selects are isolated for ingress"},
				{Object: "NetworkPolicy a/(f.yaml document 2)", Source: "f.yaml document 2", Field: "metadata.name",
					Reason: "Required value: name or generateName is required", Effect: "the pods that it selects are isolated for ingress"}}, nil},
		{"a policy twice", np("a", "x", "{podSelector: {}}") + "---\n" + np("a", "x", "{podSelector: {}}"), []string{"policy a/x"},
			[]policy.Rejection{{Object: "NetworkPolicy a/x", Source: "f.yaml document 2", Field: "metadata.name",
				Reason: `Duplicate value: "x"`, Effect: "the one in f.yaml document 1 is in force"}}, nil},
		{"two policies of one name", np("a", "x", "{podSelector: {}}") + "---\n" + np("a", "x", "{podSelector: {}, egress: 7}"), []string{"policy a/x", "policy a/x (f.yaml document 2)!"},
			[]policy.Rejection{{Object: "NetworkPolicy a/x (f.yaml document 2)", Source: "f.yaml document 2",
				Reason: "json: cannot unmarshal number into Go struct field NetworkPolicySpec.spec.egress of type []v1.NetworkPolicyEgressRule",
				Effect: "the pods that it selects are isolated for ingress and egress"},
				{Object: "NetworkPolicy a/x (f.yaml document 2)", Source: "f.yaml document 2", Field: "metadata.name",
					Reason: `Duplicate value: "x"`, Effect: "the one in f.yaml document 1 is in force, and what this one would close is closed"}}, nil},
		{"unknown field", np("a", "x", "{podSelector: {}, ingress: [{form: []}]}"), []string{"policy a/x!"},
			[]policy.Rejection{{Object: "NetworkPolicy a/x", Source: "f.yaml document 1", Field: "spec.ingress[0].form",
				Reason: "Forbidden: unknown field", Effect: "the pods that it selects are isolated for ingress"}}, nil},
		{"unknown field beside the spec", np("a", "x", "{podSelector: {}}") + "status: {}\n", []string{"policy a/x"}, nil,
			[]string{`f.yaml document 1: NetworkPolicy a/x: unknown field "status", ignored`}},
		{"unknown field of a pod", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {node: n}\n", []string{"pod default/x"}, nil,
			[]string{`f.yaml document 1: Pod default/x: unknown field "spec.node", ignored`}},
		{"bad policy", np("a", "x", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}"), []string{"policy a/x!"},
			[]policy.Rejection{{Object: "NetworkPolicy a/x", Source: "f.yaml document 1", Field: "spec.ingress[0].from[0].ipBlock.cidr",
				Reason: `Invalid value: "10.0.0.0/33": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)`,
				Effect: "the pods that it selects are isolated for ingress"}}, nil},
		{"policy of a wrong type", np("a", "x", "{podSelector: {}, egress: 7}"), []string{"policy a/x!"},
			[]policy.Rejection{{Object: "NetworkPolicy a/x", Source: "f.yaml document 1",
				Reason: "json: cannot unmarshal number into Go struct field NetworkPolicySpec.spec.egress of type []v1.NetworkPolicyEgressRule",
				Effect: "the pods that it selects are isolated for ingress and egress"}}, nil},
		{"pod of a wrong type", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: 7\n", nil,
			[]policy.Rejection{{Object: "Pod default/x", Source: "f.yaml document 1",
				Reason: "json: cannot unmarshal number into Go struct field Pod.spec of type v1.PodSpec",
				Effect: "its last valid version stays, if there is one"}}, nil},
		{"address", "apiVersion: v1\nkind: Pod\nmetadata: {name: x, annotations: {sluice.dev/ips: \"10.0.0.1,10.0.0\"}}\n", []string{"pod default/x"},
			[]policy.Rejection{{Object: "Pod default/x", Source: "f.yaml document 1", Field: "metadata.annotations[sluice.dev/ips]",
				Reason: `Invalid value: "10.0.0": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`,
				Effect: "without this address"}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src, st := open(t, folder(t, map[string]string{"f.yaml": tt.text}))
			expect(t, st, tt.want...)
			state := src.State()
			if !slices.Equal(state.Rejections, tt.rejected) {
				t.Errorf("rejections %+v\nwant %+v", state.Rejections, tt.rejected)
			}
			if !slices.Equal(state.Notes, tt.notes) {
				t.Errorf("notes %q\nwant %q", state.Notes, tt.notes)
			}
		})
	}
}

// TestDuplicates reads two policies of one name. What the second denies, or
// isolates, is closed, and nothing is opened for it.
func TestDuplicates(t *testing.T) {
	tests := []struct{ kind, first, second, closed string }{
		{"networking.k8s.io/v1, kind: NetworkPolicy", "podSelector: {}", "podSelector: {}, policyTypes: [Egress], egress: [{}]", "egress isolated"},
		{"policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy", "tier: Admin, priority: 1, subject: {namespaces: {}}",
			"tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}, {action: Pass, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: {}}]}]", "ingress deny"},
		{"cilium.io/v2, kind: CiliumNetworkPolicy", "endpointSelector: {}, ingress: [{}]", "endpointSelector: {}, egress: [{toEntities: [all]}], egressDeny: [{toCIDR: [192.0.2.1]}]", "egress isolated deny"},
		{"projectcalico.org/v3, kind: GlobalNetworkPolicy", "types: [Egress]", "ingress: [{action: Allow}]", "ingress isolated deny"},
		{"projectcalico.org/v3, kind: StagedNetworkPolicy", "types: [Egress]", "ingress: [{action: Allow}]", ""},
	}
	for _, tt := range tests {
		file := "{apiVersion: " + tt.kind + ", metadata: {name: p}, spec: {%s}}\n"
		dir := folder(t, map[string]string{"f.yaml": fmt.Sprintf(file, tt.first), "sub/f.yaml": fmt.Sprintf(file, tt.second)})
		src, st := open(t, dir)
		closed := func() (out []string) {
			st.Read(func(v store.View) {
				for p := range v.AllPolicies() {
					for direction, x := range map[string]policy.Section{"ingress": p.Ingress, "egress": p.Egress} {
						if p.Origin.Name == "p" || !x.Applies {
							continue
						}
						text := direction
						if x.Default == policy.Deny {
							text += " isolated"
						}
						for _, r := range x.Rules {
							text += map[policy.Action]string{policy.Deny: " deny", policy.Allow: " allow", policy.Pass: " pass"}[r.Action]
						}
						out = append(out, text)
						if p.Origin.Name != "p (sub:f.yaml document 1)" || !p.Rejected {
							t.Errorf("%s, rejected %v", p.Origin, p.Rejected)
						}
					}
				}
			})
			return out
		}
		if got := strings.Join(closed(), ", "); got != tt.closed || len(src.State().Rejections) != 1 {
			t.Errorf("%s: closed %q, want %q; %v", tt.kind, got, tt.closed, src.State().Rejections)
		}
		if err := os.Remove(filepath.Join(dir, "f.yaml")); err != nil {
			t.Fatal(err)
		}
		reload(t, src)
		if got := closed(); got != nil || len(src.State().Rejections) > 0 {
			t.Errorf("%s: closed %q without the first; %v", tt.kind, got, src.State().Rejections)
		}
	}
}

func TestOpenFaults(t *testing.T) {
	empty := folder(t, map[string]string{"README": "", ".hidden.yaml": pod("a", "x")})
	dangling := folder(t, nil)
	if err := os.Symlink("nowhere", filepath.Join(dangling, "x.yaml")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		empty:                             "no *.yaml, *.yml or *.json file",
		filepath.Join(empty, "not-there"): "no such file",
		dangling:                          "no such file",
	} {
		if _, err := manifest.Open(path, store.New()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("open %s: %v, want %q", path, err, want)
		}
	}
}

// TestLastGood follows files that break and are mended.
func TestLastGood(t *testing.T) {
	good := np("a", "x", "{podSelector: {}}")
	bad := np("a", "x", "{podSelector: {}, ingress: [{from: [{}]}]}")
	dir := folder(t, map[string]string{"f.yaml": pod("a", "p") + "---\n" + good, "g.yaml": pod("b", "q")})
	f := filepath.Join(dir, "f.yaml")
	src, st := open(t, dir)
	expect(t, st, "pod a/p", "pod b/q", "policy a/x")

	write(t, f, pod("a", "p")+"---\nspec: [\n---\n"+pod("a", "new"))
	reload(t, src)
	expect(t, st, "pod a/p", "pod a/new", "pod b/q", "policy a/x")

	write(t, f, "spec: [\n") // broken once more: what stayed, stays
	reload(t, src)
	expect(t, st, "pod a/p", "pod a/new", "pod b/q", "policy a/x")

	write(t, f, pod("a", "new"))
	reload(t, src)
	expect(t, st, "pod a/new", "pod b/q")

	write(t, f, good)
	reload(t, src)
	write(t, f, bad)
	reload(t, src)
	expect(t, st, "pod b/q", "policy a/x", "policy a/x!")
	if r := src.State().Rejections; len(r) != 1 || r[0].Effect != "the pods that it selects are isolated for ingress; the rules of its last valid version stay in force as well" {
		t.Errorf("rejections: %+v", r)
	}

	write(t, f, bad+"---\n:\n- [")
	reload(t, src)
	expect(t, st, "pod b/q", "policy a/x", "policy a/x!")

	write(t, f, good)
	reload(t, src)
	expect(t, st, "pod b/q", "policy a/x")

	write(t, f, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x, namespace: a}\nspec: []\n")
	reload(t, src)
	expect(t, st, "pod b/q", "policy a/x", "policy a/x!")

	admin := "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: c, labels: {v: %s}}\nspec: {tier: Admin, priority: 1, subject: {namespaces: {}}}\n"
	g := filepath.Join(dir, "g.yaml")
	write(t, g, fmt.Sprintf(admin, "one"))
	reload(t, src)
	write(t, g, fmt.Sprintf(admin, "1"))
	reload(t, src)
	expect(t, st, "policy /c", "policy /c!", "policy a/x", "policy a/x!")

	write(t, g, pod("b", "q"))
	reload(t, src)
	expect(t, st, "pod b/q", "policy a/x", "policy a/x!")

	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	before := src.State()
	if changed, err := src.Reload(); err == nil || !changed {
		t.Errorf("reload of what is gone: %v, %v", changed, err)
	}
	if changed, err := src.Reload(); err == nil || changed {
		t.Errorf("second reload of what is gone: %v, %v", changed, err)
	}
	expect(t, st, "pod b/q", "policy a/x", "policy a/x!")
	if n := len(src.State().Rejections); n != len(before.Rejections)+1 {
		t.Errorf("%d rejections", n)
	}

	write(t, f, pod("a", "p"))
	reload(t, src)
	expect(t, st, "pod a/p")
	if r := src.State().Rejections; len(r) > 0 {
		t.Errorf("rejections: %+v", r)
	}
}

func TestReloadChangesNothing(t *testing.T) {
	dir := folder(t, map[string]string{"f.yaml": pod("a", "p") + "---\n" + np("a", "x", "{podSelector: {}}")})
	src, st := open(t, dir)
	generation := st.Generation()
	if changed, err := src.Reload(); changed || err != nil {
		t.Errorf("reload of the same: %v, %v", changed, err)
	}
	write(t, filepath.Join(dir, "f.yaml"), pod("a", "p")+"---\n# a comment\n"+np("a", "x", "{podSelector: {}}"))
	if changed, err := src.Reload(); !changed || err != nil {
		t.Errorf("reload of another comment: %v, %v", changed, err)
	}
	if st.Generation() != generation {
		t.Error("a comment changed the store")
	}
	digest, err := manifest.Digest(dir)
	if err != nil || digest != src.State().Digest {
		t.Errorf("digest %s, %v, want %s", digest, err, src.State().Digest)
	}
}

// TestPipe has a pipe appear in a folder: nobody writes it, and it is said so.
func TestPipe(t *testing.T) {
	dir := folder(t, map[string]string{"a.yaml": pod("a", "x")})
	src, st := open(t, dir)
	if err := syscall.Mkfifo(filepath.Join(dir, "b.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := src.Reload(); !changed || err != nil {
		t.Errorf("changed %v, %v", changed, err)
	}
	expect(t, st, "pod a/x")
	if r := src.State().Rejections; len(r) != 1 || r[0].Source != "b.yaml" || !strings.HasSuffix(r[0].Reason, "b.yaml: not a regular file") {
		t.Errorf("rejections %+v", r)
	}
}
