package classify_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

// perPeer returns a program with one rule for each of n peers.
func perPeer(n int, ports func(i int) []rule.PortRange) rule.Program {
	tier := rule.Tier{Default: rule.Deny, DefaultCause: 1}
	for i := range n {
		tier.Rules = append(tier.Rules, rule.Rule{Action: rule.Allow, Cause: rule.CauseID(i + 2),
			Peers: []rule.PeerID{rule.PeerID(i)}, Ports: ports(i)})
	}
	return rule.Program{Tiers: []rule.Tier{tier}}
}

// manyClasses has more classes of addresses than 16 bits can number: address
// i belongs to the peers that its binary digits name.
func manyClasses() *rule.Set {
	set := &rule.Set{Peers: 17, Endpoints: []rule.Endpoint{{ID: 1}}, Programs: []rule.Program{
		perPeer(17, func(i int) []rule.PortRange { return []rule.PortRange{{Proto: 6, From: uint16(i * 100), To: 9999}} })}}
	for i := range uint32(70000) {
		var id rule.Identity
		for bit := range rule.PeerID(17) {
			if i>>bit&1 == 1 {
				id = append(id, bit)
			}
		}
		set.Identities = append(set.Identities, id)
		set.Addresses = append(set.Addresses, rule.Address{Addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), Identity: i})
	}
	return set
}

// manyPorts has more port classes than 8 bits, and more verdicts a row than
// 16 bits, can number.
func manyPorts() *rule.Set {
	const n = 300
	set := &rule.Set{Peers: n, Endpoints: []rule.Endpoint{{ID: 1}}, Programs: []rule.Program{
		perPeer(n, func(i int) []rule.PortRange {
			return []rule.PortRange{{Proto: 17, From: uint16(7 * i), To: uint16(7*i + i)}}
		})}}
	for i := range rule.PeerID(n) {
		set.Identities = append(set.Identities, rule.Identity{i})
		set.Addresses = append(set.Addresses, rule.Address{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Identity: uint32(i)})
	}
	return set
}

// scattered has IPv4 addresses in more blocks of 256 than the trie takes.
func scattered() *rule.Set {
	set := &rule.Set{Peers: 3, Endpoints: []rule.Endpoint{{ID: 1}}, Programs: []rule.Program{
		perPeer(3, func(i int) []rule.PortRange { return []rule.PortRange{{Proto: 6, From: uint16(i), To: 1000}} })}}
	set.Identities = []rule.Identity{{0}, {1}}
	for i := range uint32(40000) {
		set.Addresses = append(set.Addresses, rule.Address{Addr: netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(i % 251)}), Identity: i % 2})
	}
	set.Addresses = append(set.Addresses, rule.Address{Addr: netip.MustParseAddr("::1"), Identity: 1},
		rule.Address{Addr: netip.MustParseAddr("fd00::1"), Identity: 0})
	set.Blocks = []rule.Block{
		{Peer: 2, Prefix: netip.MustParsePrefix("10.7.0.0/17"), Except: []netip.Prefix{netip.MustParsePrefix("10.7.9.0/25")}},
		{Peer: 2, Prefix: netip.MustParsePrefix("0.0.0.0/0"), Unbound: true},
		{Peer: 0, Prefix: netip.MustParsePrefix("::/1")}, // holds ::ffff:0:0/96, which is not IPv4
	}
	return set
}

// probeLarge asks about the set's own addresses and those beside them.
func probeLarge(rng *rand.Rand, set *rule.Set) ruletest.Probe {
	p := ruletest.Probe{Endpoint: 1, Proto: []uint8{6, 17}[rng.IntN(2)], Port: uint16(rng.IntN(2200))}
	p.Remote = set.Addresses[rng.IntN(len(set.Addresses))].Addr
	switch rng.IntN(8) {
	case 0:
		p.Remote = p.Remote.Next()
	case 1:
		p.Remote = netip.AddrFrom4([4]byte{10, 7, byte(rng.IntN(256)), byte(rng.IntN(256))})
	case 2:
		p.Remote = set.Addresses[len(set.Addresses)-1-rng.IntN(2)].Addr
	case 3:
		p.Remote = netip.AddrFrom16([16]byte{0: byte(rng.IntN(256)), 15: 1})
	}
	return p
}

// TestOverflow drives every narrow identifier over its limit, at build and by
// updates, and compares with the oracle.
func TestOverflow(t *testing.T) {
	for name, make := range map[string]func() *rule.Set{"classes": manyClasses, "ports": manyPorts, "scattered": scattered} {
		t.Run(name, func(t *testing.T) {
			set := make()
			table, err := classify.Build(set)
			if err != nil {
				t.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(1, 1))
			probes := func(table *classify.Table, set *rule.Set) {
				list := []ruletest.Probe{}
				for range 300 {
					list = append(list, probeLarge(rng, set))
				}
				compareProbes(t, table, set, list)
			}
			probes(table, set)

			// The same in two steps: a half, and an update to the whole.
			half := *set
			half.Addresses = set.Addresses[:len(set.Addresses)/2]
			half.Identities = set.Identities[:(len(set.Identities)+1)/2]
			half.Addresses = slices.DeleteFunc(slices.Clone(half.Addresses), func(a rule.Address) bool {
				return int(a.Identity) >= len(half.Identities)
			})
			half.Programs = []rule.Program{{Tiers: []rule.Tier{{Rules: set.Programs[0].Tiers[0].Rules[:2], Default: rule.Deny}}}}
			u, err := classify.NewUpdater(&half)
			if err != nil {
				t.Fatal(err)
			}
			probes(u.Table(), &half)
			if _, err := u.Update(rule.Delta{
				Identities: set.Identities[len(half.Identities):], Bind: set.Addresses, Programs: set.Programs,
			}); err != nil {
				t.Fatal(err)
			}
			probes(u.Table(), set)
			// And address by address, with classes that didn't exist before.
			whole := *set
			whole.Addresses = slices.Clone(set.Addresses)
			for i := range 50 {
				at := rng.IntN(len(whole.Addresses))
				whole.Addresses[at].Identity = uint32(i % len(set.Identities))
				if _, err := u.Update(rule.Delta{Bind: whole.Addresses[at : at+1]}); err != nil {
					t.Fatal(err)
				}
			}
			probes(u.Table(), &whole)
		})
	}
}

