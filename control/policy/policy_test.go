package policy_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sluice-net/sluice/control/policy"
)

// TestTiers sorts tiers, which go by order, then by Calico's names, but for the
// first.
func TestTiers(t *testing.T) {
	want := []policy.Tier{
		policy.TierOwnNode,
		policy.TierUnplaced,
		{Name: "a", Order: -math.MaxFloat64},
		{Name: "zoo", Order: -1e9},
		{Name: "calico/own-node", Order: -1},
		{Name: "calico/unplaced", Order: -1},
		{Name: "calico/admin", Order: 1000},
		{Name: "bar", Order: 1000},
		policy.TierAdmin, // kube-admin
		{Name: "kube-zoo", Order: 1000},
		{Name: "alpha", Order: 1_000_000},
		policy.TierNetworkPolicy, // default
		{Name: "foo", Order: 1_000_000},
		{Name: "calico/networkpolicy", Order: 1_000_000},
		{Name: "calico/baseline", Order: 10_000_000},
		{Name: "foo", Order: 10_000_000},
		policy.TierBaseline, // kube-baseline
		{Name: "zoo", Order: 10_000_000},
		{Name: "a", Order: policy.NoOrder},
		{Name: "a", Order: policy.LastOrder},
	}
	for seed := range uint64(100) {
		got := slices.Clone(want)
		rand.New(rand.NewPCG(seed, 1)).Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
		slices.SortFunc(got, policy.Tier.Compare)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: %v\nwant %v", seed, got, want)
		}
	}
}
