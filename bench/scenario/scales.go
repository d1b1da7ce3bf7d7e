package scenario

import (
	"fmt"

	"github.com/sluice-net/sluice/bench/traffic"
)

var (
	enforcers = []string{"nftables", "nft-linear", "ipset", "nfqueue", "dpdk", "ovs", "sluice", "inspect", Ceiling}
	filters   = append([]string{"kernel"}, enforcers...)
	filters6  = []string{"kernel", "nftables", "nft-linear", "sluice", "inspect", Ceiling} // that know IPv6
)

// policies are the same frames under more and more policies.
func policies() (ws []Workload) {
	some := small(traffic.PacketSocket, someFlows).blasting()
	denies := denied(blast{via: traffic.PacketSocket, sizes: smallest, flows: someFlows}.blasting())
	const what = "60-byte UDP frames of 1024 flows out of a packet socket, policies of one peer each on pod B: %d"
	add := func(name string, n int, hit Hit, sweep, about string, systems []string, run runFunc) *Workload {
		ws = append(ws, Workload{
			Name: name, About: fmt.Sprintf(what, n) + about, Systems: systems, Family: 4, CPUs: 2, Flows: someFlows,
			Rules: Rules{Policies: n, Hit: hit}, Sweep: sweep, XName: "policies", X: float64(n), Run: run,
		})
		return &ws[len(ws)-1]
	}
	for _, n := range []int{1, 100, 1000, 10000} {
		w := add(fmt.Sprintf("policies-%s", short(n)), n, HitLast, "policies", "; the last one allows them", filters, some)
		switch n {
		case 1:
			w.Standard = []string{"nftables", "nft-linear", "ipset", "sluice", "inspect"}
		case 1000:
			w.Standard = []string{"nftables", "nft-linear", "ipset", "dpdk", "sluice", "inspect", Ceiling}
		}
	}
	add("policies-1k-first", 1000, HitFirst, "", "; the first one allows them", filters, some)
	add("denied-1", 1, HitNone, "denied", "; none allows them", enforcers, denies)
	add("denied-1k", 1000, HitNone, "denied", "; none allows them", enforcers, denies).Standard = []string{"nftables", "dpdk", "sluice"}
	add("denied-10k", 10000, HitNone, "denied", "; none allows them", enforcers, denies)
	churn := add("churn", 100, HitLast, "", fmt.Sprintf("; a policy comes or goes every %v", churnEvery), filters, churning(some))
	churn.Sweep = ""
	return ws
}

// nodes are the same frames between two pods of a node with many.
func nodes() (ws []Workload) {
	for _, n := range []int{10, 100, 250} {
		ws = append(ws, Workload{
			Name: fmt.Sprintf("pods-%d", n), About: fmt.Sprintf("60-byte UDP frames of 1024 flows out of a packet socket, between two of %d pods of the node", n),
			Systems: []string{"kernel", "nftables", "sluice", "inspect"}, Family: 4, CPUs: 2, Flows: someFlows,
			Pods: n - 2, Sweep: "pods", XName: "pods", X: float64(n), Run: small(traffic.PacketSocket, someFlows).blasting(),
		})
	}
	return ws
}

// short writes 1000 as 1k.
func short(n int) string {
	if n >= 1000 && n%1000 == 0 {
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprint(n)
}
