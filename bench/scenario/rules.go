package scenario

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Hit says which of many policies allows what pod A sends.
type Hit string

const (
	HitLast  Hit = "last" // the default
	HitFirst Hit = "first"
	HitNone  Hit = "none" // what A sends is denied
)

// Rules is what is enforced on pod B, by every system that enforces anything:
// by default one policy with 1000 peers, the last of which is pod A. With
// Policies, it is as many policies of one peer each.
type Rules struct {
	Policies int
	Hit      Hit
	Also     []netip.Addr // allowed besides A, by the one policy
}

// fillers is how many peers that never match the one policy has besides the
// one that does, in Sluice as in nftables.
const fillers = 999

// filler is an address that nothing has.
func filler(i int) string { return fmt.Sprintf("172.%d.%d.%d", 16+i%16, i/256%256, i%256) }

// denies reports whether what pod A sends is denied.
func (r Rules) denies() bool { return r.Hit == HitNone }

// peers lists the peers in the order of their policies; the hit is A.
func (r Rules) peers() []netip.Addr {
	others := fillers
	if r.Policies > 0 {
		others = r.Policies - 1
	}
	if r.denies() && r.Policies > 0 {
		others = r.Policies
	}
	out := slices.Clone(r.Also)
	for i := range others {
		out = append(out, netip.MustParseAddr(filler(i)))
	}
	switch r.Hit {
	case HitNone:
		return out
	case HitFirst:
		return append([]netip.Addr{addrsA[0]}, out...)
	}
	return append(out, addrsA[0])
}

// v6 reports whether A's IPv6 address is allowed as well.
func (r Rules) v6() bool { return !r.denies() }

// manifests are the pods, and the policies on B in Sluice's language: allowed
// is what comes to ports from 1024 on. A itself is selected by its label.
func (s *Stage) manifests() string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: Namespace\nmetadata: {name: bench}\n---\n")
	for _, p := range s.Net.Pods() {
		name := strings.TrimPrefix(p.Key(), "bench/")
		var ips []string
		for _, a := range p.Addrs() {
			ips = append(ips, fmt.Sprintf("{ip: %q}", a))
		}
		fmt.Fprintf(&b, `apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: bench, labels: {app: %[1]s}}
spec: {containers: [{name: c, image: none}]}
status: {phase: Running, podIPs: [%s]}
---
`, name, strings.Join(ips, ", "))
	}
	peers := s.Workload.Rules.peers()
	if s.Workload.Rules.Policies == 0 {
		policyManifest(&b, "peers", peers)
		return b.String()
	}
	for i := range peers {
		policyManifest(&b, fmt.Sprintf("policy-%05d", i), peers[i:i+1])
	}
	return b.String()
}

// policyManifest is one policy on B that allows the peers.
func policyManifest(b *strings.Builder, name string, peers []netip.Addr) {
	fmt.Fprintf(b, `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: %s, namespace: bench}
spec:
  podSelector: {matchLabels: {app: b}}
  policyTypes: [Ingress]
  ingress:
  - ports: [{protocol: TCP, port: 1024, endPort: 65535}, {protocol: UDP, port: 1024, endPort: 65535}]
    from:
`, name)
	for _, p := range peers {
		if p == addrsA[0] {
			b.WriteString("    - podSelector: {matchLabels: {app: a}}\n")
		} else {
			fmt.Fprintf(b, "    - ipBlock: {cidr: %s/32}\n", p)
		}
	}
	b.WriteString("---\n")
}
