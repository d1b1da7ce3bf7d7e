package hubbletest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/tools/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

const labName = "hubbletest"

// cli is the stock CLI with the lab's server.
func cli(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Getenv("SLUICE_HUBBLE"), args...)
	cmd.Env = append(os.Environ(), "HUBBLE_SERVER=unix:///run/sluice/lab/"+labName+"/hubble.sock")
	return cmd
}

// hubble runs the CLI to its end.
func hubble(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := cli(ctx, args...).CombinedOutput()
	return string(out), err
}

const (
	backend  = "10.244.1.20"
	database = "10.244.1.30"
	frontend = "10.244.1.10"
)

func TestStockCLI(t *testing.T) {
	if os.Getenv("SLUICE_HUBBLE") == "" {
		t.Skip("SLUICE_HUBBLE names no hubble CLI: see make test-hubble")
	}
	labtest.NeedRoot(t)
	if code, _, errs := labtest.Run(t, "lab", "up", "-f", "../../deploy/examples/three-tier", "--name", labName, "--detach"); code != 0 {
		t.Fatal(errs)
	}
	t.Cleanup(func() {
		cmd := exec.Command(labtest.Binary(t), "lab", "down", "--name", labName)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("lab down: %v: %s", err, out)
		}
		labtest.Gone(t, labName)
	})

	follow := cli(t.Context(), "observe", "-f", "--verdict", "DROPPED", "-o", "jsonpb")
	pipe, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	live := make(chan string, 64)
	go func() {
		defer close(live)
		for in := bufio.NewScanner(pipe); in.Scan(); {
			live <- in.Text()
		}
	}()
	labtest.Connect(t, labName, true, "production/frontend", backend, "8080")
	var line string
	for end := time.Now().Add(30 * time.Second); line == "" && time.Now().Before(end); { // until the CLI is connected
		labtest.Connect(t, labName, false, "production/frontend", database, "5432")
		select {
		case line = <-live:
		case <-time.After(time.Second):
		}
	}
	if line == "" {
		t.Error("observe -f shows nothing")
	} else {
		var f struct {
			Flow struct {
				Verdict     string
				Destination struct {
					PodName string `json:"pod_name"`
				}
			}
		}
		if err := json.Unmarshal([]byte(line), &f); err != nil || f.Flow.Verdict != "DROPPED" || f.Flow.Destination.PodName != "database" {
			t.Errorf("followed: %s, %v", line, err)
		}
	}
	labtest.Connect(t, labName, false, "gateway/envoy", frontend, "443")
	if err := follow.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = follow.Wait() // killed

	for _, c := range []struct {
		args string
		want []string // in this order
		not  []string
	}{
		{"status", []string{"Ok", "Current/Max Flows: ", "/16,384"}, nil},
		{"list nodes", []string{"lab", "Connected"}, nil},
		{"list namespaces", []string{"gateway", "production"}, []string{"monitoring"}},
		{"observe", []string{"production/frontend:", "-> production/backend:8080", "policy-verdict:L3-L4 EGRESS ALLOWED", "INGRESS ALLOWED",
			"production/database:5432", "policy-verdict:none EGRESS DENIED", "Policy denied DROPPED"}, nil},
		{"observe --print-policy-names", []string{"ALLOWED BY frontend-to-backend (NetworkPolicy)", "ALLOWED BY backend-from-frontend (NetworkPolicy)",
			"EGRESS DENIED BY", "default-deny (NetworkPolicy)", "INGRESS DENIED BY", "default-deny (NetworkPolicy)"}, nil},
		{"observe --verdict DROPPED --last 1", []string{"DROPPED (TCP Flags: SYN"}, []string{"8080"}},
		{"observe --first 1", []string{":8080"}, []string{"5432", "443"}},
		{"observe --since 1h --verdict FORWARDED", []string{":8080"}, []string{"DROPPED", "DENIED"}},
		{"observe --since 2020-01-01T00:00:00Z --until 2020-01-02T00:00:00Z", nil, []string{"production"}},
		{"observe --verdict DROPPED", []string{"5432", "443"}, []string{"8080"}},
		{"observe --from-pod gateway/env", []string{"gateway/envoy"}, []string{"production/backend"}},
		{"observe --to-pod production/database", []string{"5432"}, []string{"8080", ":443"}},
		{"observe --to-namespace production --from-namespace gateway", []string{":443"}, []string{"8080"}},
		{"observe --namespace monitoring", nil, []string{"production"}},
		{"observe --port 8080", []string{":8080"}, []string{"5432"}},
		{"observe --protocol udp", nil, []string{"8080"}},
		{"observe --protocol tcp --to-port 5432", []string{"5432"}, []string{"8080"}},
		{"observe --not --port 8080", []string{"5432"}, []string{"8080"}},
		{"observe --not --verdict DROPPED", []string{"8080"}, []string{"5432"}},
		{"observe --type policy-verdict", []string{"policy-verdict"}, []string{"DROPPED"}},
		{"observe --type drop", []string{"Policy denied DROPPED"}, []string{"policy-verdict"}},
		{"observe --drop-reason-desc POLICY_DENIED", []string{"DROPPED"}, []string{"8080"}},
		{"observe --traffic-direction ingress", []string{"INGRESS"}, []string{"EGRESS", "5432"}},
		{"observe --to-ip " + database + "/32", []string{"5432"}, []string{"8080"}},
		{"observe --from-label app=envoy", []string{"gateway/envoy"}, []string{"8080"}},
		{"observe --tcp-flags syn --ipv4", []string{"8080"}, nil},
		{"observe --ipv6", nil, []string{"8080"}},
		{"observe --identity world", nil, []string{"8080"}},
		{"observe --node-name la*", []string{"8080"}, nil},
		{"observe --node-name other", nil, []string{"8080"}},
		{"observe -o dict --verdict DROPPED --last 1", []string{"TIMESTAMP:", "SOURCE:", "DESTINATION:", "TYPE:", "VERDICT: DROPPED", "SUMMARY: TCP Flags: SYN"}, nil},
		{"observe -o table", []string{"TIMESTAMP", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY", "8080", "ALLOWED"}, nil},
		{"observe -o compact --print-node-name --verdict DROPPED --last 1", []string{"[lab]"}, nil},
		{"observe -o json --verdict DROPPED --last 1", []string{`"verdict":"DROPPED"`, `"drop_reason_desc":"POLICY_DENIED"`, `"ingress_denied_by"`}, nil},
		{"observe agent-events --last 5", nil, []string{"rror"}},
		{"observe -o jsonpb --verdict DROPPED --last 1", []string{`{"flow":{`, `"node_name":"lab"`}, []string{"FORWARDED"}},
		{"observe --pod production/backend --print-policy-names", []string{"ALLOWED BY"}, []string{"5432", ":443"}},
		{"observe --not --port 443 --not --port 5432", []string{"8080"}, []string{":443", "5432"}},
		{"observe --not --from-pod gateway/ --not --port 443", []string{"8080", "5432"}, []string{":443"}}, // what is both
		{"observe --from-ip 10.244.3.0/24", []string{":443"}, []string{"8080", "5432"}},
		{"observe --workload Deployment/none", nil, []string{"production"}},
		{"observe --namespace gateway --verdict DROPPED", []string{":443"}, []string{"5432", "8080"}},
		{"observe --label app=database", []string{"5432"}, []string{"8080"}},
		{"observe --reply", nil, []string{"SYN)"}},
		{"observe --type trace", nil, []string{"policy-verdict", "DROPPED"}},
		{"observe --all --verdict AUDIT", nil, []string{"production"}},
	} {
		t.Run(strings.ReplaceAll(c.args, "/", "_"), func(t *testing.T) {
			out, err := hubble(t, strings.Fields(c.args)...)
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			rest := out
			for _, want := range c.want {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("%q is missing, or not in this order, in:\n%s", want, out)
				}
				rest = after
			}
			if i := slices.IndexFunc(c.not, func(s string) bool { return strings.Contains(out, s) }); i >= 0 {
				t.Errorf("%q is in:\n%s", c.not[i], out)
			}
		})
	}
	for args, want := range map[string]string{
		"observe --http-method GET":       "http_method",
		"observe --from-fqdn example.com": "source_fqdn",
		"observe --to-service a/b":        "destination_service",
		"observe --from-ip 10.0.0.0/99":   "10.0.0.0/99",
		"observe --cel-expression true":   "cel_expression",
		"observe --protocol dns":          "protocol",
		"observe --trace-id 1":            "trace_id",
		"observe --interface eth0":        "interface",
		"observe --snat-ip 10.0.0.1":      "source_ip_xlated",
	} {
		out, err := hubble(t, strings.Fields(args)...)
		if err == nil || !strings.Contains(out, "InvalidArgument") || !strings.Contains(out, want) {
			t.Errorf("%s: %v: %s", args, err, out)
		}
	}
}
