package compile_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

// TestSeveralAddresses has random rules ask for the addresses of a pod that has
// three of one family: what is allowed is allowed at each of them, if there is
// but one it is just what Explain says.
func TestSeveralAddresses(t *testing.T) {
	const pod = "a/web"
	key := store.Key{Namespace: "a", Name: "web"}
	remote := netip.MustParseAddr("192.0.2.1")
	allowed, closed := 0, 0
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 4))
		own := addrs("10.0.0.1", "10.0.0.2", "10.0.0.3")[:pick(r, []int{1, 3})]
		st := store.New()
		st.Update(func(tx *store.Tx) {
			tx.SetPod(&store.Pod{Namespace: "a", Name: "web", IPs: own, NodeName: node})
			for i := range 1 + r.IntN(4) {
				tx.SetPolicy(askingForAddresses(r, fmt.Sprint("p", i)))
			}
		})
		set := compileNow(compile.New(compile.Config{}), st, []endpoint.Endpoint{{ID: 1, Namespace: "a", Name: "web"}})
		for _, port := range []uint16{80, 81} {
			action, _, _, _ := ruletest.Evaluate(set, 1, rule.Ingress, remote, uint8(policy.TCP), port)
			got, every := action == rule.Allow, true
			for _, at := range own {
				q := resolve.Query{Src: resolve.End{Addr: remote}, Dst: resolve.End{Pod: key, Addr: at}, Protocol: policy.TCP, Port: port}
				st.Read(func(v store.View) {
					d, err := resolve.Explain(v, q, resolve.World{})
					if err != nil {
						t.Fatal(err)
					}
					every = every && d.Allowed
				})
			}
			if got && !every || len(own) == 1 && got != every {
				t.Fatalf("seed %d: port %d of %s with %v: allowed %v, at each address %v", seed, port, pod, own, got, every)
			}
			if got {
				allowed++
			} else {
				closed++
			}
		}
	}
	if allowed < 100 || closed < 100 {
		t.Errorf("%d allowed, %d denied", allowed, closed)
	}
}

func askingForAddresses(r *rand.Rand, name string) *policy.Policy {
	p := &policy.Policy{Origin: policy.Origin{Kind: "Any", Name: name}, Order: float64(r.IntN(9)),
		Tier: pick(r, []policy.Tier{policy.TierAdmin, policy.TierNetworkPolicy, policy.TierBaseline})}
	p.Audit = r.IntN(3) == 0
	p.Subject = []*policy.Selector{policy.NewSelector(policy.SelectorSpec{})}
	p.Ingress = policy.Section{Applies: true, Default: pick(r, []policy.Action{policy.Pass, policy.Deny})}
	for i := range 1 + r.IntN(4) {
		line := policy.Rule{Index: i, Action: policy.Action(r.IntN(4)), AnyPeer: true, AnyPort: r.IntN(2) == 0}
		if !line.AnyPort {
			line.Ports = []policy.Port{{Protocol: policy.TCP, From: 80, To: 80}}
		}
		block := policy.Peer{Block: &policy.Block{Prefix: netip.MustParsePrefix(pick(r, []string{"10.0.0.1/32", "10.0.0.2/31", "10.0.0.0/8"}))}}
		switch r.IntN(4) {
		case 0:
			line.Local = [][]policy.Peer{{block}}
		case 1:
			line.NotLocal = []policy.Peer{block}
		}
		p.Ingress.Rules = append(p.Ingress.Rules, line)
	}
	return p
}
