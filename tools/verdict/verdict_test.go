package verdict_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/verdict"
)

const manifests = `
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}, {type: InternalIP, address: "fd01::1"}]}
---
{apiVersion: v1, kind: Node, metadata: {name: n3}, status: {addresses: [{type: InternalIP, address: "fd01::3"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: guest}, spec: {nodeName: n3, hostNetwork: true}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: dual, labels: {app: dual}}, spec: {nodeName: n1}, status: {podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: four, labels: {app: four}}, spec: {nodeName: n1}, status: {podIPs: [{ip: 10.0.0.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: six, labels: {app: six}}, spec: {nodeName: n2}, status: {podIPs: [{ip: "fd00::3"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: host}, spec: {nodeName: n1, hostNetwork: true}, status: {podIPs: [{ip: 192.168.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: host-bare}, spec: {nodeName: n1, hostNetwork: true}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: waiting}, spec: {nodeName: n1}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: done}, spec: {nodeName: n1}, status: {phase: Succeeded, podIPs: [{ip: 10.0.0.9}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: twin1}, spec: {nodeName: n1}, status: {podIPs: [{ip: 10.0.0.7}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: twin2}, spec: {nodeName: n1}, status: {podIPs: [{ip: 10.0.0.7}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: thief}, spec: {nodeName: n2}, status: {podIPs: [{ip: "fd01::3"}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: a, name: four}
spec:
  podSelector: {matchLabels: {app: four}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: dual}}}], ports: [{port: 80}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: a, name: any-port}
spec:
  podSelector: {matchLabels: {app: six}}
  ingress: [{from: [{podSelector: {}}]}]
`

