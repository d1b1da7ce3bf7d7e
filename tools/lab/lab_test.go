package lab_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/deploy/examples"
	"github.com/sluice-net/sluice/tools/lab"
	"github.com/sluice-net/sluice/tools/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// up brings up a lab that the test's end takes down.
func up(t *testing.T, change func(*lab.Options)) *lab.Lab {
	t.Helper()
	labtest.NeedRoot(t)
	opts := lab.Default("")
	opts.Name, opts.Self = lab.UniqueName("t"), labtest.Binary(t)
	opts.Message = func(text string) { t.Log(text) }
	change(&opts)
	l, err := lab.Up(t.Context(), opts)
	if err != nil {
		labtest.Gone(t, opts.Name)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		labtest.Gone(t, opts.Name)
	})
	return l
}

func probe(t *testing.T, l *lab.Lab, queries string) []lab.Answer {
	t.Helper()
	list, err := lab.ReadQueries(strings.NewReader(queries))
	if err != nil {
		t.Fatal(err)
	}
	answers, err := l.Probe(t.Context(), list)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range answers {
		if a.Error != "" || a.Differs() {
			t.Errorf("%s to %s %d/%s: want %s, got %s (%s), %v, error %q",
				a.Src, a.Dst, a.Port, a.Proto, a.Want, a.Verdict, a.Seen, a.DecidedBy, a.Error)
		}
	}
	return answers
}

// TestExamples attempts every connection of every example, on every kind of
// node: each example says what must come of it.
func TestExamples(t *testing.T) {
	labtest.NeedRoot(t)
	folders, err := fs.Glob(examples.FS, "*")
	if err != nil || len(folders) < 12 {
		t.Fatalf("examples: %v, %v", folders, err)
	}
	for _, folder := range folders {
		files, err := fs.Sub(examples.FS, folder)
		if err != nil {
			t.Fatal(err)
		}
		queries, err := fs.ReadFile(files, "queries.jsonl")
		if err != nil {
			t.Fatal(err)
		}
		for _, cni := range []netlab.Shape{netlab.Routed, netlab.Bridge} {
			for _, offload := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s/offload=%v", folder, cni, offload), func(t *testing.T) {
					t.Parallel()
					l := up(t, func(o *lab.Options) { o.Files, o.CNI, o.Offload = files, cni, offload })
					for _, a := range probe(t, l, string(queries)) {
						if a.Want == "" {
							t.Errorf("%s to %s: says nothing of what is wanted", a.Src, a.Dst)
						}
					}
				})
			}
		}
	}
}

const twoNodes = `
apiVersion: v1
kind: NodeList
items:
- {metadata: {name: w1}, status: {addresses: [{type: InternalIP, address: 192.168.9.1}, {type: Hostname, address: w1}]}}
- {metadata: {name: w2}, status: {addresses: [{type: InternalIP, address: 192.168.9.2}]}}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}, spec: {nodeName: w1, containers: [{name: c}]}, status: {podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: moved, namespace: x}, spec: {nodeName: w2, containers: [{name: c}]}, status: {podIPs: [{ip: 10.0.0.2}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: given, namespace: x}, spec: {nodeName: w1, containers: [{name: c}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: done, namespace: x}, spec: {containers: [{name: c}]}, status: {phase: Succeeded, podIPs: [{ip: 10.0.0.1}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: h1, namespace: x}, spec: {nodeName: w1, hostNetwork: true, containers: [{name: c, ports: [{containerPort: 80}]}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: h2, namespace: x}, spec: {nodeName: w2, hostNetwork: true, containers: [{name: c, ports: [{containerPort: 80}]}]}, status: {podIPs: [{ip: 192.168.9.2}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: h3, namespace: x}, spec: {nodeName: w2, hostNetwork: true, containers: [{name: c, ports: [{containerPort: 80}]}]}, status: {hostIP: 192.168.9.2}}
- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed, namespace: x}, spec: {podSelector: {}}}
`

