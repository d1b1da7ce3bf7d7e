package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/tools/verdict"
)

var update = flag.Bool("update", false, "rewrite golden files")

// runCLI runs a command as run does, in this process.
func runCLI(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errs)
	if err := root.ExecuteContext(t.Context()); err != nil {
		exit := &exitError{code: exitFailed, err: err}
		errors.As(err, &exit)
		if exit.err != nil {
			fmt.Fprintln(&errs, "Error:", err)
		}
		code = exit.code
	}
	return out.String(), errs.String(), code
}

// golden compares everything that a command says with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "policy", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

const (
	shop       = "testdata/policy/shop"
	shopNext   = "testdata/policy/shop-next"
	services   = "testdata/policy/services"
	shopAsked  = shop + "/queries.jsonl"
	faulty     = "testdata/policy/faulty"
	oneQuery   = `{"src":"shop/web","dst":"shop/api","proto":"TCP","port":8443}` + "\n"
	wrongQuery = `{"src":"shop/web","dst":"shop/api","proto":"TCP","port":8443,"want":"deny"}` + "\n"
)

// threePods is a cluster with a label that the API would not take.
const threePods = `
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {namespace: s, name: a}, status: {podIP: 10.0.0.1}}
- {apiVersion: v1, kind: Pod, metadata: {namespace: s, name: b}, status: {podIP: 10.0.0.2}}
- {apiVersion: v1, kind: Pod, metadata: {namespace: s, name: c, labels: {app: what is this}}, status: {podIP: 10.0.0.3}}
- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: s, name: p}, spec: {podSelector: {}}}
`

const badAction = `
{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: c}, spec: {tier: Admin, priority: 1, subject: {namespaces: {}},
  ingress: [{action: allow, from: [{namespaces: {}}]}]}}
`

const badPolicy = `---
{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {namespace: s, name: bad}, spec: {order: first, ingress: [{action: Allow}]}}
`

func TestPolicyGolden(t *testing.T) {
	tests := []struct {
		name string
		code int
		args []string
	}{
		{"verdict-jsonl", 0, []string{"verdict", "-f", shop, "--queries", shopAsked, "--expect"}},
		{"verdict-table", 0, []string{"verdict", "-f", shop, "--queries", shopAsked, "-o", "table"}},
		{"walk-except", 0, []string{"verdict", "-f", shop, "ip:198.51.100.200", "shop/api", "8443"}},
		{"walk-tiers", 1, []string{"verdict", "-f", shop, "lab/rat", "shop/web", "TCP/8080", "--exit-code"}},
		{"walk-port", 0, []string{"verdict", "-f", shop, "shop/web", "shop/api", "TCP/8080"}},
		{"walk-allowed", 0, []string{"verdict", "-f", shop, "shop/api", "shop/db", "5432", "--exit-code"}},
		{"walk-node", 0, []string{"verdict", "-f", shop, "ops/agent", "shop/api", "icmp"}},
		{"walk-json", 0, []string{"verdict", "-f", shop, "shop/web", "shop/db", "5432", "-o", "json"}},
		{"service-jsonl", 0, []string{"verdict", "-f", services, "--queries", services + "/queries.jsonl", "--expect"}},
		{"service-table", 0, []string{"verdict", "-f", services, "--queries", services + "/queries.jsonl", "-o", "table"}},
		{"service-walk", 0, []string{"verdict", "-f", services, "a/caller", "svc:a/selected", "80"}},
		{"lint", 1, []string{"policy", "lint", "-f", faulty}},
		{"lint-json", 1, []string{"policy", "lint", "-f", faulty, "-o", "json"}},
		{"lint-clean", 0, []string{"policy", "lint", "-f", shop}},
		{"matrix", 0, []string{"policy", "matrix", "-f", shop}},
		{"matrix-ports", 0, []string{"policy", "matrix", "-f", shop, "--port", "TCP/5432", "--port", "8443"}},
		{"matrix-svg", 0, []string{"policy", "matrix", "-f", shop, "-o", "svg"}},
		{"diff", 1, []string{"policy", "diff", "-f", shop, "-f", shopNext}},
		{"diff-same", 0, []string{"policy", "diff", "-f", shop, "-f", shop}},
		{"diff-json", 1, []string{"policy", "diff", "-f", shop, "-f", shopNext, "-o", "json"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, errs, code := runCLI(t, "", tt.args...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d; stderr: %s", code, tt.code, errs)
			}
			golden(t, tt.name, "$ sluice "+strings.Join(tt.args, " ")+"\n"+out+"--- stderr\n"+errs)
		})
	}
}

