package lab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func manifestsOf(files ...string) *manifests {
	m := &manifests{}
	for i, text := range files {
		m.files = append(m.files, manifestFile{fmt.Sprintf("%d.yaml", i), []byte(text)})
	}
	m.seal()
	return m
}

func TestReadPods(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want podSpec
	}{
		"all of it": {`
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: p}
spec:
  nodeName: w
  initContainers:
  - {name: sidecar, restartPolicy: Always, ports: [{containerPort: 15001}]}
  - {name: once, ports: [{containerPort: 15002}]}
  containers:
  - {name: c, ports: [{containerPort: 80}, {containerPort: 80}, {containerPort: 53, protocol: UDP}]}
  - {name: d, ports: [{containerPort: 5060, protocol: SCTP}]}
status:
  hostIP: 192.0.2.1
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]
  conditions: [{type: Ready, status: "False"}]
`, podSpec{
			key: "shop/p", nodeName: "w", hostAddrs: addrs("192.0.2.1"), addrs: addrs("10.0.0.1", "fd00::1"),
			ports: []Port{{"TCP", 80}, {"UDP", 53}, {"SCTP", 5060}, {"TCP", 15001}},
		}},
		"little": {`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}`,
			podSpec{key: "default/p", ready: true}},
		"annotation": {`
apiVersion: v1
kind: PodList
items:
- metadata: {name: p, annotations: {sluice.dev/ips: "10.0.0.2, ::ffff:10.0.0.3,"}}
  spec: {hostNetwork: true}
  status: {conditions: [{type: Ready, status: "True"}]}
`, podSpec{key: "default/p", ready: true, hostNetwork: true, addrs: addrs("10.0.0.2", "10.0.0.3")}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := manifestsOf(c.text).cluster()
			if err != nil || len(got.pods) != 1 || !reflect.DeepEqual(got.pods[0], c.want) {
				t.Errorf("got %+v, %v\nwant %+v", got.pods, err, c.want)
			}
		})
	}
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// TestReadPodsGoesOn reads what can be read, and names the place of the rest.
func TestReadPodsGoesOn(t *testing.T) {
	const good = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\n"
	c, err := manifestsOf(
		fmt.Sprintf(good, "a")+"---\n\tnot YAML\n---\n# nothing\n---\n"+fmt.Sprintf(good, "b"),
		fmt.Sprintf(good, "a")+"---\n"+fmt.Sprintf(good, "c")+"status: {podIP: x}\n---\n"+fmt.Sprintf(good, "d")+
			"spec: {containers: [{ports: [{containerPort: 70000}]}]}\n---\n"+fmt.Sprintf(good, "e")+"status: {phase: Failed}\n",
	).cluster()
	if len(c.pods) != 2 || c.pods[0].key != "default/a" || c.pods[1].key != "default/b" {
		t.Errorf("pods: %+v", c.pods)
	}
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"0.yaml: document 2", "1.yaml: document 1: pod default/a: also in 0.yaml", "document 2: pod default/c",
		"document 3: pod default/d: port 70000/TCP",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
}

