package suggest_test

import (
	"flag"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/tools/suggest"
)

var update = flag.Bool("update", false, "rewrite golden files")

func pod(name, addr string, labels ...string) api.End {
	ns, pod, _ := strings.Cut(name, "/")
	out := []string{"k8s:io.kubernetes.pod.namespace=" + ns, "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=" + ns,
		"k8s:pod-template-hash=5f7c", "k8s:io.cilium.k8s.policy.cluster=default"}
	for _, l := range labels {
		out = append(out, "k8s:"+l)
	}
	return api.End{Addr: netip.MustParseAddr(addr), Namespace: ns, Pod: pod, Labels: out, Endpoint: 1}
}

func world(addr string) api.End {
	return api.End{Addr: netip.MustParseAddr(addr), Labels: []string{"reserved:world"}}
}

// shop is flows of a small application.
func shop() []api.Flow {
	web1, web2 := pod("shop/web-7f-1", "10.0.0.1", "app=web"), pod("shop/web-7f-2", "10.0.0.2", "app=web")
	web1.Workload, web2.Workload = "Deployment/web", "Deployment/web"
	web6 := pod("shop/web-7f-1", "fd00::1", "app=web")
	apiPod, db := pod("shop/api-1", "10.0.0.3", "app=api", "track=stable"), pod("shop/db-0", "10.0.0.4", "app=db", "statefulset.kubernetes.io/pod-name=db-0")
	canary := pod("shop/api-2", "10.0.0.5", "app=api", "track=canary")
	remote := pod("logs/sink-1", "10.0.9.1", "app.kubernetes.io/name=sink")
	remote.Endpoint = 0
	bare := pod("shop/bare", "10.0.0.6")
	dns := pod("kube-system/coredns-1", "10.0.9.53", "k8s-app=kube-dns")
	dns.Endpoint = 0
	host := api.End{Addr: netip.MustParseAddr("10.0.0.254"), Labels: []string{"reserved:host"}}
	var out []api.Flow
	add := func(src, dst api.End, proto string, port uint16) *api.Flow {
		src.Port, dst.Port = 40000+uint16(len(out)), port
		out = append(out, api.Flow{Event: "new", Verdict: "allow", Src: src, Dst: dst, Proto: proto, Reason: "ok"})
		return &out[len(out)-1]
	}
	add(world("203.0.113.7"), web1, "TCP", 443)
	add(world("203.0.113.6"), web2, "TCP", 443)
	add(world("198.51.100.1"), web2, "TCP", 443)
	add(world("2001:db8::7"), web6, "TCP", 443)
	add(web1, apiPod, "TCP", 8080)
	add(web2, apiPod, "TCP", 8080)
	add(web2, canary, "TCP", 8080)
	for p := range uint16(4) {
		add(apiPod, db, "TCP", 5432+p)
	}
	add(apiPod, db, "TCP", 9000).Event = "ended"
	add(apiPod, remote, "UDP", 514)
	add(web1, dns, "UDP", 53)
	add(apiPod, world("10.96.0.10"), "UDP", 53)
	add(host, web1, "TCP", 443)
	add(bare, db, "TCP", 5432)
	add(canary, world("192.0.2.9"), "SCTP", 3868).Audit = true
	add(web1, apiPod, "ICMP", 0)
	denied := add(web1, db, "TCP", 5432)
	denied.Event, denied.Verdict, denied.Reason = "denied", "deny", "policy"
	spoofed := add(web1, db, "TCP", 1)
	spoofed.Event, spoofed.Verdict, spoofed.Reason = "denied", "deny", "spoofed-address"
	reply := add(apiPod, web2, "TCP", 40001)
	reply.Reply, reply.Src.Port = true, 8081
	out = append(out, api.Flow{Event: "lost", Lost: 3})
	return out
}

