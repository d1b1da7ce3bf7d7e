package verdict_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/tools/verdict"
)

// A caller on n1 may reach pods with app: ok, wherever they are, on 8080.
const serviceManifests = `
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: caller, labels: {app: caller}}, spec: {nodeName: n1}, status: {podIPs: [{ip: 10.0.1.1}, {ip: "fd00:1::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: free}, spec: {nodeName: n1}, status: {podIPs: [{ip: 10.0.1.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: near, labels: {app: ok, at: near}}, spec: {nodeName: n1, containers: [{name: c, ports: [{name: web, containerPort: 8080}]}]}, status: {podIPs: [{ip: 10.0.1.3}, {ip: "fd00:1::3"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: near-bad, labels: {app: bad, at: near}}, spec: {nodeName: n1}, status: {podIPs: [{ip: 10.0.1.4}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: far, labels: {app: ok}}, spec: {nodeName: n2}, status: {podIPs: [{ip: 10.0.2.3}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: far-bad, labels: {app: bad}}, spec: {nodeName: n2}, status: {podIPs: [{ip: 10.0.2.4}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: far-shut, labels: {app: ok, shut: "yes"}}, spec: {nodeName: n2}, status: {podIPs: [{ip: 10.0.2.5}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: a, name: caller}
spec:
  podSelector: {matchLabels: {app: caller}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: ok}}}], ports: [{port: 8080}]}, {to: [{ipBlock: {cidr: 10.96.0.0/16}}]}]
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: a, name: shut}, spec: {podSelector: {matchLabels: {shut: "yes"}}, policyTypes: [Ingress]}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: a, name: headless}, spec: {clusterIP: None, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: a, name: empty}, spec: {clusterIP: 10.96.0.99, ports: [{port: 80}]}}
---
# As written by hand: a cluster would make the endpoints of the selector.
{apiVersion: v1, kind: Service, metadata: {namespace: a, name: selected}, spec: {clusterIP: 10.96.0.98, selector: {at: near}, ports: [{port: 80, targetPort: 8080}, {port: 81, targetPort: web}]}}
`

// service is a Service at 10.96.0.i, port 80, with endpoints at 8080.
func service(name string, i int, more string, backends ...string) string {
	list := []string{}
	for _, b := range backends {
		list = append(list, fmt.Sprintf("{addresses: [%q]}", b))
	}
	return fmt.Sprintf(`---
{apiVersion: v1, kind: Service, metadata: {namespace: a, name: %[1]s}, spec: {clusterIP: 10.96.0.%[2]d, ports: [{name: w, port: 80%[3]s}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: a, name: %[1]s-x, labels: {kubernetes.io/service-name: %[1]s}}, addressType: IPv4, ports: [{name: w, port: 8080}], endpoints: [%[4]s]}
`, name, i, more, strings.Join(list, ", "))
}

