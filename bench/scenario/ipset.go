package scenario

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
)

// ipsetSystem is iptables and ipset as kube-router lays its rules out: a chain
// a pod that accepts what is established and then asks a chain a policy, each
// with a set of its sources, which marks what it allows; unmarked is dropped.
// IPv4 only.
var ipsetSystem = System{
	Name:  "ipset",
	About: "kernel forwarding, iptables and ipset in kube-router's layout: conntrack, a chain and a set a policy, marks",
	Needs: needs("iptables ipset", "iptables-restore", "ipset"), Version: versionOf("iptables", "--version"),
	Start: func(ctx context.Context, s *Stage) (Running, error) {
		sets, rules := kubeRouter(s.Workload.Rules)
		if err := s.run(ctx, sets, "ipset", "restore"); err != nil {
			return nil, err
		}
		if err := s.run(ctx, rules, "iptables-restore"); err != nil {
			return nil, err
		}
		return ipsetRunning{s}, nil // both go with the namespace
	},
}

type ipsetRunning struct{ s *Stage }

func (r ipsetRunning) Modes() map[string]string { return map[string]string{"rules": "iptables, ipset"} }
func (r ipsetRunning) Stop() error              { return nil }

// churn implements churner.
func (r ipsetRunning) churn(ctx context.Context, i int) error {
	return r.s.run(ctx, "", "ipset", [2]string{"add", "del"}[i%2], "KUBE-SRC-0", churnPeer.String(), "-exist")
}

// kubeRouter returns the input of "ipset restore" and of "iptables-restore".
func kubeRouter(r Rules) (sets, rules string) {
	var set, chains, jumps, body strings.Builder
	fmt.Fprintf(&set, "create KUBE-DST hash:ip\nadd KUBE-DST %s\n", addrsB[0])
	policy := func(i int, peers []netip.Addr) {
		fmt.Fprintf(&set, "create KUBE-SRC-%d hash:ip maxelem %d\n", i, 2*len(peers)+16)
		for _, p := range peers {
			fmt.Fprintf(&set, "add KUBE-SRC-%d %s\n", i, p)
		}
		fmt.Fprintf(&chains, ":KUBE-NWPLCY-%d -\n", i)
		fmt.Fprintf(&jumps, "-A KUBE-POD-FW -j KUBE-NWPLCY-%d\n", i)
		for _, proto := range []string{"tcp", "udp"} {
			match := fmt.Sprintf("-A KUBE-NWPLCY-%d -p %s -m set --match-set KUBE-SRC-%[1]d src -m set --match-set KUBE-DST dst -m %[2]s --dport 1024:65535", i, proto)
			fmt.Fprintf(&body, "%s -j MARK --set-xmark 0x10000/0x10000\n%[1]s -m mark --mark 0x10000/0x10000 -j RETURN\n", match)
		}
	}
	peers := r.peers()
	if r.Policies == 0 {
		policy(0, peers)
	} else {
		for i := range peers {
			policy(i, peers[i:i+1])
		}
	}
	return set.String(), fmt.Sprintf(`*filter
:FORWARD ACCEPT
:KUBE-POD-FW -
%s-A FORWARD -d %s -j KUBE-POD-FW
-A KUBE-POD-FW -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
%s-A KUBE-POD-FW -m mark ! --mark 0x10000/0x10000 -j DROP
-A KUBE-POD-FW -j MARK --set-xmark 0x0/0x10000
-A KUBE-POD-FW -j ACCEPT
%sCOMMIT
`, chains.String(), addrsB[0], jumps.String(), body.String())
}