func TestPolicyExit(t *testing.T) {
	empty := t.TempDir()
	broken := filepath.Join(t.TempDir(), "broken.yaml")
	if err := os.WriteFile(broken, []byte("kind: [\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		stdin  string
		args   []string
		code   int
		stderr string // a part of it
		stdout string // a part of it
	}{
		{"stdin", oneQuery, []string{"verdict", "-f", shop, "--queries", "-"}, 0, "", `"verdict":"allow"`},
		{"want is not compared", wrongQuery, []string{"verdict", "-f", shop, "--queries", "-"}, 0, "", `"verdict":"allow"`},
		{"not as wanted", wrongQuery, []string{"verdict", "-f", shop, "--queries", "-", "--expect"}, 1, "shop/web to shop/api TCP/8443: want deny, got allow: NetworkPolicy shop/api ingress[0]", `"want":"deny"`},
		{"nothing to expect", oneQuery, []string{"verdict", "-f", shop, "--queries", "-", "--expect"}, 2, `none of 1 queries has a "want"`, ""},
		{"no such pod", `{"src":"shop/nobody","dst":"shop/api","port":1}` + "\n" + oneQuery, []string{"verdict", "-f", shop, "--queries", "-"}, 2, "pod shop/nobody: not found", `"error":"pod shop/nobody: not found"`},
		{"no query", "what?\n", []string{"verdict", "-f", shop, "--queries", "-"}, 2, "line 1: not a query", `"error":"line 1: not a query`},
		{"a list", "[{}]\n", []string{"verdict", "-f", shop, "--queries", "-"}, 2, "line 1: not a query: want an object, got array", `"error":"line 1: `},
		{"a number for a name", `{"src":1,"dst":"shop/api","port":1}`, []string{"verdict", "-f", shop, "--queries", "-"}, 2, "line 1: src: want a string, got number", `"error":"line 1: `},
		{"no file of queries", "", []string{"verdict", "-f", shop, "--queries", "testdata/none"}, 2, "testdata/none", ""},
		{"no folder", "", []string{"verdict", "-f", "testdata/none", "--queries", shopAsked}, 2, "testdata/none", ""},
		{"empty folder", "", []string{"verdict", "-f", empty, "--queries", shopAsked}, 2, "no *.yaml", `"error":"read manifests from `},
		{"faulty query of an empty folder", "{}", []string{"verdict", "-f", empty, "--queries", "-"}, 2, "no *.yaml", `"error":"line 1: `},
		{"manifests on stdin", threePods, []string{"verdict", "-f", "-", "s/a", "s/b", "80"}, 0, "", "deny: s/a (10.0.0.1) to s/b (10.0.0.2) TCP/80"},
		{"lint of stdin", threePods, []string{"policy", "lint", "-f", "-"}, 1, "1 errors", `error   Pod s/c: metadata.labels: Invalid value: "what is this"`},
		{"an action that is none", badAction, []string{"policy", "lint", "-f", "-"}, 1, "", `spec.ingress[0].action: Invalid value: "allow": not a known action`},
		{"a policy that is not valid, in a walk", threePods + badPolicy, []string{"verdict", "-f", "-", "s/a", "s/c", "80"}, 0, "s/bad: spec.order", "→ all ingress deny"},
		{"both on stdin", "", []string{"verdict", "-f", "-", "--queries", "-"}, 2, "stdin", ""},
		{"diff of stdin with itself", "", []string{"policy", "diff", "-f", "-", "-f", "-"}, 2, "stdin", ""},
		{"tier in a walk", "", []string{"verdict", "-f", shop, "shop/web", "shop/db", "5432", "-o", "json"}, 0, "", `"tier": "networkpolicy"`},
		{"folders as arguments", "", []string{"policy", "diff", shop, shopNext}, 2, `unexpected argument "` + shop + `"`, ""},
		{"broken file", "", []string{"verdict", "-f", broken, "--queries", shopAsked}, 2, "broken.yaml", ""},
		{"no manifests", "", []string{"verdict", "--queries", shopAsked}, 2, "--filename", ""},
		{"nothing asked", "", []string{"verdict", "-f", shop}, 2, "want --queries, or SRC DST PORT", ""},
		{"too few", "", []string{"verdict", "-f", shop, "shop/web", "80"}, 2, "want SRC DST PORT, got 2", ""},
		{"both ways", "", []string{"verdict", "-f", shop, "--queries", "-", "shop/web"}, 2, "either", ""},
		{"wrong format", "", []string{"verdict", "-f", shop, "--queries", "-", "-o", "xml"}, 2, "--output=xml: want jsonl or table", ""},
		{"wrong flag", "", []string{"verdict", "--what"}, 2, "unknown flag", ""},
		{"walk to no pod", "", []string{"verdict", "-f", shop, "shop/web", "shop/nobody", "80"}, 2, "pod shop/nobody: not found", ""},
		{"walk with a wrong port", "", []string{"verdict", "-f", shop, "shop/web", "shop/api", "TCP/0"}, 2, `port "0"`, ""},
		{"invalid policies are reported", `{"src":"shop/web","dst":"other/open","port":1}`, []string{"verdict", "-f", faulty, "--queries", "-"}, 0, "spec.ingress[0].from[0].ipBlock.cidr: Invalid value", `"verdict":"allow"`},
		{"lint of nothing", "", []string{"policy", "lint", "-f", "testdata/none"}, 2, "testdata/none", ""},
		{"lint of a broken file", "", []string{"policy", "lint", "-f", broken}, 1, "1 errors", "broken.yaml"},
		{"matrix of nothing", "", []string{"policy", "matrix", "-f", empty}, 2, "no *.yaml", ""},
		{"matrix at no port", "", []string{"policy", "matrix", "-f", shop, "--port", "TCP/x"}, 2, `port "x"`, ""},
		{"diff of one", "", []string{"policy", "diff", "-f", shop}, 2, "want it twice", ""},
		{"diff with nothing", "", []string{"policy", "diff", "-f", shop, "-f", empty}, 2, "no *.yaml", ""},
		{"unknown shell", "", []string{"completion", "tcsh"}, 2, `unknown command "tcsh"`, ""},
		{"unknown subcommand", "", []string{"policy", "what"}, 2, "what", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, errs, code := runCLI(t, tt.stdin, tt.args...)
			if code != tt.code || !strings.Contains(errs, tt.stderr) || !strings.Contains(out, tt.stdout) {
				t.Errorf("code %d, want %d\nstdout: %s\nwant in it: %s\nstderr: %s\nwant in it: %s", code, tt.code, out, tt.stdout, errs, tt.stderr)
			}
		})
	}
}