// TestReadPodsAsAgent takes for pods what the agent does: it would wait for
// others in vain.
func TestReadPodsAsAgent(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"a key twice":      {"apiVersion: v1\nkind: Pod\nmetadata: {name: a, name: b}\n", "[]"},
		"JSON objects":     {`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}} {"apiVersion":"v1","kind":"Pod","metadata":{"name":"b"}}`, "[default/a default/b]"},
		"mark of UTF-8":    {"\xef\xbb\xbfapiVersion: v1\r\nkind: Pod\r\nmetadata: {name: a}\r\n", "[default/a]"},
		"end of documents": {"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n...\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b}\n", "[default/a default/b]"},
	} {
		t.Run(name, func(t *testing.T) {
			read, _ := manifestsOf(c.text).cluster()
			got := []string{}
			for _, p := range read.pods {
				got = append(got, p.key)
			}
			if fmt.Sprint(got) != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

func TestReadManifestsFolder(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.yaml", "sub/a.yml", "c.json", ".hidden.yaml", ".git/d.yaml", "notes.txt", "queries.jsonl"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, link} {
		m, err := readManifests(path)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range m.files {
			names = append(names, f.name)
		}
		if got := strings.Join(names, " "); got != "b.yaml c.json sub/a.yml" {
			t.Errorf("files of %s: %s", path, got)
		}
	}
	before, _ := readManifests(dir)
	if err := os.Rename(filepath.Join(dir, "b.yaml"), filepath.Join(dir, "bb.yaml")); err != nil {
		t.Fatal(err)
	}
	if after, _ := readManifests(dir); after.sum == before.sum {
		t.Error("the sum doesn't tell the names of files")
	}
}

// TestMirror keeps the copy byte for byte but for pods that must be changed.
func TestMirror(t *testing.T) {
	const same = "# a comment\nkind:   NetworkPolicy\n"
	const podText = `# lost
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: given, labels: {a: b}, annotations: {k: v}}, spec: {nodeName: w1}, future: [1]}
- {apiVersion: v1, kind: Pod, metadata: {name: moved}, spec: {nodeName: w2, hostname: h}}
- {apiVersion: v1, kind: Pod, metadata: {name: host}, spec: {nodeName: w2, hostNetwork: true}}
`
	const want = `{"apiVersion":"v1","kind":"List","items":[
{"apiVersion":"v1","kind":"Pod","metadata":{"name":"given","labels":{"a":"b"},"annotations":{"k":"v","sluice.dev/ips":"10.0.0.1,fd00::1"}},"spec":{"nodeName":"w1"},"future":[1]},
{"apiVersion":"v1","kind":"Pod","metadata":{"name":"moved"},"spec":{"hostname":"h"}},
{"apiVersion":"v1","kind":"Pod","metadata":{"name":"host"},"spec":{"nodeName":"w2","hostNetwork":true}}]}`
	c, err := newMirror(filepath.Join(t.TempDir(), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	ch := &changes{node: "w1", given: map[string][]netip.Addr{"default/given": addrs("10.0.0.1", "fd00::1")}}
	if err := c.write(manifestsOf(same, podText, "{"), ch); err != nil {
		t.Fatal(err)
	}
	if got := readCopy(t, &c, "0.yaml"); got != same {
		t.Errorf("a file without such pods became %q", got)
	}
	if got := readCopy(t, &c, "2.yaml"); got != "{" {
		t.Errorf("a file that can't be read became %q", got)
	}
	var gotObj, wantObj any
	if err := yaml.Unmarshal([]byte(readCopy(t, &c, "1.yaml")), &gotObj); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &wantObj); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(gotObj, wantObj) {
		t.Errorf("pods became %v\nwant %v", gotObj, wantObj)
	}
	if err := c.write(manifestsOf(same), ch); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(c.dir); len(left) != 1 {
		t.Errorf("after two files went: %v", left)
	}
}

func readCopy(t *testing.T, c *mirror, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestPool gives each pod its own addresses, and the same ones again.
func TestPool(t *testing.T) {
	p := newPool("w1", addrs("192.0.2.1"))
	specs := []podSpec{
		{key: "x/a"}, {key: "x/b", addrs: addrs("10.244.0.3")}, {key: "x/c"},
		{key: "x/host", hostNetwork: true}, {key: "x/far", hostNetwork: true, nodeName: "w2", hostAddrs: addrs("192.0.2.2")},
	}
	first, given := p.fill(specs)
	for i, want := range []string{"[10.244.0.2 fd00:10:244::2]", "[10.244.0.3]", "[10.244.0.4 fd00:10:244::3]", "[192.0.2.1]", "[192.0.2.2]"} {
		if got := fmt.Sprint(first[i].addrs); got != want {
			t.Errorf("%s has %s, want %s", first[i].key, got, want)
		}
	}
	if _, ok := given["x/b"]; ok || len(given) != 4 {
		t.Errorf("given: %v", given)
	}
	if specs[0].addrs != nil {
		t.Error("the specs that were handed in have changed")
	}
	again, _ := p.fill([]podSpec{{key: "x/new"}, {key: "x/c"}})
	if fmt.Sprint(again[1].addrs) != "[10.244.0.4 fd00:10:244::3]" || fmt.Sprint(again[0].addrs) != "[10.244.0.5 fd00:10:244::4]" {
		t.Errorf("later: %v, %v", again[0].addrs, again[1].addrs)
	}
}

func TestPlace(t *testing.T) {
	c := &cluster{
		nodes: []nodeSpec{{"w1", addrs("192.0.2.1")}, {"w2", addrs("192.0.2.2", "2001:db8::2")}},
		pods: []podSpec{
			{key: "x/a", nodeName: "w2", addrs: addrs("10.0.0.1"), hostAddrs: addrs("192.0.2.2", "10.0.0.1")},
			{key: "x/b", nodeName: "w1", hostNetwork: true, addrs: addrs("192.0.2.1")},
			{key: "x/c", nodeName: "w1", hostNetwork: true, addrs: addrs("192.0.2.1")},
			{key: "x/d", hostNetwork: true, addrs: addrs("192.0.2.9")},
		},
	}
	if got := c.nodeName(); got != "w2" {
		t.Fatalf("node %s, want w2, which has the only pod of its own network", got)
	}
	if got := fmt.Sprint(c.nodeAddrs("w2", addrs("198.18.0.1"))); got != "[192.0.2.2 2001:db8::2 192.0.2.9]" {
		t.Errorf("node's addresses: %s", got)
	}
	if got := (&cluster{}).nodeName(); got != unnamedNode {
		t.Errorf("node %s without any", got)
	}
	if got := fmt.Sprint((&cluster{}).nodeAddrs(unnamedNode, addrs("198.18.0.1"))); got != "[198.18.0.1]" {
		t.Errorf("addresses without any: %s", got)
	}
}
