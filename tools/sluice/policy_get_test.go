package main

import (
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/policy"
)

// Every place is some policy's: objects with several parts have several.
func TestPolicyPlaces(t *testing.T) {
	part := func(place int, tier string, order float64) api.Part {
		return api.Part{Place: place, Tier: tier, Order: order}
	}
	list := []api.Policy{
		{PolicyKey: api.PolicyKey{Kind: "CiliumNetworkPolicy", Namespace: "x", Name: "split"}, State: "in-force",
			Parts: []api.Part{part(1, "own-node", 0), part(4, "cilium", 0), part(3, "cilium", 0), part(6, "cilium", 2.5)}},
		{PolicyKey: api.PolicyKey{Kind: "CiliumNetworkPolicy", Namespace: "x", Name: "whole"}, State: "in-force",
			Parts: []api.Part{part(2, "cilium", policy.NoOrder)}},
		{PolicyKey: api.PolicyKey{Kind: "NetworkPolicy", Namespace: "x", Name: "none"}, State: "rejected"},
		{PolicyKey: api.PolicyKey{Kind: "NetworkPolicy", Namespace: "x", Name: "last"}, State: "in-force",
			Parts: []api.Part{part(5, "networkpolicy", 0)}},
		{PolicyKey: api.PolicyKey{Kind: "CalicoNetworkPolicy", Namespace: "x", Name: "closed"}, State: "rejected",
			Parts: []api.Part{part(7, "default", policy.OrderUnplaced)}},
	}
	var b strings.Builder
	if err := policiesTable(&b, list); err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"PLACE", "TIER", "ORDER"}, {"1,3-4,6", "own-node,cilium", "0,2.5"}, {"2", "cilium", "none"}, {"-", "-", "-"}, {"5", "networkpolicy", "0"},
		{"7", "default", "illegible"},
	}
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	if len(lines) != len(want) {
		t.Fatalf("got\n%s", b.String())
	}
	for i, line := range lines {
		// POLICY is a kind and a name below the heading.
		f := strings.Fields(line)
		at := 3 + min(i, 1)
		if len(f) < at+2 || f[0] != want[i][0] || f[at] != want[i][1] || f[at+1] != want[i][2] {
			t.Errorf("line %q: want %v", line, want[i])
		}
	}
}
