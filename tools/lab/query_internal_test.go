package lab

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/tools/verdict"
)

// A query is probed between the addresses that 'sluice verdict' answers it for.
func TestAddressPair(t *testing.T) {
	all := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		some := func() []netip.Addr {
			out := append([]netip.Addr(nil), all...)
			r.Shuffle(len(out), func(i, k int) { out[i], out[k] = out[k], out[i] })
			return out[:1+r.IntN(len(out))]
		}
		src, dst := some(), some()
		from, to, err1 := addressPair(side{addrs: src}, side{addrs: dst})
		pairs, err2 := verdict.Pairs(verdict.End{Addrs: src}, verdict.End{Addrs: dst})
		if (err1 == nil) != (err2 == nil) || err1 == nil && (from != pairs[0].Src || to != pairs[0].Dst) {
			t.Errorf("%v to %v: from %v to %v, %v; verdict: %v, %v", src, dst, from, to, err1, pairs, err2)
		}
	}
}