// TestNodes has pods of two nodes, pods in their networks, one without
// addresses and one that has finished.
func TestNodes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "all.yaml", twoNodes)
	l := up(t, func(o *lab.Options) { o.Manifests = dir })
	probe(t, l, `
{"src":"x/a","dst":"x/moved","port":80,"want":"deny"}
{"src":"x/moved","dst":"x/a","port":80,"want":"deny"}
{"src":"x/given","dst":"x/a","port":80,"want":"deny"}
{"src":"x/given","dst":"ip:1.2.3.4","port":80,"want":"allow"}
{"src":"x/given","dst":"ip:2001:db8::4","proto":"udp","port":80,"want":"allow"}
{"src":"x/h1","dst":"x/a","port":80,"want":"allow"}
{"src":"x/h1","dst":"x/moved","port":80,"want":"allow"}
{"src":"ip:192.168.9.1","dst":"x/a","port":80,"want":"allow"}
{"src":"x/h2","dst":"x/a","port":80,"want":"deny"}
{"src":"x/h3","dst":"x/a","proto":"UDP","port":80,"want":"deny"}
{"src":"ip:192.168.9.2","dst":"x/a","port":80,"want":"deny"}
{"src":"x/a","dst":"x/h1","proto":"UDP","port":80,"want":"allow"}
{"src":"x/a","dst":"x/h2","proto":"SCTP","port":80,"want":"allow"}
{"src":"x/h1","dst":"x/h3","port":80,"want":"allow"}
`)
}

// TestQueriesThatCantBeAsked are answered in their place, by what is wrong.
func TestQueriesThatCantBeAsked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "all.yaml", twoNodes)
	l := up(t, func(o *lab.Options) { o.Manifests = dir })
	list, err := lab.ReadQueries(strings.NewReader(`
{"src":"x/a","dst":"x/nobody","port":80}
{"src":"x/a","dst":"x/done","port":80}
{"src":"x/moved","dst":"ip:2001:db8::1","port":80}
{"src":"x/a","dst":"ip:127.0.0.1","port":80}
{"src":"x/a","dst":"ip:none","port":80}
{"src":"x/h1","dst":"x/a","port":80}
`))
	if err != nil {
		t.Fatal(err)
	}
	answers, err := l.Probe(t.Context(), list)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"no pod x/nobody", "no pod x/done", "no IP family in common", "not a unicast", "unable to parse", ""} {
		a := answers[i]
		if a.Bad != (want != "") || !strings.Contains(a.Error, want) {
			t.Errorf("query %d: bad %v, error %q, want one with %q", i, a.Bad, a.Error, want)
		}
	}
}

// TestProbesAtOnce asks many more queries than sockets that may be open, from
// several goroutines.
func TestProbesAtOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "all.yaml", twoNodes)
	l := up(t, func(o *lab.Options) { o.Manifests = dir })
	var queries strings.Builder
	for i := range 600 {
		fmt.Fprintf(&queries, `{"src":"x/given","dst":"ip:1.2.3.4","proto":"%s","port":%d,"want":"allow"}`+"\n",
			[]string{"TCP", "UDP", "SCTP"}[i%3], 1000+i%7)
		fmt.Fprintf(&queries, `{"src":"x/given","dst":"x/a","port":%d,"want":"deny"}`+"\n", 1000+i%7)
	}
	for range 2 {
		t.Run("", func(t *testing.T) { probe(t, l, queries.String()) })
	}
}

// TestRefresh changes pods and policies of a lab that is up.
func TestRefresh(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "pods.yaml", podYAML("x", "a", "10.0.0.1")+podYAML("x", "b", "10.0.0.2"))
	l := up(t, func(o *lab.Options) { o.Manifests = dir })
	step := func(queries string) {
		t.Helper()
		if err := l.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		probe(t, l, queries)
	}
	step(`{"src":"x/a","dst":"x/b","port":80,"want":"allow"}`)
	write(t, dir, "policy.yaml", closedYAML)
	step(`{"src":"x/a","dst":"x/b","port":80,"want":"deny"}`)
	// A pod moves, one goes, one comes, without addresses.
	write(t, dir, "pods.yaml", podYAML("x", "a", "10.0.0.9")+podYAML("z", "new", ""))
	step(`{"src":"z/new","dst":"x/a","port":80,"want":"deny"}` + "\n" + `{"src":"x/a","dst":"z/new","proto":"UDP","port":53,"want":"allow"}`)
	if ns, addrs := l.Pod("x/a"); ns == nil || fmt.Sprint(addrs) != "[10.0.0.9]" {
		t.Errorf("pod x/a has addresses %v", addrs)
	}
	if ns, _ := l.Pod("x/b"); ns != nil {
		t.Error("pod x/b is still there")
	}
	if err := os.Remove(filepath.Join(dir, "policy.yaml")); err != nil {
		t.Fatal(err)
	}
	step(`{"src":"z/new","dst":"x/a","port":80,"want":"allow"}`)
	// What can't be read changes no pod.
	write(t, dir, "broken.yaml", "{")
	if err := l.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := l.State(); len(s.Pods) != 2 || len(s.Messages) != 1 || !strings.Contains(s.Messages[0], "broken.yaml") {
		t.Errorf("with a broken file: %d pods, messages %q", len(s.Pods), s.Messages)
	}
}

