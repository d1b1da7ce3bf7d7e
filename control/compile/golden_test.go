package compile_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/source/manifest"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

var protocolNames = map[string]policy.Protocol{"tcp": policy.TCP, "udp": policy.UDP, "sctp": policy.SCTP, "icmp": policy.ICMP}

// TestGolden compiles each testdata/*.yaml for node n1 and answers the queries
// beside it, by Explain and by the Set. The golden file has both.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			base := strings.TrimSuffix(f, ".yaml")
			got := answer(t, f, base+".queries")
			if *update {
				if err := os.WriteFile(base+".golden", []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(base + ".golden")
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

var someDomains = map[string][]netip.Addr{
	"api.example.com": addrs("198.51.100.1", "2001:db8::1"), "example.com": addrs("198.51.100.2"),
	"deep.api.example.com": addrs("198.51.100.3"), "example.org": addrs("198.51.100.4"),
}

func answer(t *testing.T, manifests, queries string) string {
	st := store.New()
	src, err := manifest.Open(manifests, st)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, r := range src.State().Rejections {
		fmt.Fprintf(&b, "rejected %s: %s: %s: %s: %s\n", r.Source, r.Object, r.Field, r.Reason, r.Effect)
	}
	for _, n := range src.State().Notes {
		fmt.Fprintf(&b, "note %s\n", n)
	}
	text, err := os.ReadFile(queries)
	if err != nil {
		t.Fatal(err)
	}
	st.Read(func(v store.View) {
		var endpoints []endpoint.Endpoint
		for p := range v.Pods() {
			if p.NodeName == node && !p.HostNetwork {
				endpoints = append(endpoints, endpoint.Endpoint{Namespace: p.Namespace, Name: p.Name, Addrs: p.IPs})
			}
		}
		slices.SortFunc(endpoints, func(a, b endpoint.Endpoint) int { return strings.Compare(a.String(), b.String()) })
		for i := range endpoints {
			endpoints[i].ID = endpoint.ID(i + 1)
		}
		set := compile.New(compile.Config{}).Compile(compile.Input{View: v, Node: node, Endpoints: endpoints, Domains: someDomains})
		checkForm(t, set)
		b.WriteString(render(set))
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				fmt.Fprintf(&b, "%s: %s\n", line, ask(t, v, set, endpoints, line))
			}
		}
	})
	return b.String()
}

// ask answers one query and checks that the Set, where the ends are local,
// says the same as Explain.
func ask(t *testing.T, v store.View, set *rule.Set, endpoints []endpoint.Endpoint, line string) string {
	t.Helper()
	w := strings.Fields(line)
	proto, port, _ := strings.Cut(w[2], "/")
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	q := resolve.Query{Src: end(w[0]), Dst: end(w[1]), Protocol: protocolNames[proto], Port: uint16(number)}
	d, err := resolve.Explain(v, q, resolve.World{Domains: someDomains})
	if err != nil {
		t.Fatal(err)
	}
	out := "deny"
	if d.Allowed {
		out = "allow"
	}
	out += mark(d.Audit, " audit") + renderRefs(d.DecidedBy)
	if d.Text != "" {
		out += " (" + d.Text + ")"
	}
	if d.Text == "same pod" {
		return out
	}
	for _, e := range endpoints {
		if slices.Contains(e.Addrs, d.Src) {
			checkJudgement(t, set, e.ID, rule.Egress, d.Dst, q, d.Egress)
		}
		if slices.Contains(e.Addrs, d.Dst) {
			checkJudgement(t, set, e.ID, rule.Ingress, d.Src, q, d.Ingress)
		}
	}
	return out
}

func checkJudgement(t *testing.T, set *rule.Set, id endpoint.ID, dir rule.Direction, remote netip.Addr, q resolve.Query, j resolve.Judgement) {
	t.Helper()
	action, audit, _, cause := ruletest.Evaluate(set, id, dir, remote, uint8(q.Protocol), q.Port)
	want := j.Action
	if j.Audit {
		want = rule.Allow
	}
	if action != want || audit != j.Audit || !slices.Equal(set.Causes[cause].Refs, j.Refs) || set.Causes[cause].Text != j.Text {
		t.Errorf("%+v %s: the Set says %s %v %+v, Explain %+v", q, dir, action, audit, set.Causes[cause], j)
	}
}

func end(s string) resolve.End {
	if ns, name, ok := strings.Cut(s, "/"); ok {
		return resolve.End{Pod: store.Key{Namespace: ns, Name: name}}
	}
	return resolve.End{Addr: netip.MustParseAddr(s)}
}

func TestExplainUnknownPod(t *testing.T) {
	store.New().Read(func(v store.View) {
		_, err := resolve.Explain(v, resolve.Query{Src: end("a/b"), Dst: end("10.0.0.1")}, resolve.World{})
		if _, ok := err.(*resolve.UnknownPodError); !ok {
			t.Errorf("error %v", err)
		}
	})
}