func TestServices(t *testing.T) {
	c := load(t, serviceManifests+
		service("ok", 1, ", nodePort: 30080", "10.0.1.3", "10.0.2.3")+
		service("bad", 2, "", "10.0.1.4", "10.0.2.4")+
		service("near-mixed", 3, "", "10.0.1.3", "10.0.1.4", "10.0.2.3")+
		service("far-mixed", 4, "", "10.0.1.3", "10.0.2.3", "10.0.2.4")+
		service("shut", 5, "", "10.0.2.3", "10.0.2.5")+
		service("self", 6, "", "10.0.1.1")+
		service("world", 7, "", "10.0.1.3", "203.0.113.9")+`---
{apiVersion: v1, kind: Service, metadata: {namespace: a, name: six}, spec: {clusterIP: "fd00:96::1", ports: [{name: w, port: 80, nodePort: 30090}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: a, name: six-x, labels: {kubernetes.io/service-name: six}}, addressType: IPv6, ports: [{name: w, port: 8080}], endpoints: [{addresses: ["fd00:1::3"]}]}
`)
	const caller, shut = "NetworkPolicy a/caller (no egress rule matches)", "NetworkPolicy a/shut (no ingress rule matches)"
	tests := []struct {
		name, src, dst string
		port           int
		verdict        string
		by             string
		backends       string
		errWith        string
	}{
		{"all allowed", "a/caller", "svc:a/ok", 80, "allow", "NetworkPolicy a/caller egress[0]", "near:allow far:allow", ""},
		{"by its address", "a/caller", "ip:10.96.0.1", 80, "allow", "NetworkPolicy a/caller egress[0]", "near:allow far:allow", ""},
		{"by the node's port", "a/caller", "ip:192.168.0.1", 30080, "allow", "NetworkPolicy a/caller egress[0]", "near:allow far:allow", ""},
		{"by the node's port on the pod's link", "a/caller", "ip:fe80::1", 30090, "allow", "NetworkPolicy a/caller egress[0]", "near:allow", ""},
		{"all denied, an ipBlock on its address notwithstanding", "a/caller", "svc:a/bad", 80, "deny", caller, "near-bad:deny far-bad:deny", ""},
		{"denied is on the node", "a/caller", "svc:a/near-mixed", 80, "some", caller, "near:allow near-bad:deny far:allow", ""},
		{"denied is elsewhere", "a/caller", "svc:a/far-mixed", 80, "some", caller, "near:allow far:allow far-bad:deny", ""},
		{"denied is no pod", "a/caller", "ip:10.96.0.7", 80, "some", caller, "near:allow 203.0.113.9:8080:deny", ""},
		{"denied where it arrives", "a/caller", "svc:a/shut", 80, "some", shut, "far:allow far-shut:deny", ""},
		{"itself", "a/caller", "svc:a/self", 80, "allow", "same pod", "caller:allow", ""},
		{"no egress policy", "a/free", "svc:a/far-mixed", 80, "allow", "no policy", "near:allow far:allow far-bad:allow", ""},
		{"from outside", "ip:203.0.113.1", "svc:a/shut", 80, "some", shut, "far:allow far-shut:deny", ""},
		{"endpoints of a selector", "a/caller", "svc:a/selected", 80, "some", caller, "near:allow near-bad:deny", ""},
		{"and of a port by name", "a/caller", "svc:a/selected", 81, "allow", "NetworkPolicy a/caller egress[0]", "near:allow", ""},
		{"another port of its address is any address", "a/caller", "ip:10.96.0.1", 81, "allow", "NetworkPolicy a/caller egress[1]", "", ""},
		{"nothing answers at its address", "a/caller", "ip:10.96.0.99", 80, "allow", "NetworkPolicy a/caller egress[1]", "", ""},

		{"nothing answers", "a/caller", "svc:a/empty", 80, "", "", "", "TCP/80 has no endpoints"},
		{"another port", "a/caller", "svc:a/ok", 81, "", "", "", "Service a/ok: has no port TCP/81: it has TCP/80"},
		{"headless", "a/caller", "svc:a/headless", 80, "", "", "", "ask about its pods"},
		{"unknown", "a/caller", "svc:a/nobody", 80, "", "", "", "Service a/nobody: not found"},
		{"no name", "a/caller", "svc:a", 80, "", "", "", "svc:a: want svc:NAMESPACE/NAME"},
		{"as a source", "svc:a/ok", "a/caller", 80, "", "", "", "Service a/ok: is no source"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := c.Answer(verdict.ParseQuery(fmt.Appendf(nil, `{"src":%q,"dst":%q,"port":%d,"want":"some"}`, tt.src, tt.dst, tt.port)))
			if tt.errWith != "" {
				if !strings.Contains(a.Error, tt.errWith) || a.Verdict != "" {
					t.Fatalf("got verdict %q, error %q; want an error with %q", a.Verdict, a.Error, tt.errWith)
				}
				return
			}
			var backends []string
			for _, b := range a.Backends {
				name := strings.TrimPrefix(b.Pod, "a/")
				if name == "" {
					name = b.Addr.String()
				}
				backends = append(backends, name+":"+b.Verdict)
			}
			by := verdict.Decision{DecidedBy: a.DecidedBy, Reason: a.Reason}.Text()
			if a.Error != "" || a.Verdict != tt.verdict || by != tt.by || strings.Join(backends, " ") != tt.backends {
				t.Errorf("got %q by %q, %q, error %q; want %q by %q, %q", a.Verdict, by, backends, a.Error, tt.verdict, tt.by, tt.backends)
			}
			if (a.Service == "") != (tt.backends == "") || a.Differs() != (a.Verdict != verdict.Some) {
				t.Errorf("Service %q, differs %v", a.Service, a.Differs())
			}

			// The walk says the same, and is what an agent answers.
			src, err1 := c.End(tt.src)
			dst, err2 := c.End(tt.dst)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			trace, err := c.Walk(src, dst, verdict.Flow{Protocol: 6, Port: uint16(tt.port)})
			if err != nil {
				t.Fatal(err)
			}
			if trace.Verdict != a.Verdict || trace.Service != a.Service || len(trace.Backends) != len(a.Backends) || trace.Reason != a.Reason {
				t.Errorf("walk %q %q with %d backends, %q", trace.Verdict, trace.Service, len(trace.Backends), trace.Reason)
			}
			for i, b := range trace.Backends {
				if b.Verdict != a.Backends[i].Verdict {
					t.Errorf("walk to %s: %s", b.Dst, b.Verdict)
				}
			}
			if _, err := json.Marshal(trace); err != nil {
				t.Error(err)
			}
		})
	}
}
