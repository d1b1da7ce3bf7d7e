package flow_test

import (
	"math/rand/v2"
	"testing"

	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
)

const second = int64(1e9)

var hasher = packet.NewHasher([3]uint64{0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb})

func newTable(tb testing.TB, capacity int) *flow.Table {
	tb.Helper()
	cfg := flow.Default()
	cfg.Capacity = capacity
	t, err := flow.New(cfg, hasher)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// randomKey draws from so many addresses and ports that n keys are mostly new.
func randomKey(r *rand.Rand, proto packet.Proto) packet.Key {
	k, _ := packet.MakeKey(packet.AddrV4(0x0a000000|r.Uint32N(1<<16)), packet.AddrV4(0x0a100000|r.Uint32N(1<<16)),
		uint16(r.Uint32()), uint16(r.Uint32()), proto)
	return k
}

// keys returns n different keys.
func keys(n int, proto packet.Proto) []packet.Key {
	out := make([]packet.Key, n)
	for i := range out {
		out[i], _ = packet.MakeKey(packet.AddrV4(0x0a000000|uint32(i>>4)), packet.AddrV4(0x0a100001),
			uint16(i&15)+1024, 80, proto)
	}
	return out
}

// insert adds a flow that side A opened, and fails the test if it can't.
func insert(tb testing.TB, t *flow.Table, k packet.Key, nowNs int64) flow.Ref {
	tb.Helper()
	var evicted flow.Entry
	r, ok := t.Insert(&k, t.Hash(&k), nowNs, &evicted)
	if !ok {
		tb.Fatalf("insert refused at %d of %d flows", t.Len(), t.Cap())
	}
	if evicted.State != flow.Free {
		tb.Fatalf("insert evicted %v at %d of %d flows", evicted.Key, t.Len(), t.Cap())
	}
	return r
}