func load(t *testing.T, text string) *verdict.Cluster {
	t.Helper()
	path := filepath.Join(t.TempDir(), "all.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := verdict.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAnswer(t *testing.T) {
	c := load(t, manifests)
	tests := []struct {
		name, query string
		verdict     string
		by          string // of what decided
		errWith     string
	}{
		{"allowed by a rule", `{"src":"a/dual","dst":"a/four","proto":"TCP","port":80}`, "allow", "NetworkPolicy a/four ingress[0]", ""},
		{"unknown fields are ignored", `{"src":"a/dual","dst":"a/four","proto":"TCP","port":80,"note":{"x":1}}`, "allow", "NetworkPolicy a/four ingress[0]", ""},
		{"lower case", `{"src":"a/dual","dst":"a/four","proto":"tcp","port":80}`, "allow", "NetworkPolicy a/four ingress[0]", ""},
		{"number of protocol", `{"src":"a/dual","dst":"a/four","proto":6,"port":"80"}`, "allow", "NetworkPolicy a/four ingress[0]", ""},
		{"TCP by default", `{"src":"a/dual","dst":"a/four","port":80}`, "allow", "NetworkPolicy a/four ingress[0]", ""},
		{"default deny", `{"src":"a/dual","dst":"a/four","proto":"UDP","port":80}`, "deny", "NetworkPolicy a/four (no ingress rule matches)", ""},
		{"egress is named first", `{"src":"a/four","dst":"a/dual","port":80}`, "deny", "NetworkPolicy a/four (no egress rule matches)", ""},
		{"by address", `{"src":"ip:10.0.0.1","dst":"ip:10.0.0.2","port":80}`, "allow", "NetworkPolicy a/four ingress[0]", ""},
		{"mapped address", `{"src":"ip:::ffff:10.0.0.1","dst":"a/four","port":80}`, "allow", "NetworkPolicy a/four ingress[0]", ""},
		{"from outside", `{"src":"ip:203.0.113.1","dst":"a/four","port":80}`, "deny", "NetworkPolicy a/four (no ingress rule matches)", ""},
		{"second family", `{"src":"a/dual","dst":"a/six","port":80}`, "allow", "NetworkPolicy a/any-port ingress[0]", ""},
		{"no policy", `{"src":"ip:203.0.113.1","dst":"a/dual","port":80}`, "allow", "no policy", ""},
		{"both outside", `{"src":"ip:203.0.113.1","dst":"ip:203.0.113.2","port":80}`, "allow", "no policy", ""},
		{"itself", `{"src":"a/four","dst":"a/four","port":1}`, "allow", "same pod", ""},
		{"itself by address", `{"src":"a/four","dst":"ip:10.0.0.2","port":1}`, "allow", "same pod", ""},
		{"own node", `{"src":"ip:192.168.0.1","dst":"a/four","port":1}`, "allow", "own node", ""},
		{"host-network pod on the own node", `{"src":"a/host","dst":"a/four","port":1}`, "allow", "own node", ""},
		{"host-network pod without addresses", `{"src":"a/host-bare","dst":"a/four","port":1}`, "allow", "own node", ""},
		{"other node", `{"src":"ip:fd01::1","dst":"a/six","port":1}`, "deny", "NetworkPolicy a/any-port (no ingress rule matches)", ""},
		{"host-network pod on another node", `{"src":"a/host-bare","dst":"a/six","port":1}`, "deny", "NetworkPolicy a/any-port (no ingress rule matches)", ""},
		{"to a host-network pod", `{"src":"a/four","dst":"a/host","port":1}`, "deny", "NetworkPolicy a/four (no egress rule matches)", ""},
		{"ICMP needs no port", `{"src":"a/dual","dst":"a/six","proto":"ICMP"}`, "allow", "NetworkPolicy a/any-port ingress[0]", ""},
		{"ICMP is no TCP", `{"src":"a/dual","dst":"a/four","proto":"icmp"}`, "deny", "NetworkPolicy a/four (no ingress rule matches)", ""},
		{"other protocol", `{"src":"a/dual","dst":"a/six","proto":47}`, "allow", "NetworkPolicy a/any-port ingress[0]", ""},
		{"address of a finished pod", `{"src":"ip:10.0.0.9","dst":"a/four","port":80}`, "deny", "NetworkPolicy a/four (no ingress rule matches)", ""},

		{"unknown pod", `{"src":"a/nobody","dst":"a/four","port":80}`, "", "", "pod a/nobody: not found"},
		{"both unknown", `{"src":"a/nobody","dst":"b/four","port":80}`, "", "", "pod a/nobody: not found; pod b/four: not found"},
		{"no address", `{"src":"a/waiting","dst":"a/four","port":80}`, "", "", "pod a/waiting: has no address"},
		{"finished", `{"src":"a/done","dst":"a/four","port":80}`, "", "", "pod a/done: has finished"},
		{"twins", `{"src":"a/twin1","dst":"a/four","port":80}`, "", "", "address 10.0.0.7 is claimed by pod a/twin1, pod a/twin2"},
		{"twins' address", `{"src":"a/dual","dst":"ip:10.0.0.7","port":80}`, "", "", "address 10.0.0.7 is claimed by pod a/twin1, pod a/twin2"},
		{"a node's address", `{"src":"a/thief","dst":"a/dual","port":80}`, "", "", "address fd01::3 is claimed by pod a/thief, node n3"},
		{"a host-network pod at a claimed address", `{"src":"a/guest","dst":"a/dual","port":80}`, "", "", "address fd01::3 is claimed by pod a/thief, node n3"},
		{"no family in common", `{"src":"a/four","dst":"a/six","port":80}`, "", "", "no IP family in common"},
		{"name without namespace", `{"src":"four","dst":"a/six","port":80}`, "", "", `"four": want NAMESPACE/POD, svc:NAMESPACE/NAME or ip:ADDRESS`},
		{"bad address", `{"src":"ip:10.0.0.256","dst":"a/six","port":80}`, "", "", "ip:10.0.0.256: must be a valid IP address"},
		{"loopback", `{"src":"a/four","dst":"ip:127.0.0.1","port":80}`, "", "", "never leaves its host"},
		{"no port", `{"src":"a/dual","dst":"a/four"}`, "", "", "port: Required value"},
		{"port 0", `{"src":"a/dual","dst":"a/four","port":0}`, "", "", `port "0": want 1 to 65535`},
		{"large port", `{"src":"a/dual","dst":"a/four","port":65536}`, "", "", `port "65536": want 1 to 65535`},
		{"broken port", `{"src":"a/dual","dst":"a/four","port":80.5}`, "", "", `port "80.5": want 1 to 65535`},
		{"unknown protocol", `{"src":"a/dual","dst":"a/four","proto":"QUIC","port":80}`, "", "", `proto "QUIC": want`},
		{"protocol 0", `{"src":"a/dual","dst":"a/four","proto":0,"port":80}`, "", "", `proto "0": want`},
		{"no src", `{"dst":"a/four","port":80}`, "", "", "src: Required value"},
		{"wrong want", `{"src":"a/dual","dst":"a/four","port":80,"want":"yes"}`, "", "", `want "yes": want allow or deny`},
		{"not JSON", `src=a dst=b`, "", "", "not a query"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := c.Answer(verdict.ParseQuery([]byte(tt.query)))
			if tt.errWith != "" {
				if !strings.Contains(a.Error, tt.errWith) || a.Verdict != "" {
					t.Fatalf("got verdict %q, error %q; want an error with %q", a.Verdict, a.Error, tt.errWith)
				}
				return
			}
			by := verdict.Decision{DecidedBy: a.DecidedBy, Reason: a.Reason}.Text()
			if a.Error != "" || a.Verdict != tt.verdict || by != tt.by {
				t.Errorf("got %q by %q, error %q; want %q by %q", a.Verdict, by, a.Error, tt.verdict, tt.by)
			}
		})
	}
}