// A faulty line doesn't shift the answers of the others.
func TestVerdictOrder(t *testing.T) {
	out, _, code := runCLI(t, oneQuery+"\n{}\n"+oneQuery, "verdict", "-f", shop, "--queries", "-")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != exitUsage || len(lines) != 3 {
		t.Fatalf("code %d, lines %q", code, lines)
	}
	for i, want := range []string{verdict.Allow, "", verdict.Allow} {
		var a verdict.Answer
		if err := json.Unmarshal([]byte(lines[i]), &a); err != nil || a.Verdict != want || (a.Error == "") != (want != "") {
			t.Errorf("line %d: %s: %v", i+1, lines[i], err)
		}
	}
}

// TestExamples asks the queries of every example that we deploy.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../deploy/examples/*/queries.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatal("no examples", err)
	}
	for _, f := range files {
		dir := filepath.Dir(f)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			out, errs, code := runCLI(t, "", "verdict", "-f", dir, "--queries", f, "--expect")
			if code != 0 || out == "" || errs != "" {
				t.Errorf("code %d: %s", code, errs)
			}
			if _, errs, code := runCLI(t, "", "policy", "lint", "-f", dir); code != 0 {
				t.Errorf("lint: code %d: %s", code, errs)
			}
		})
	}
}

// BenchmarkVerdictProcess measures from the start of the process to the last
// answer.
func BenchmarkVerdictProcess(b *testing.B) {
	bin := filepath.Join(b.TempDir(), "sluice")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for b.Loop() {
		if out, err := exec.Command(bin, "verdict", "-f", shop, "--queries", shopAsked, "--expect").CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
}
