package suggest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/tools/verdict"
)

// Of random flows, the policies allow each, and nothing else: what is asked about
// pods and ports that the flows do not connect, by pods of the same labels, is
// denied. With odd seeds some pods have all labels of others and one more.
func TestNothingElseIsAllowed(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var pods []api.End
		for i := range 8 {
			labels := []string{fmt.Sprintf("k8s:app=a%d", i/2), fmt.Sprintf("k8s:tier=t%d", i%3)}
			if seed%2 == 1 {
				labels = []string{"k8s:app=a", fmt.Sprintf("k8s:tier=t%d", i%3), fmt.Sprintf("k8s:x%d=x", i)}[:1+rng.IntN(3)]
			}
			pods = append(pods, api.End{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), Namespace: fmt.Sprintf("n%d", i%2), Pod: fmt.Sprintf("p%d", i),
				Endpoint: uint32(i + 1), Labels: labels})
		}
		for i := range 4 {
			pods = append(pods, api.End{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Labels: []string{"reserved:world"}})
		}
		var flows []api.Flow
		for range 1 + rng.IntN(30) {
			src, dst := pods[rng.IntN(len(pods))], pods[rng.IntN(len(pods))]
			dst.Port = uint16(80 + rng.IntN(6))
			if src.Pod != "" || dst.Pod != "" {
				flows = append(flows, api.Flow{Event: "new", Verdict: "allow", Src: src, Dst: dst, Proto: []string{"TCP", "UDP"}[rng.IntN(2)]})
			}
		}
		r, err := From(flows, Default())
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Check(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		tight(t, seed, r)
	}
}

// tight compares all answers about the parties with the flows.
func tight(t *testing.T, seed uint64, r *Result) {
	t.Helper()
	dir := t.TempDir()
	var policies, world strings.Builder
	if err := r.YAML(&policies); err != nil {
		t.Fatal(err)
	}
	r.world(&world)
	if world.Len() == 0 {
		return
	}
	for name, text := range map[string]string{"p.yaml": policies.String(), "w.yaml": world.String()} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := verdict.Load(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	// kind is what policies can tell a party by.
	kind := func(p *party) string {
		if p.group != nil {
			return p.namespace + "/" + labelText(p.labels)
		}
		return p.String()
	}
	seen := map[string]bool{}
	for _, x := range r.conns {
		seen[fmt.Sprint(kind(x.src), kind(x.dst), x.proto, x.port)] = true
	}
	for _, src := range r.parties {
		for _, dst := range r.parties {
			if src == dst || !src.isPod() && !dst.isPod() {
				continue
			}
			for proto, name := range map[policy.Protocol]string{policy.TCP: "TCP", policy.UDP: "UDP"} {
				for port := uint16(79); port < 87; port++ {
					a := c.Answer(verdict.Query{Src: src.String(), Dst: dst.String(), Flow: verdict.Flow{Protocol: proto, Port: port}})
					want := verdict.Deny
					if seen[fmt.Sprint(kind(src), kind(dst), name, port)] {
						want = verdict.Allow
					}
					if a.Verdict != want {
						t.Fatalf("seed %d: %s to %s %s/%d: %s%s, want %s\n%s", seed, src, dst, name, port, a.Verdict, a.Error, want, policies.String())
					}
				}
			}
		}
	}
}

func TestCollapse(t *testing.T) {
	for _, c := range []struct {
		in      string
		most    int
		want    string
		widened bool
	}{
		{"10.0.0.1", 4, "10.0.0.1/32", false},
		{"10.0.0.2 10.0.0.3", 4, "10.0.0.2/31", false},
		{"10.0.0.1 10.0.0.2", 4, "10.0.0.1/32 10.0.0.2/32", false},
		{"10.0.0.0 10.0.0.1 10.0.0.2 10.0.0.3", 4, "10.0.0.0/30", false},
		{"10.0.0.3 10.0.0.0 10.0.0.2 10.0.0.1 10.0.0.4", 4, "10.0.0.0/30 10.0.0.4/32", false},
		{"10.0.0.1 10.0.0.4 10.0.0.9", 2, "10.0.0.0/29 10.0.0.8/30", true},
		{"fd00::1 fd00::2 fd00::11", 2, "fd00::/123", true},
	} {
		var in []netip.Addr
		for a := range strings.FieldsSeq(c.in) {
			in = append(in, netip.MustParseAddr(a))
		}
		out, widened := collapse(in, c.most)
		var got []string
		for _, p := range out {
			got = append(got, p.String())
		}
		if strings.Join(got, " ") != c.want || widened != c.widened {
			t.Errorf("%s: %v, %v", c.in, got, widened)
		}
		for _, a := range in {
			held := false
			for _, p := range out {
				held = held || p.Contains(a)
			}
			if !held {
				t.Errorf("%s: %s is not held", c.in, a)
			}
		}
	}
}
