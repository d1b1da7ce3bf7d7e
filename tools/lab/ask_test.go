package lab_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/tools/lab/labtest"
)

const denyAll = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: x}
spec: {podSelector: {}, policyTypes: [Ingress]}
`

// ask runs a command that talks to a lab's agent and decodes what it says.
func ask(t *testing.T, name string, into any, args ...string) {
	t.Helper()
	code, out, stderr := labtest.Run(t, append(args, "--lab", name, "-o", "json")...)
	if code != 0 {
		t.Fatalf("%v: exit code %d: %s", args, code, stderr)
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		t.Fatalf("%v: %v in %s", args, err, out)
	}
}

// TestAskAgent has the commands that look at an agent tell what happens to it.
func TestAskAgent(t *testing.T) {
	name, dir := detached(t)
	wait := func(want int, says string, args ...string) {
		t.Helper()
		code, out, stderr := labtest.Run(t, append([]string{"policy", "wait", "--lab", name}, args...)...)
		if code != want || !strings.Contains(out+stderr, says) {
			t.Errorf("wait %v: exit code %d, want %d: %s%s", args, code, want, out, stderr)
		}
	}
	var s api.Status
	ask(t, name, &s, "status")
	if !s.Ready || !s.Synced || s.Generation == 0 || s.Published.IsZero() || len(s.Maps) == 0 || len(s.Loaded) == 0 ||
		s.FlowsMax == 0 || s.StaleMs != 0 || s.Objects.Pods != 2 || s.HeapBytes == 0 {
		t.Errorf("status: %+v", s)
	}
	first := s.Generation

	wait(1, "x/deny is not known", "--policy", "x/deny", "--timeout", "100ms")
	write(t, dir, "deny.yaml", denyAll)
	wait(0, "NetworkPolicy x/deny", "--policy", "x/deny")
	var eps []api.Endpoint
	ask(t, name, &eps, "endpoints")
	if len(eps) != 2 || !eps[0].Ingress.Isolated || eps[0].Egress.Isolated || len(eps[0].Ingress.Policies) != 1 ||
		eps[0].Ingress.Policies[0] != (api.PolicyKey{Kind: "NetworkPolicy", Namespace: "x", Name: "deny"}) || eps[0].Generation == 0 {
		t.Errorf("endpoints: %+v", eps)
	}
	ask(t, name, &s, "status")
	if s.Generation <= first {
		t.Errorf("generation %d before, %d after", first, s.Generation)
	}

	// Hits: what it denies is counted.
	if code, _, _ := labtest.Run(t, "lab", "exec", "--name", name, "x/a", "--", "timeout", "3", "bash", "-c", "exec 3<>/dev/tcp/10.0.0.2/80"); code == 0 {
		t.Error("connected in spite of the policy")
	}
	policy := func() api.Policy {
		var all []api.Policy
		ask(t, name, &all, "policy", "get", "networkpolicies", "x/deny")
		if len(all) != 1 || len(all[0].Parts) == 0 || all[0].Parts[0].Ingress == nil {
			t.Fatalf("policies: %#v", all)
		}
		return all[0]
	}
	eventually(t, "hits", func() bool { p := policy(); return p.Parts[0].Ingress.Hits.Denied > 0 && p.Hits.Denied > 0 })
	if p := policy(); p.State != api.PolicyEnforced || p.Source != "deny.yaml" || len(p.Endpoints) != 2 || p.Parts[0].Egress != nil {
		t.Errorf("policy: %+v", p)
	}

	for _, form := range []string{"table", "wide", "yaml"} {
		for _, args := range [][]string{{"status"}, {"endpoints"}, {"policy", "get"}} {
			code, out, stderr := labtest.Run(t, append(args, "--lab", name, "-o", form)...)
			if code != 0 || out == "" {
				t.Errorf("%v -o %s: exit code %d: %s", args, form, code, stderr)
			}
		}
	}

	// A version that is not valid: the last one stays, and all say why.
	write(t, dir, "deny.yaml", strings.Replace(denyAll, "policyTypes: [Ingress]", "ingress: [{ports: [{port: 70000}]}]", 1))
	eventually(t, "rejection", func() bool { return policy().State == api.PolicyOutdated })
	if p := policy(); len(p.Rejections) == 0 || !strings.Contains(p.Rejections[0].Field, "port") {
		t.Errorf("rejections: %+v", p.Rejections)
	}
	wait(1, "not valid", "--policy", "x/deny", "--timeout", "100ms")
	write(t, dir, "deny.yaml", "")
	wait(0, "is gone", "--policy", "networkpolicy/x/deny", "--gone")
	wait(0, "in force", "--for-generation", "1")
	wait(1, "not 1000000", "--for-generation", "1000000", "--timeout", "100ms")
	wait(2, "want --policy")
	wait(2, "--kind", "--for-generation", "1", "--kind", "netpol")
	for _, args := range [][]string{
		{"policy", "get", "nonsense"}, {"policy", "get", "x/y/z"}, {"policy", "get", "-o", "xml"}, {"status", "-o", "svg"},
		{"endpoints", "x/a", "x/b"}, {"status", "--socket", "/a", "--lab", "b"},
	} {
		if code, _, _ := labtest.Run(t, args...); code != 2 {
			t.Errorf("%v: exit code %d, want 2", args, code)
		}
	}
	for _, args := range [][]string{{"status", "--socket", "/no/such"}, {"endpoints", "x/none", "--lab", name}, {"policy", "get", "x/none", "--lab", name}} {
		if code, _, _ := labtest.Run(t, args...); code != 1 {
			t.Errorf("%v: exit code %d, want 1", args, code)
		}
	}
}