func yaml(t *testing.T, flows []api.Flow, o suggest.Options) string {
	t.Helper()
	r, err := suggest.From(flows, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Check(); err != nil {
		t.Error(err)
	}
	var b strings.Builder
	if err := r.YAML(&b); err != nil {
		t.Fatal(err)
	}
	for _, n := range r.Notes {
		b.WriteString("## " + n + "\n")
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	all := suggest.Default()
	all.Denied, all.Replies = true, true
	narrow := suggest.Default()
	narrow.Namespaces, narrow.MaxBlocks = []string{"logs"}, 2
	for name, o := range map[string]suggest.Options{"shop": suggest.Default(), "shop-all": all, "shop-other-namespace": narrow} {
		got := yaml(t, shop(), o)
		path := filepath.Join("testdata", name+".golden")
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
}

// Who may ask kube-system for names by TCP finds the resolver, where that gets a
// policy as well, open for it.
func TestResolver(t *testing.T) {
	client, dns := pod("shop/web", "10.0.0.1", "app=web"), pod("kube-system/coredns-1", "10.0.9.53", "k8s-app=kube-dns")
	client.Port, dns.Port = 40000, 53
	r, err := suggest.From([]api.Flow{{Event: "new", Verdict: "allow", Src: client, Dst: dns, Proto: "UDP", Reason: "ok"}}, suggest.Default())
	if err != nil {
		t.Fatal(err)
	}
	want := []suggest.Port{{Proto: "TCP", Port: 53}, {Proto: "UDP", Port: 53}}
	for _, p := range r.Policies {
		rules := p.Egress
		if p.Namespace == "kube-system" {
			rules = p.Ingress
		}
		if len(rules) != 1 || !slices.Equal(rules[0].Ports, want) {
			t.Errorf("%s/%s: rules %+v, want one with ports %v", p.Namespace, p.Name, rules, want)
		}
	}
	if len(r.Policies) != 2 {
		t.Errorf("%d policies, want 2", len(r.Policies))
	}
}

// The order in which flows are seen changes nothing but what is the last.
func TestDeterministic(t *testing.T) {
	flows := shop()
	want := yaml(t, flows, suggest.Default())
	for seed := range uint64(20) {
		rand.New(rand.NewPCG(seed, 1)).Shuffle(len(flows), func(i, k int) { flows[i], flows[k] = flows[k], flows[i] })
		if got := yaml(t, flows, suggest.Default()); got != want {
			t.Fatalf("seed %d: got\n%s\nwant\n%s", seed, got, want)
		}
	}
}

func TestNothing(t *testing.T) {
	if got := yaml(t, nil, suggest.Default()); got != "" {
		t.Errorf("of no flows: %s", got)
	}
	flows := []api.Flow{{Event: "new", Verdict: "allow", Src: world("192.0.2.1"), Dst: world("192.0.2.2"), Proto: "TCP"}, {Event: "new", Verdict: "allow", Proto: "TCP"}}
	if got := yaml(t, flows, suggest.Default()); strings.Contains(got, "kind:") {
		t.Errorf("of nobody's flows: %s", got)
	}
}

// Texts that YAML would take for something else stay texts.
func TestStrangeLabels(t *testing.T) {
	a := pod("n1/a", "10.0.0.1", "app=true", "0=1", "x=")
	b := pod("n1/b", "10.0.0.2", "app=1.0", "null=no")
	got := yaml(t, []api.Flow{{Event: "new", Verdict: "allow", Src: a, Dst: func() api.End { b.Port = 80; return b }(), Proto: "TCP"}}, suggest.Default())
	for _, want := range []string{`app: "true"`, `app: "1.0"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in\n%s", want, got)
		}
	}
}

// A policy for some pods leaves those alone that have all of their labels and more:
// on another node, little of what they do was seen.
func TestMoreLabels(t *testing.T) {
	web, canary := pod("shop/web", "10.0.0.1", "app=web"), pod("shop/canary", "10.0.9.2", "app=web", "canary=yes")
	web.Port, canary.Endpoint = 8080, 0
	got := yaml(t, []api.Flow{{Event: "new", Verdict: "allow", Src: canary, Dst: web, Proto: "TCP"}}, suggest.Default())
	if !strings.Contains(got, "key: canary\n      operator: DoesNotExist") {
		t.Errorf("canary is selected too:\n%s", got)
	}
}

// Values of labels need not be names of objects.
func TestStrangeNames(t *testing.T) {
	for label, want := range map[string]string{"a_.b..C": "suggested-a.b.c", "Web_1": "suggested-web-1"} {
		dst := pod("n1/b", "10.0.0.2", "app="+label)
		dst.Port = 80
		got := yaml(t, []api.Flow{{Event: "new", Verdict: "allow", Src: world("192.0.2.1"), Dst: dst, Proto: "TCP"}}, suggest.Default())
		if !strings.Contains(got, "name: "+want+"\n") {
			t.Errorf("%s: %s is missing in\n%s", label, want, got)
		}
	}
}

// What stands in a comment stays there.
func TestComments(t *testing.T) {
	src := pod("n1/a\n---\nkind: Evil\n#", "10.0.0.1", "app=a")
	dst := pod("n1/b\u2028kind: Evil", "10.0.0.2", "app=b")
	dst.Port = 80
	r, err := suggest.From([]api.Flow{{Event: "new", Verdict: "allow", Src: src, Dst: dst, Proto: "TCP"}}, suggest.Default())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := r.YAML(&b); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); strings.Contains(got, "\nkind: Evil") || strings.Contains(got, "\u2028") {
		t.Errorf("a name got out of its comment:\n%s", got)
	}
}

// An ipBlock opens no Service: who takes an address for one is told.
func TestServiceAddress(t *testing.T) {
	const note = "only a rule for the pods behind it opens it"
	web, node := pod("shop/web", "10.0.0.1", "app=web"), world("10.1.0.1")
	node.Labels = []string{"reserved:remote-node"}
	for _, c := range []struct {
		src, dst api.End
		want     bool
	}{{web, world("10.96.0.5"), true}, {web, world("192.0.2.1"), false}, {web, node, false}, {world("10.96.0.5"), web, false}} {
		c.dst.Port = 80
		got := yaml(t, []api.Flow{{Event: "new", Verdict: "allow", Src: c.src, Dst: c.dst, Proto: "TCP"}}, suggest.Default())
		if strings.Contains(got, "# note: ") != c.want || strings.Contains(got, "## "+c.dst.Addr.String()) != c.want || strings.Contains(got, note) != c.want {
			t.Errorf("%v to %v: note wanted: %v, got\n%s", c.src.Addr, c.dst.Addr, c.want, got)
		}
	}
}
