package verdict_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/verdict"
	"github.com/sluice-net/sluice/tools/verdict/verdicttest"
)

// compare asks the compiled rules, resolve.Explain and the walk the same
// question, and returns what they agree on.
func compare(t *testing.T, c *verdict.Cluster, src, dst verdict.End, pair verdict.Pair, f verdict.Flow) verdict.Decision {
	t.Helper()
	what := fmt.Sprintf("%s (%s) to %s (%s) %s", src.Name, pair.Src, dst.Name, pair.Dst, f)
	got, err := c.Judge(src, dst, pair, f)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	d, err := c.Explain(src, dst, pair, f)
	if err != nil {
		t.Fatalf("%s: explain: %v", what, err)
	}
	want := verdict.Decision{Allowed: d.Allowed, Audit: d.Audit, DecidedBy: d.DecidedBy, Reason: d.Text}
	// Policies that isolate together come in any order.
	sorted := func(refs []rule.PolicyRef) []rule.PolicyRef {
		return slices.SortedFunc(slices.Values(refs), func(a, b rule.PolicyRef) int {
			return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
		})
	}
	got.DecidedBy, want.DecidedBy = sorted(got.DecidedBy), sorted(want.DecidedBy)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s: compiled rules say %+v, Explain %+v", what, got, want)
	}
	// Walk picks the first pair itself, and compares each direction.
	trace, err := c.Walk(src, dst, f)
	if err != nil {
		t.Fatalf("%s: walk: %v", what, err)
	}
	if trace.SrcAddr == pair.Src && trace.DstAddr == pair.Dst && (trace.Verdict == verdict.Allow) != got.Allowed {
		t.Fatalf("%s: the walk says %s, the rest %+v", what, trace.Verdict, got)
	}
	return got
}

// TestVerdictsAgree compares compiled rules, Explain, the walk and a naive
// reading of the API's text.
func TestVerdictsAgree(t *testing.T) {
	clusters := uint64(150)
	if testing.Short() {
		clusters = 30
	}
	for seed := range clusters {
		r := rand.New(rand.NewPCG(seed, 7))
		random := verdicttest.Random(r)
		path, err := random.Write(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		c, err := verdict.Load(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.State.Rejections) > 0 {
			t.Fatalf("seed %d: %v", seed, c.State.Rejections)
		}
		compareAll(t, seed, r, c, random)
	}
}

func compareAll(t *testing.T, seed uint64, r *rand.Rand, c *verdict.Cluster, random *verdicttest.Cluster) {
	t.Helper()
	pods := map[string]*corev1.Pod{}
	var names []string
	for _, p := range random.Pods {
		names = append(names, p.Namespace+"/"+p.Name)
		pods[names[len(names)-1]] = p
	}
	for _, a := range append(slices.Clone(verdicttest.Outside), "192.168.0.1", "192.168.0.2") {
		names = append(names, "ip:"+a)
	}
	for range 200 {
		src, err1 := c.End(names[r.IntN(len(names))])
		dst, err2 := c.End(names[r.IntN(len(names))])
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		pairs, err := verdict.Pairs(src, dst)
		if err != nil {
			continue
		}
		proto := verdicttest.Protocols[r.IntN(3)]
		port := verdicttest.Ports[r.IntN(len(verdicttest.Ports))] - int32(r.IntN(2))
		number, err := verdict.ParseProtocol(string(proto))
		if err != nil {
			t.Fatal(err)
		}
		for _, pair := range pairs {
			d := compare(t, c, src, dst, pair, verdict.Flow{Protocol: number, Port: uint16(port)})
			want := naive{random}.allowed(pods[src.Name], pods[dst.Name], pair.Src.String(), pair.Dst.String(), proto, port)
			if d.Allowed != want {
				t.Fatalf("seed %d: %s (%s) to %s (%s) %s %d: got %+v, the API's text says %v",
					seed, src.Name, pair.Src, dst.Name, pair.Dst, proto, port, d, want)
			}
		}
	}
}

// TestTiersAgree does the same for policies of any language: random ones of
// the neutral model, with tiers, orders, passes and denials.
func TestTiersAgree(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 8))
		c, names := randomModel(r)
		denials := 0
		for range 150 {
			src, err1 := c.End(names[r.IntN(len(names))])
			dst, err2 := c.End(names[r.IntN(len(names))])
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			pairs, err := verdict.Pairs(src, dst)
			if err != nil {
				continue
			}
			f := verdict.Flow{Protocol: []policy.Protocol{policy.TCP, policy.UDP, policy.ICMP}[r.IntN(3)], Port: uint16(79 + r.IntN(4))}
			for _, pair := range pairs {
				d := compare(t, c, src, dst, pair, f)
				if !d.Allowed {
					denials++
				}
				if d.Allowed && slices.ContainsFunc(d.DecidedBy, func(ref rule.PolicyRef) bool { return ref.Name == "" }) {
					t.Fatalf("seed %d: unnamed cause in %+v", seed, d)
				}
			}
		}
		if denials == 0 && seed == 0 {
			t.Fatal("nothing is denied: the random policies are too tame to test anything")
		}
	}
}
