package ruletest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Cluster describes a Kubernetes cluster as one of its nodes sees it: pods of
// apps in namespaces, NetworkPolicies that select apps, whole namespaces and
// CIDRs, and some local pods. Equal fields give equal Sets.
type Cluster struct {
	Seed       uint64
	Namespaces int
	Apps       int // of each namespace
	Pods       int // with an address; on nodes of 200 pods
	Policies   int
	LocalPods  int
	CIDRs      int // distinct blocks outside the cluster
}

// Scales are the clusters that benchmarks use, in ascending order. The first
// three are named by the rules that their local programs expand to, one for
// each address, protocol and port range; the last by its addresses.
var Scales = []struct {
	Name    string
	Cluster Cluster
}{
	{"1k", Cluster{Seed: 1, Namespaces: 4, Apps: 4, Pods: 75, Policies: 40, LocalPods: 20, CIDRs: 20}},
	{"12k", Cluster{Seed: 2, Namespaces: 10, Apps: 8, Pods: 550, Policies: 200, LocalPods: 60, CIDRs: 60}},
	{"95k", Cluster{Seed: 3, Namespaces: 25, Apps: 10, Pods: 5900, Policies: 600, LocalPods: 110, CIDRs: 200}},
	{"500k-addrs", Cluster{Seed: 4, Namespaces: 400, Apps: 10, Pods: 500000, Policies: 10000, LocalPods: 250, CIDRs: 1000}},
}

// versions is how many values of a further label each app has.
const versions = 3

// app is what pods have in common.
type app struct{ namespace, app, version int }

// selector is what a policy's peer selects; -1 is any.
type selector struct{ namespace, app, version, cidr int }

type policy struct {
	namespace int
	app       int // -1 selects the namespace
	rules     [2][]rule.Rule
	isolates  [2]bool
}

type clusterBuilder struct {
	Cluster
	rng      *rand.Rand
	set      rule.Set
	peers    map[selector]rule.PeerID
	policies []policy
	programs map[string]rule.ProgramID
}

// Set returns the compiled policy of the node. Every pod has an IPv4 and an
// IPv6 address, in the block of its node.
func (c Cluster) Set() *rule.Set {
	b := &clusterBuilder{
		Cluster: c, rng: rand.New(rand.NewPCG(c.Seed, 0)),
		peers: map[selector]rule.PeerID{}, programs: map[string]rule.ProgramID{},
	}
	b.set.Generation = 1
	b.set.Causes = make([]rule.Cause, 1)
	for range c.Policies {
		b.policies = append(b.policies, b.policy())
	}
	b.identities()
	b.addresses()
	for id := range c.LocalPods {
		b.endpoint(endpoint.ID(id + 1))
	}
	return &b.set
}

func (b *clusterBuilder) policy() policy {
	p := policy{namespace: b.rng.IntN(b.Namespaces), app: b.rng.IntN(b.Apps)}
	if b.rng.IntN(5) == 0 {
		p.app = -1
	}
	name := fmt.Sprintf("policy-%d", len(b.policies))
	p.isolates = [2]bool{true, b.rng.IntN(3) == 0}
	for d, isolates := range p.isolates {
		if !isolates {
			continue
		}
		for i := range 1 + b.rng.IntN(3) {
			cause := rule.PolicyRef{Kind: "NetworkPolicy", Namespace: fmt.Sprintf("ns-%d", p.namespace), Name: name, Rule: i, Direction: rule.Direction(d)}
			b.set.Causes = append(b.set.Causes, rule.Cause{Refs: []rule.PolicyRef{cause}})
			p.rules[d] = append(p.rules[d], b.rule(p.namespace, rule.CauseID(len(b.set.Causes)-1)))
		}
	}
	return p
}

func (b *clusterBuilder) rule(namespace int, cause rule.CauseID) rule.Rule {
	r := rule.Rule{Action: rule.Allow, Cause: cause}
	for range 1 + b.rng.IntN(2) {
		s := selector{namespace: namespace, app: b.rng.IntN(b.Apps), version: -1, cidr: -1}
		switch n := b.rng.IntN(20); {
		case n == 0:
			s.app = -1
		case n <= 3:
			s.namespace = b.rng.IntN(b.Namespaces)
		case n <= 6:
			s.version = b.rng.IntN(versions)
		case n <= 9:
			s = selector{-1, -1, -1, b.rng.IntN(b.CIDRs)}
		}
		r.Peers = append(r.Peers, b.peer(s))
	}
	slices.Sort(r.Peers)
	r.Peers = slices.Compact(r.Peers)
	for range 1 + b.rng.IntN(2) {
		r.Ports = append(r.Ports, clusterPorts[b.rng.IntN(len(clusterPorts))])
	}
	return r
}