// Pods that name no node are on one, together with their host-network pods.
func TestUnnamedNode(t *testing.T) {
	c := load(t, `
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: left}, status: {podIPs: [{ip: 10.0.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: placed}, spec: {nodeName: n1}, status: {podIPs: [{ip: 10.0.0.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: host}, spec: {hostNetwork: true}, status: {podIPs: [{ip: 192.168.0.1}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: a, name: closed}, spec: {podSelector: {}}}
`)
	for dst, want := range map[string]string{"a/left": verdict.Allow, "a/placed": verdict.Deny} {
		a := c.Answer(verdict.ParseQuery([]byte(`{"src":"a/host","dst":"` + dst + `","port":80}`)))
		if a.Verdict != want {
			t.Errorf("to %s: got %s %s, want %s", dst, a.Verdict, a.Error, want)
		}
	}
}

// What is not valid opens nothing: it isolates, or stops everything.
func TestInvalid(t *testing.T) {
	const pods = `
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: left}, status: {podIPs: [{ip: 10.0.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: right}, status: {podIPs: [{ip: 10.0.0.2}]}}
---
`
	tests := []struct {
		name, policy string
		refused      string // by Check
	}{
		{"wrong CIDR", `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: a, name: p}, spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}}`, ""},
		{"wrong type", `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: a, name: p}, spec: {podSelector: {}, ingress: 7}}`, ""},
		{"broken YAML", `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: a, name: p}, spec: {podSelector: {}`, "document 3"},
		{"no kind", `{apiVersion: networking.k8s.io/v1, metadata: {namespace: a, name: p}}`, "kind: Required value"},
		{"unreadable pod", `{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: z}, spec: 7}`, "Pod a/z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := load(t, pods+tt.policy)
			err := c.Check()
			if tt.refused != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refused) {
					t.Fatalf("got %v, want an error with %q", err, tt.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			a := c.Answer(verdict.ParseQuery([]byte(`{"src":"a/left","dst":"a/right","port":80}`)))
			want := []rule.PolicyRef{{Kind: "NetworkPolicy", Namespace: "a", Name: "p", Rule: rule.DefaultRule}}
			if a.Verdict != verdict.Deny || !reflect.DeepEqual(a.DecidedBy, want) {
				t.Errorf("got %+v, want a denial by %+v", a, want)
			}
		})
	}
}
