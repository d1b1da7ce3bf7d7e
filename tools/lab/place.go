package lab

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/bench/netlab"
)

// A lab is one node. Where the manifests speak of several, it is the one that
// most pods are on: the pods of the others come to it, for every pod is to
// have its policies enforced, and what shares the network of another node is a
// host beyond the uplink.

// unnamedNode is the lab's node where the manifests name none.
const unnamedNode = "lab"

// nodeName picks the lab's node.
func (c *cluster) nodeName() string {
	pods := map[string]int{}
	for _, n := range c.nodes {
		pods[n.name] = 0
	}
	for _, p := range c.pods {
		if p.nodeName != "" && !p.hostNetwork {
			pods[p.nodeName]++
		}
	}
	best := unnamedNode
	most := -1
	for _, name := range slices.Sorted(maps.Keys(pods)) {
		if pods[name] > most {
			best, most = name, pods[name]
		}
	}
	return best
}

// nodeNames are the nodes that pods are on.
func (c *cluster) nodeNames() []string {
	names := map[string]bool{}
	for _, p := range c.pods {
		if p.nodeName != "" {
			names[p.nodeName] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// nodeAddrs are the addresses of the lab's node: what its Node and its pods
// say, and for a family without any the default.
func (c *cluster) nodeAddrs(node string, defaults []netip.Addr) []netip.Addr {
	taken := map[netip.Addr]bool{}
	for _, p := range c.pods {
		if !p.hostNetwork {
			for _, a := range p.addrs {
				taken[a] = true
			}
		}
	}
	var addrs []netip.Addr
	add := func(list []netip.Addr) {
		for _, a := range list {
			if !taken[a] && netlab.CheckAddr(a) == nil {
				addrs = append(addrs, a)
				taken[a] = true
			}
		}
	}
	for _, n := range c.nodes {
		if n.name == node {
			add(n.addrs)
		}
	}
	for _, p := range c.pods {
		if p.sharesNode(node) {
			add(p.addrs)
		}
		if p.nodeName == node {
			add(p.hostAddrs)
		}
	}
	for _, d := range defaults {
		if !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Is4() == d.Is4() }) {
			add([]netip.Addr{d})
		}
	}
	return addrs
}

// sharesNode reports whether the pod is in the network of the lab's node.
func (s *podSpec) sharesNode(node string) bool {
	return s.hostNetwork && (s.nodeName == "" || s.nodeName == node)
}

// elsewhere reports whether the pod is in the network of another node.
func (s *podSpec) elsewhere(node string) bool { return s.hostNetwork && !s.sharesNode(node) }

// moved reports whether the pod has to be told to be on the lab's node.
func (s *podSpec) moved(node string) bool {
	return !s.hostNetwork && s.nodeName != "" && s.nodeName != node
}
