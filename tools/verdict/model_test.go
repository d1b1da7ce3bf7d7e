package verdict_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/tools/verdict"
)

var modelDomains = map[string][]netip.Addr{
	"www.example.com": {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
	"example.org":     {netip.MustParseAddr("198.51.100.9")},
}

// randomModel is a cluster with policies that no front-end made.
func randomModel(r *rand.Rand) (*verdict.Cluster, []string) {
	st := store.New()
	names := []string{"ip:192.0.2.1", "ip:198.51.100.9", "ip:2001:db8::1", "ip:192.168.0.1", "ip:192.168.0.2"}
	st.Update(func(tx *store.Tx) {
		for i := range 2 {
			tx.SetNode(&store.Node{Name: fmt.Sprintf("n%d", i+1), Labels: modelLabels(r),
				Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 168, 0, byte(i + 1)})}})
		}
		for _, ns := range []string{"a", "b"} {
			tx.SetNamespace(&store.Namespace{Name: ns, Labels: modelLabels(r), Audit: r.IntN(8) == 0})
		}
		for i := range 6 {
			p := &store.Pod{Namespace: []string{"a", "b"}[r.IntN(2)], Name: fmt.Sprintf("p%d", i), Labels: modelLabels(r),
				ServiceAccount: []string{"default", "robot"}[r.IntN(2)], NodeName: fmt.Sprintf("n%d", 1+r.IntN(2)),
				IPs:   []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), netip.MustParseAddr(fmt.Sprintf("fd00::%x", i+1))},
				Ports: []store.NamedPort{{Name: "http", Protocol: policy.TCP, Port: uint16(80 + r.IntN(2))}}}
			tx.SetPod(p)
			names = append(names, p.Key().String())
		}
		for i := range 1 + r.IntN(6) {
			tx.SetPolicy(modelPolicy(r, i))
		}
	})
	return verdict.New(st, modelDomains), names
}

func modelLabels(r *rand.Rand) map[string]string {
	out := map[string]string{}
	if r.IntN(3) > 0 {
		out["app"] = []string{"x", "y"}[r.IntN(2)]
	}
	return out
}

func modelPolicy(r *rand.Rand, i int) *policy.Policy {
	tier := []policy.Tier{policy.TierAdmin, policy.TierNetworkPolicy, policy.TierBaseline, {Name: "other", Order: 1500}}[r.IntN(4)]
	p := &policy.Policy{Origin: policy.Origin{Kind: "Any", Name: fmt.Sprintf("any%d", i)}, Tier: tier, Order: float64(r.IntN(3)),
		Subject: []*policy.Selector{modelSelector(r, policy.KindPod)}, Audit: r.IntN(8) == 0,
		Ingress: modelSection(r), Egress: modelSection(r)}
	if r.IntN(2) == 0 {
		p.Origin.Namespace = "a"
	}
	return p
}

func modelSection(r *rand.Rand) policy.Section {
	s := policy.Section{Applies: r.IntN(4) > 0}
	if r.IntN(3) == 0 {
		s.Default = policy.Deny
	}
	for i := range r.IntN(4) {
		x := policy.Rule{Index: i, Action: policy.Action(r.IntN(3)), AnyPeer: r.IntN(4) == 0, AnyPort: r.IntN(3) == 0}
		for range 1 + r.IntN(2) {
			x.Peers = append(x.Peers, modelPeer(r))
			x.Ports = append(x.Ports, []policy.Port{{Protocol: policy.TCP, From: 80, To: 80}, {Protocol: policy.UDP, From: 1, To: 80},
				{Name: "http"}, {Name: "http", Protocol: policy.TCP}, {Protocol: policy.ICMP, To: 65535}, policy.AllPorts(policy.TCP)}[r.IntN(6)])
		}
		s.Rules = append(s.Rules, x)
	}
	return s
}

func modelPeer(r *rand.Rand) policy.Peer {
	switch r.IntN(5) {
	case 0:
		cidr := []string{"10.0.0.0/29", "0.0.0.0/0", "192.0.2.0/24", "::/0"}[r.IntN(4)]
		b := &policy.Block{Prefix: netip.MustParsePrefix(cidr)}
		if r.IntN(2) == 0 && b.Prefix.Bits() == 0 && b.Prefix.Addr().Is4() {
			b.Except = []netip.Prefix{netip.MustParsePrefix("10.0.0.2/31")}
		}
		return policy.Peer{Block: b}
	case 1:
		return policy.Peer{Domain: []string{"*.example.com", "example.org", "unknown.net"}[r.IntN(3)]}
	case 2:
		return policy.Peer{Selector: modelSelector(r, policy.KindNode)}
	}
	return policy.Peer{Selector: modelSelector(r, policy.KindPod)}
}

func modelSelector(r *rand.Rand, kind policy.EntityKind) *policy.Selector {
	requirements := func() []policy.Requirement {
		if r.IntN(2) == 0 {
			return nil
		}
		return []policy.Requirement{{Key: "app", Operator: policy.Operator(r.IntN(4)), Values: []string{"x"}}}
	}
	spec := policy.SelectorSpec{Kind: kind, Labels: requirements(), Nothing: r.IntN(16) == 0}
	if kind == policy.KindPod {
		spec.NamespaceLabels = requirements()
		if r.IntN(6) == 0 {
			spec.Namespace = "b"
		}
		if r.IntN(6) == 0 {
			spec.ServiceAccounts = []string{"robot"}
		}
	}
	return policy.NewSelector(spec)
}