// clusterPorts are those that policies commonly name.
var clusterPorts = []rule.PortRange{
	{Proto: 6, From: 80, To: 80}, {Proto: 6, From: 443, To: 443}, {Proto: 6, From: 8080, To: 8080},
	{Proto: 6, From: 8443, To: 8443}, {Proto: 6, From: 9090, To: 9090}, {Proto: 6, From: 9100, To: 9100},
	{Proto: 6, From: 5432, To: 5432}, {Proto: 6, From: 3306, To: 3306}, {Proto: 6, From: 6379, To: 6379},
	{Proto: 6, From: 27017, To: 27017}, {Proto: 6, From: 5672, To: 5672}, {Proto: 6, From: 9092, To: 9092},
	{Proto: 6, From: 2379, To: 2380}, {Proto: 6, From: 4317, To: 4318}, {Proto: 6, From: 50051, To: 50060},
	{Proto: 6, From: 8000, To: 8999}, {Proto: 6, From: 30000, To: 32767}, {Proto: 6, From: 1024, To: 65535},
	{Proto: 6, From: 53, To: 53}, {Proto: 17, From: 53, To: 53}, {Proto: 17, From: 123, To: 123},
	{Proto: 17, From: 4789, To: 4789}, {Proto: 17, From: 8125, To: 8125}, {Proto: 17, From: 30000, To: 32767},
	{Proto: 132, From: 3868, To: 3868},
}

func (b *clusterBuilder) peer(s selector) rule.PeerID {
	id, ok := b.peers[s]
	if !ok {
		id = rule.PeerID(b.set.Peers)
		b.set.Peers++
		b.peers[s] = id
		if s.cidr >= 0 {
			b.blocksOf(id, s.cidr)
		}
	}
	return id
}

// blocksOf gives a CIDR peer one block a family, of /12 to /28 and /36 to /60,
// every fourth one with an exception inside.
func (b *clusterBuilder) blocksOf(id rule.PeerID, n int) {
	rng := rand.New(rand.NewPCG(b.Seed, uint64(n)+1))
	v4 := netip.AddrFrom4([4]byte{byte(172 + rng.IntN(8)*4), byte(rng.IntN(256)), byte(rng.IntN(256)), byte(rng.IntN(256))})
	v6 := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(rng.IntN(256)), byte(rng.IntN(256)), byte(rng.IntN(256)), byte(rng.IntN(256))})
	bits := 12 + rng.IntN(17)
	for _, p := range []netip.Prefix{netip.PrefixFrom(v4, bits), netip.PrefixFrom(v6, 12+24+(bits-12)*3/2)} {
		block := rule.Block{Peer: id, Prefix: p.Masked()}
		if n%4 == 0 {
			block.Except = []netip.Prefix{netip.PrefixFrom(p.Addr(), p.Bits()+4).Masked()}
		}
		b.set.Blocks = append(b.set.Blocks, block)
	}
}

func (b *clusterBuilder) identities() {
	for ns := range b.Namespaces {
		for a := range b.Apps {
			for v := range versions {
				var identity rule.Identity
				for _, s := range []selector{{ns, a, v, -1}, {ns, a, -1, -1}, {ns, -1, -1, -1}} {
					if id, ok := b.peers[s]; ok {
						identity = append(identity, id)
					}
				}
				slices.Sort(identity)
				b.set.Identities = append(b.set.Identities, identity)
			}
		}
	}
}

func (b *clusterBuilder) addresses() {
	const podsOfNode = 200
	v6 := make([]rule.Address, 0, b.Pods)
	for i := range b.Pods {
		identity := uint32(b.rng.IntN(len(b.set.Identities)))
		node, host := i/podsOfNode, byte(2+i%podsOfNode)
		b.set.Addresses = append(b.set.Addresses, rule.Address{
			Addr: netip.AddrFrom4([4]byte{10, byte(node >> 8), byte(node), host}), Identity: identity})
		v6 = append(v6, rule.Address{
			Addr:     netip.AddrFrom16([16]byte{0: 0xfd, 5: 1, 6: byte(node >> 8), 7: byte(node), 15: host}),
			Identity: identity})
	}
	b.set.Addresses = append(b.set.Addresses, v6...)
}

// endpoint adds a local pod; pods of the same app share their programs.
func (b *clusterBuilder) endpoint(id endpoint.ID) {
	local := app{b.rng.IntN(b.Namespaces), b.rng.IntN(b.Apps), b.rng.IntN(versions)}
	e := rule.Endpoint{ID: id, Generation: 1}
	for d, program := range []*rule.ProgramID{&e.Ingress, &e.Egress} {
		key := fmt.Sprint(local.namespace, local.app, d)
		known, ok := b.programs[key]
		if !ok {
			known = rule.ProgramID(len(b.set.Programs))
			b.programs[key] = known
			b.set.Programs = append(b.set.Programs, b.program(local, rule.Direction(d)))
		}
		*program = known
	}
	b.set.Endpoints = append(b.set.Endpoints, e)
}

func (b *clusterBuilder) program(local app, d rule.Direction) rule.Program {
	tier := rule.Tier{Name: "networkpolicy", Default: rule.Pass}
	var isolating rule.Cause
	for i := range b.policies {
		p := &b.policies[i]
		if p.namespace != local.namespace || p.app >= 0 && p.app != local.app || !p.isolates[d] {
			continue
		}
		tier.Rules = append(tier.Rules, p.rules[d]...)
		isolating.Refs = append(isolating.Refs, rule.PolicyRef{Kind: "NetworkPolicy", Namespace: fmt.Sprintf("ns-%d", p.namespace),
			Name: fmt.Sprintf("policy-%d", i), Rule: rule.DefaultRule, Direction: d})
	}
	if isolating.Refs == nil {
		return rule.Program{}
	}
	b.set.Causes = append(b.set.Causes, isolating)
	tier.Default, tier.DefaultCause = rule.Deny, rule.CauseID(len(b.set.Causes)-1)
	return rule.Program{Tiers: []rule.Tier{tier}}
}
