package scenario

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
)

// nftables is the kernel's own firewall as a policy engine would set it up:
// connection tracking, and one look-up in a verdict map for what is new.
var nftables = nftSystem(nftMapName, "kernel forwarding, nftables as a policy engine writes it: conntrack, one verdict map for all policies", verdictMap)

// nftLinear is a rule a peer, walked for each packet: what a verdict map saves.
var nftLinear = nftSystem("nft-linear", "kernel forwarding, nftables, a rule a peer, no conntrack: every packet walks the list", linear)

const nftMapName = "nftables"

func nftSystem(name, about string, ruleset func(Rules) string) System {
	return System{
		Name: name, About: about,
		Needs: needs("nftables", "nft"), Version: versionOf("nft", "--version"),
		Start: func(ctx context.Context, s *Stage) (Running, error) {
			if err := s.run(ctx, ruleset(s.Workload.Rules), "nft", "-f", "-"); err != nil {
				return nil, err
			}
			r := nftRunning{name} // the rules go with the namespace
			if name == nftMapName {
				return nftMap{r, s}, nil
			}
			return r, nil
		},
	}
}

// nftRunning is rules in the kernel.
type nftRunning struct{ name string }

func (n nftRunning) Modes() map[string]string { return map[string]string{"rules": n.name} }
func (n nftRunning) Stop() error              { return nil }

// nftMap is a verdict map, whose elements can be changed.
type nftMap struct {
	nftRunning
	s *Stage
}

// churn implements churner.
func (n nftMap) churn(ctx context.Context, i int) error {
	verb := [2]string{"add", "delete"}[i%2]
	return n.s.run(ctx, fmt.Sprintf("%s element inet bench v4 { %s }\n", verb, element(churnPeer)), "nft", "-f", "-")
}

func element(p netip.Addr) string { return fmt.Sprintf("%s . %s . tcp : accept", p, addrsB[0]) }

// verdictMap drops what is not allowed, as a default-deny policy does.
func verdictMap(r Rules) string {
	var v4, v6 strings.Builder
	for _, p := range r.peers() {
		fmt.Fprintf(&v4, "      %s,\n      %[2]s . %[3]s . udp : accept,\n", element(p), p, addrsB[0])
	}
	if r.v6() {
		fmt.Fprintf(&v6, "    elements = { %s . %s . tcp : accept, %[1]s . %[2]s . udp : accept }", addrsA[1], addrsB[1])
	}
	return fmt.Sprintf(`table inet bench {
  map v4 {
    type ipv4_addr . ipv4_addr . inet_proto : verdict
    elements = {
%s    }
  }
  map v6 {
    type ipv6_addr . ipv6_addr . inet_proto : verdict
%s
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ct state new ip saddr . ip daddr . meta l4proto vmap @v4
    ct state new ip6 saddr . ip6 daddr . meta l4proto vmap @v6
  }
}
`, v4.String(), v6.String())
}

// linear has a rule for what B answers first, and then one a peer.
func linear(r Rules) string {
	var b strings.Builder
	b.WriteString(`table inet bench {
  chain forward {
    type filter hook forward priority filter; policy drop;
`)
	for i := range addrsB {
		fmt.Fprintf(&b, "    %s saddr %s accept\n", [2]string{"ip", "ip6"}[i], addrsB[i])
	}
	for _, p := range r.peers() {
		fmt.Fprintf(&b, "    ip saddr %s ip daddr %s meta l4proto { tcp, udp } th dport 1024-65535 accept\n", p, addrsB[0])
	}
	if r.v6() {
		fmt.Fprintf(&b, "    ip6 saddr %s ip6 daddr %s meta l4proto { tcp, udp } th dport 1024-65535 accept\n", addrsA[1], addrsB[1])
	}
	b.WriteString("  }\n}\n")
	return b.String()
}
