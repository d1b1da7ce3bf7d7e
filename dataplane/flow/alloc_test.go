package flow_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/sluice-net/sluice/bench/pmc"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
)

func TestNoAllocs(t *testing.T) {
	tab := newTable(t, 256)
	ks := keys(64, packet.ProtoTCP)
	hashes, refs := make([]uint64, 64), make([]flow.Ref, 64)
	var evicted flow.Entry
	frags := newFragments(t, 64)
	head, tail := first(1), later(1)
	if n := testing.AllocsPerRun(100, func() {
		tab.Lookup(ks, hashes, refs)
		for i := range ks {
			refs[i], _ = tab.Insert(&ks[i], hashes[i], second, &evicted)
			tab.Track(refs[i], packet.SideA, packet.TCPSyn, 60, second)
		}
		tab.Lookup(ks, hashes, refs)
		for _, r := range refs[:tab.Sweep(100*second, 1000, refs)] {
			tab.Remove(r)
		}
		frags.Learn(&head, second)
		frags.Resolve(&tail, second)
		frags.Forget(&head)
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
	if tab.Len() != 0 {
		t.Errorf("%d flows are left", tab.Len())
	}
}

// BenchmarkLookup looks live flows up in random order, in batches of 64, from
// a table filled to its capacity.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1 << 10, 1 << 16, 1 << 19} {
		for _, hit := range []bool{true, false} {
			b.Run(fmt.Sprintf("flows=%d/hit=%v", n, hit), func(b *testing.B) {
				tab := newTable(b, n)
				live := keys(n, packet.ProtoTCP)
				for _, k := range live {
					insert(b, tab, k, 1)
				}
				if !hit {
					live = keys(n, packet.ProtoUDP)
				}
				r := rand.New(rand.NewPCG(1, 2))
				r.Shuffle(n, func(i, j int) { live[i], live[j] = live[j], live[i] })
				hashes, refs := make([]uint64, 64), make([]flow.Ref, 64)
				at := 0
				defer pmc.Count(b)()
				for b.Loop() {
					tab.Lookup(live[at:at+64], hashes, refs)
					at = (at + 64) & (n - 1)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/key")
			})
		}
	}
}

// BenchmarkChurn replaces the oldest flow by a new one.
func BenchmarkChurn(b *testing.B) {
	for _, n := range []int{1 << 10, 1 << 16, 1 << 19} {
		b.Run(fmt.Sprintf("flows=%d", n), func(b *testing.B) {
			tab := newTable(b, n)
			all := keys(2*n, packet.ProtoTCP)
			refs := make([]flow.Ref, 2*n)
			for i, k := range all[:n] {
				refs[i] = insert(b, tab, k, 1)
			}
			var evicted flow.Entry
			at := n
			defer pmc.Count(b)()
			for b.Loop() {
				old := (at + n) & (2*n - 1)
				tab.Remove(refs[old])
				refs[at], _ = tab.Insert(&all[at], tab.Hash(&all[at]), 1, &evicted)
				at = (at + 1) & (2*n - 1)
			}
		})
	}
}

// BenchmarkEvict inserts half-open flows into a table full of such.
func BenchmarkEvict(b *testing.B) {
	tab := newTable(b, 1<<16)
	all := keys(1<<18, packet.ProtoTCP)
	var evicted flow.Entry
	at := 0
	defer pmc.Count(b)()
	for b.Loop() {
		k := &all[at]
		if r := tab.Find(k); r == flow.NoRef {
			tab.Insert(k, tab.Hash(k), int64(at)*100+1, &evicted)
		}
		at = (at + 1) & (1<<18 - 1)
	}
}

func BenchmarkTrack(b *testing.B) {
	tab := newTable(b, 1024)
	r := insert(b, tab, keys(1, packet.ProtoTCP)[0], 1)
	establish(tab, r, 1)
	defer pmc.Count(b)()
	for b.Loop() {
		tab.Track(r, packet.SideA, packet.TCPAck, 1500, 2)
	}
}
