package classify_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

// busy is a cluster of 50,000 pods with two addresses each.
var busy = sync.OnceValue(ruletest.Cluster{
	Seed: 5, Namespaces: 100, Apps: 10, Pods: 50000, Policies: 2500, LocalPods: 110, CIDRs: 300}.Set)

// BenchmarkUpdate measures changes of a node in a cluster of 50,000 pods. The
// delta, or the next set, is made outside of the measured time.
func BenchmarkUpdate(b *testing.B) {
	b.Run("pod-known-labels", func(b *testing.B) {
		benchmarkUpdate(b, func(m *mover, d *rule.Delta) {
			d.Bind = m.pod(uint32(m.rng.IntN(len(busy().Identities))))
		})
	})
	b.Run("pod-removed", func(b *testing.B) {
		benchmarkUpdate(b, func(m *mover, d *rule.Delta) {
			n := len(busy().Addresses)
			d.Unbind = []netip.Addr{busy().Addresses[m.rng.IntN(n)].Addr, busy().Addresses[m.rng.IntN(n)].Addr}
		})
	})
	b.Run("pod-new-labels", func(b *testing.B) {
		benchmarkUpdate(b, func(m *mover, d *rule.Delta) {
			d.Identities = []rule.Identity{m.labels()}
			d.Bind = m.pod(m.identities)
			m.identities++
		})
	})
	b.Run("policy-known-peers", func(b *testing.B) {
		benchmarkUpdate(b, func(m *mover, d *rule.Delta) { d.Programs = m.policy(false) })
	})
	b.Run("policy-new-peer", func(b *testing.B) {
		benchmarkUpdate(b, func(m *mover, d *rule.Delta) { d.Programs = m.policy(true) })
	})
	b.Run("cidr", func(b *testing.B) {
		benchmarkUpdate(b, func(m *mover, d *rule.Delta) {
			d.Blocks = slices.Clone(busy().Blocks)
			at := m.rng.IntN(len(d.Blocks))
			d.Blocks[at].Prefix = netip.PrefixFrom(d.Blocks[at].Prefix.Addr(), d.Blocks[at].Prefix.Bits()-1).Masked()
		})
	})
	b.Run("replace-one-pod", func(b *testing.B) {
		m := newMover(b)
		set := *busy()
		measure(b, func() func() {
			next := set
			pod := m.pod(uint32(m.rng.IntN(len(set.Identities))))
			next.Addresses = append(slices.Clone(set.Addresses), pod...)
			slices.SortStableFunc(next.Addresses, func(a, b rule.Address) int { return a.Addr.Compare(b.Addr) })
			next.Addresses = slices.CompactFunc(next.Addresses, func(a, b rule.Address) bool { return a.Addr == b.Addr })
			return func() {
				if _, err := m.updater.Replace(&next); err != nil {
					b.Fatal(err)
				}
				set = next
			}
		})
	})
	b.Run("build", func(b *testing.B) {
		measure(b, func() func() { return func() { build(b, busy()) } })
	})
}

func benchmarkUpdate(b *testing.B, change func(*mover, *rule.Delta)) {
	m := newMover(b)
	measure(b, func() func() {
		var d rule.Delta
		change(m, &d)
		return func() {
			if _, err := m.updater.Update(d); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// measure reports the median and the 99th percentile beside the mean.
func measure(b *testing.B, prepare func() func()) {
	var took []time.Duration
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		f := prepare()
		b.StartTimer()
		start := time.Now()
		f()
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-µs")
}

// mover draws changes of the busy cluster.
type mover struct {
	rng        *rand.Rand
	updater    *classify.Updater
	identities uint32
	pods       int
}

func newMover(b *testing.B) *mover {
	u, err := classify.NewUpdater(busy())
	if err != nil {
		b.Fatal(err)
	}
	return &mover{rng: rand.New(rand.NewPCG(6, 6)), updater: u, identities: uint32(len(busy().Identities))}
}

// pod returns the addresses of a new pod on one of 1000 nodes.
func (m *mover) pod(identity uint32) []rule.Address {
	m.pods++
	node, host := m.rng.IntN(1000), byte(202+m.pods%50)
	return []rule.Address{
		{Addr: netip.AddrFrom4([4]byte{10, byte(node >> 8), byte(node), host}), Identity: identity},
		{Addr: netip.AddrFrom16([16]byte{0: 0xfd, 5: 1, 6: byte(node >> 8), 7: byte(node), 15: host}), Identity: identity},
	}
}

// labels returns a set of peers that hardly any other pod has.
func (m *mover) labels() rule.Identity {
	var id rule.Identity
	for range 4 {
		id = append(id, rule.PeerID(m.rng.IntN(busy().Peers)))
	}
	slices.Sort(id)
	return slices.Compact(id)
}

// policy returns the programs with one rule changed: allowed to other peers,
// which programs of this node use already, or perhaps not.
func (m *mover) policy(anyPeer bool) []rule.Program {
	programs := slices.Clone(m.updater.Table().Set().Programs)
	rules := func() (int, []rule.Rule) {
		for {
			at := m.rng.IntN(len(programs))
			if t := programs[at].Tiers; len(t) > 0 && len(t[0].Rules) > 0 {
				return at, t[0].Rules
			}
		}
	}
	_, donor := rules()
	at, old := rules()
	changed := slices.Clone(old)
	r := &changed[m.rng.IntN(len(changed))]
	r.Peers = donor[m.rng.IntN(len(donor))].Peers
	if anyPeer {
		r.Peers = []rule.PeerID{rule.PeerID(m.rng.IntN(busy().Peers))}
	}
	tier := programs[at].Tiers[0]
	tier.Rules = changed
	programs[at] = rule.Program{Tiers: []rule.Tier{tier}}
	return programs
}