// TestUpWithFaults comes up with what can be read, and says what can't and what
// is not valid. Neither opens anything.
func TestUpWithFaults(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a.yaml", "kind: [\n")
	write(t, dir, "pods.yaml", podYAML("x", "a", "10.0.0.1")+podYAML("x", "b", "10.0.0.2")+podYAML("z", "c", "10.0.0.3"))
	write(t, dir, "policy.yaml", closedYAML)
	write(t, dir, "wrong.yaml", `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: wrong, namespace: z},
spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}}`)
	var said []string
	l := up(t, func(o *lab.Options) {
		o.Manifests = dir
		o.Message = func(text string) { said = append(said, text) }
	})
	for _, want := range []string{"a.yaml document 1: ", "wrong.yaml document 1: NetworkPolicy z/wrong: spec.ingress[0].from[0].ipBlock.cidr: Invalid value"} {
		if !slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("said %q, want %q", said, want)
		}
	}
	probe(t, l, `{"src":"z/c","dst":"x/a","port":80,"want":"deny"}
{"src":"x/b","dst":"z/c","port":80,"want":"deny"}
{"src":"x/b","dst":"ip:192.0.2.1","port":80,"want":"allow"}`)
}

// TestUpRefuses leaves nothing of a lab that can't come up.
func TestUpRefuses(t *testing.T) {
	labtest.NeedRoot(t)
	for name, c := range map[string]struct{ yaml, want string }{
		"nothing":   {"", "no *.yaml"},
		"broken":    {"{", "all.yaml: document 1"},
		"bad IP":    {podYAML("x", "a", "10.0.0.300"), "10.0.0.300"},
		"twice":     {podYAML("x", "a", "10.0.0.1") + podYAML("x", "a", "10.0.0.2"), "also in all.yaml"},
		"same IP":   {podYAML("x", "a", "10.0.0.1") + podYAML("x", "b", "10.0.0.1"), "belongs to x/a"},
		"loopback":  {podYAML("x", "a", "127.0.0.1"), "not a unicast"},
		"multicast": {podYAML("x", "a", "224.0.0.1"), "not a unicast"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.yaml != "" {
				write(t, dir, "all.yaml", c.yaml)
			}
			opts := lab.Default(dir)
			opts.Name, opts.Self = lab.UniqueName("t"), labtest.Binary(t)
			l, err := lab.Up(t.Context(), opts)
			if err == nil {
				l.Close()
				t.Fatal("it came up")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want an error with %q", err, c.want)
			}
			labtest.Gone(t, opts.Name)
		})
	}
}

const closedYAML = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: x}
spec: {podSelector: {}}
`

func podYAML(ns, name, ip string) string {
	status := ""
	if ip != "" {
		status = fmt.Sprintf("status: {podIPs: [{ip: %s}]}\n", ip)
	}
	return fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {namespace: %s, name: %s}
spec: {containers: [{name: c, ports: [{containerPort: 80}]}]}
%s`, ns, name, status)
}

// write puts a file in its place at once: nobody who follows the folder reads half of it.
func write(t *testing.T, dir, name, text string) {
	t.Helper()
	tmp := filepath.Join(dir, "."+name)
	if err := errors.Join(os.WriteFile(tmp, []byte(text), 0o600), os.Rename(tmp, filepath.Join(dir, name))); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what happens beside the test.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
