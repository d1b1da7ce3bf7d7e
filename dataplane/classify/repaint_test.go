package classify_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

// neighbours has pods with addresses side by side, so that the hash has them
// in groups, and one peer for each of some blocks.
func neighbours(pods int) *rule.Set {
	const peers = 6
	set := &rule.Set{Peers: peers, Endpoints: []rule.Endpoint{{ID: 1}}, Programs: []rule.Program{
		perPeer(peers, func(i int) []rule.PortRange { return []rule.PortRange{{Proto: 6, From: uint16(i), To: 1000}} })}}
	for i := range rule.PeerID(peers) {
		set.Identities = append(set.Identities, rule.Identity{i})
	}
	for i := range pods {
		id := uint32(i % 3)
		set.Addresses = append(set.Addresses, rule.Address{Addr: address(4, i), Identity: id}, rule.Address{Addr: address(6, i), Identity: id})
	}
	slices.SortFunc(set.Addresses, func(a, b rule.Address) int { return a.Addr.Compare(b.Addr) })
	return set
}

// address is the i-th of the pods' network, or one beyond it.
func address(family, i int) netip.Addr {
	if family == 4 {
		return netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 5: 9, 14: byte(i >> 8), 15: byte(i)})
}

// randomBlock cuts anywhere through the pods' network, or lies around it.
func randomBlock(rng *rand.Rand, peers int) rule.Block {
	a := address(4, rng.IntN(1024))
	if rng.IntN(2) == 0 {
		a = address(6, rng.IntN(1024))
	}
	prefix := func(from int) netip.Prefix {
		return netip.PrefixFrom(a, a.BitLen()-rng.IntN(a.BitLen()-from+1)).Masked()
	}
	b := rule.Block{Peer: rule.PeerID(rng.IntN(peers)), Prefix: prefix(max(0, a.BitLen()-rng.IntN(40))), Unbound: rng.IntN(4) == 0}
	for range rng.IntN(3) {
		b.Except = append(b.Except, prefix(b.Prefix.Bits()))
	}
	return b
}

// TestBlocksAgainstOracle changes blocks among pods that come and go.
func TestBlocksAgainstOracle(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 8))
		set := neighbours(300 + rng.IntN(300))
		u, err := classify.NewUpdater(set)
		if err != nil {
			t.Fatal(err)
		}
		painted := 0
		for step := range 60 {
			next := *set
			d := rule.Delta{Generation: set.Generation + 1, Blocks: slices.Clone(set.Blocks)}
			if n := len(d.Blocks); n > 0 && rng.IntN(3) == 0 {
				d.Blocks = slices.Delete(d.Blocks, n-1, n)
			}
			d.Blocks = append(d.Blocks, randomBlock(rng, set.Peers))
			next.Generation, next.Blocks = d.Generation, d.Blocks
			if rng.IntN(2) == 0 {
				gone := set.Addresses[rng.IntN(len(set.Addresses))].Addr
				d.Unbind = []netip.Addr{gone}
				next.Addresses = slices.DeleteFunc(slices.Clone(set.Addresses), func(a rule.Address) bool { return a.Addr == gone })
			}
			set = &next
			before := u.Layout()
			if rng.IntN(4) == 0 {
				_, err = u.Replace(set)
			} else {
				_, err = u.Update(d)
			}
			if err != nil {
				t.Fatal(err)
			}
			if u.Layout() == before {
				painted++
			}
			probes := make([]ruletest.Probe, 400)
			for i := range probes {
				probes[i] = ruletest.Probe{Endpoint: 1, Remote: address(4+i%2*2, rng.IntN(1024)), Proto: 6, Port: uint16(rng.IntN(8))}
				if i%16 == 0 {
					probes[i].Remote = ruletest.RandomAddr(rng)
				}
			}
			if compareProbes(t, u.Table(), set, probes); t.Failed() {
				t.Fatalf("seed %d step %d", seed, step)
			}
		}
		if painted < 40 {
			t.Errorf("seed %d: %d of 60 changes were painted over what was there", seed, painted)
		}
	}
}

// TestBlockOutside checks what a change of blocks may cost: those beside the
// pods touch nobody, one around most pods is laid out anew.
func TestBlockOutside(t *testing.T) {
	set := neighbours(20000)
	u, err := classify.NewUpdater(set)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 8))
	for _, step := range []struct {
		prefix string
		anew   bool
	}{{"192.0.2.0/24", false}, {"2001:db8::/32", false}, {"10.9.1.0/28", false}, {"10.0.0.0/8", true}, {"fd00::/8", true}} {
		before := u.Layout()
		next := *set
		next.Blocks = append(slices.Clone(set.Blocks), rule.Block{Peer: 5, Prefix: netip.MustParsePrefix(step.prefix)})
		if _, err := u.Update(rule.Delta{Blocks: next.Blocks}); err != nil {
			t.Fatal(err)
		}
		set = &next
		if anew := u.Layout() != before; anew != step.anew {
			t.Errorf("%s: all laid out anew %v, want %v", step.prefix, anew, step.anew)
		}
		probes := make([]ruletest.Probe, 200)
		for i := range probes {
			probes[i] = ruletest.Probe{Endpoint: 1, Remote: address(4+i%2*2, rng.IntN(21000)), Proto: 6, Port: 5}
			if i%8 == 0 {
				probes[i].Remote = netip.MustParsePrefix(step.prefix).Addr().Next()
			}
		}
		compareProbes(t, u.Table(), set, probes)
	}
}