// TestManyGroups binds IPv6 addresses that are far from each other, and of
// which many differ in few bits, until the hash has to grow several times.
func TestManyGroups(t *testing.T) {
	set := &rule.Set{Peers: 2, Endpoints: []rule.Endpoint{{ID: 1}}, Identities: []rule.Identity{{0}, {1}}, Programs: []rule.Program{
		perPeer(2, func(i int) []rule.PortRange { return []rule.PortRange{{Proto: 6, From: uint16(i), To: 1000}} })}}
	u, err := classify.NewUpdater(set)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(2, 2))
	draw := func() netip.Addr {
		var b [16]byte
		if rng.IntN(4) == 0 {
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			return netip.AddrFrom16(b)
		}
		b[7], b[15] = byte(rng.Uint32()), byte(rng.Uint32())
		return netip.AddrFrom16(b)
	}
	identities := map[netip.Addr]uint32{}
	for range 100 {
		d := rule.Delta{}
		for range 50 {
			a := rule.Address{Addr: draw(), Identity: rng.Uint32N(2)}
			d.Bind = append(d.Bind, a)
			identities[a.Addr] = a.Identity
		}
		if _, err := u.Update(d); err != nil {
			t.Fatal(err)
		}
	}
	want := *set
	for a, id := range identities {
		want.Addresses = append(want.Addresses, rule.Address{Addr: a, Identity: id})
	}
	var list []ruletest.Probe
	for range 3000 {
		list = append(list, ruletest.Probe{Endpoint: 1, Proto: 6, Port: uint16(rng.IntN(2)), Remote: draw()})
	}
	compareProbes(t, u.Table(), &want, list)
	compareProbes(t, build(t, &want), &want, list)
}

// TestBuildRefuses checks that sets that contradict themselves are named.
func TestBuildRefuses(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.1")
	for want, set := range map[string]*rule.Set{
		"endpoint 1: program 0: the set has 0":                   {Endpoints: []rule.Endpoint{{ID: 1}}},
		"endpoint 1: not in ascending order":                     {Endpoints: []rule.Endpoint{{ID: 1}, {ID: 1}}, Programs: make([]rule.Program, 1)},
		"endpoint 4294967295: want 1 to":                         {Endpoints: []rule.Endpoint{{ID: ^endpoint.ID(0)}}},
		"identity 0: peer 0: the set has 0":                      {Identities: []rule.Identity{{0}}},
		"block 10.0.0.0/8: peer 2: the set has 1":                {Peers: 1, Blocks: []rule.Block{{Peer: 2, Prefix: netip.MustParsePrefix("10.0.0.0/8")}}},
		"block 0 of peer 0: not a prefix":                        {Peers: 1, Blocks: []rule.Block{{}}},
		"address 10.0.0.1: identity 3: the set has 1":            {Identities: []rule.Identity{{}}, Addresses: []rule.Address{{Addr: addr, Identity: 3}}},
		"address of identity 0: not an address":                  {Identities: []rule.Identity{{}}, Addresses: []rule.Address{{}}},
		"address 10.0.0.1: bound twice":                          {Identities: []rule.Identity{{}}, Addresses: []rule.Address{{Addr: addr}, {Addr: addr}}},
		"program 0: tier \"x\": rule 0: deny of cause 536870912": limitsOf(rule.Rule{Action: rule.Deny, Cause: 1 << 29}),
		"program 0: tier \"x\": rule 0: invalid of cause 0":      limitsOf(rule.Rule{Action: 4}),
		"program 0: peer 5: the set has 0":                       limitsOf(rule.Rule{Peers: []rule.PeerID{5}}),
	} {
		_, err := classify.Build(set)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want %q", err, want)
		}
	}
}

func limitsOf(r rule.Rule) *rule.Set {
	return &rule.Set{Endpoints: []rule.Endpoint{{ID: 1}}, Programs: []rule.Program{{Tiers: []rule.Tier{{Name: "x", Rules: []rule.Rule{r}}}}}}
}

// TestUnknownRows checks that rows and endpoints that don't exist are denied.
func TestUnknownRows(t *testing.T) {
	table := build(t, &rule.Set{Programs: make([]rule.Program, 1), Endpoints: []rule.Endpoint{{ID: 3}}})
	rows := []classify.Row{classify.DenyRow, table.Row(0, rule.Ingress), table.Row(2, rule.Egress), table.Row(1<<31, rule.Egress), 77, ^classify.Row(0)}
	for i, row := range append(rows, table.Row(3, rule.Egress)) {
		var out [1]classify.Verdict
		table.Classify([]classify.Query{{Row: row}}, out[:])
		if known := i == len(rows); out[0].Allowed() != known || out[0].Log() || out[0].Audit() {
			t.Error(fmt.Sprintf("row %d: allowed %v", row, out[0].Allowed()))
		}
	}
}
