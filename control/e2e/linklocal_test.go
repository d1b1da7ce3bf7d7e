package e2e_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/control"
	"github.com/sluice-net/sluice/control/link"
)

// linkLocal is the address of the host's end of a pod's link.
func (n *node) linkLocal(p *pod) (addr netip.Addr) {
	n.Helper()
	must(n.T, n.net.Host().Do(func() error {
		l, err := netlink.LinkByName(p.Link())
		if err != nil {
			return err
		}
		list, err := link.Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_V6) })
		for _, a := range list {
			addr, _ = netip.AddrFromSlice(a.IP)
		}
		return err
	}))
	if !addr.IsLinkLocalUnicast() {
		n.Fatalf("%s has %v", p.Link(), addr)
	}
	return addr
}

// TestNodePortLinkLocal calls a node port at the address that IPv6 gives the host's end
// of the pod's link, which kube-proxy translates as any other of the node: what counts
// is where the call goes, and not that the rules let the pod reach all but that.
func TestNodePortLinkLocal(t *testing.T) {
	t.Parallel()
	for _, offload := range []bool{true, false} {
		t.Run(fmt.Sprintf("offload=%v", offload), func(t *testing.T) {
			t.Parallel()
			n := newPartly(t, setup{change: func(c *control.Config) { c.Offload = offload }})
			path := filepath.Join(n.dir, ".nat")
			leads := func(to *host) {
				n.backends(to)
				must(t, os.WriteFile(path, fmt.Appendf(nil, "table inet nat {}\ndelete table inet nat\ntable inet nat {\n"+
					"chain prerouting { type nat hook prerouting priority dstnat; ip6 daddr != ::1 fib daddr type local meta l4proto { tcp, udp } th dport %d dnat ip6 to [%v]:80; }\n"+
					"chain postrouting { type nat hook postrouting priority srcnat; oifname uplink masquerade; }\n}\n", partlyPort, to.addrs[1]), 0o644))
				n.run(n.net.Host(), "nft", "-f", path)
				n.settle()
			}
			n.policy("cage", fmt.Sprintf("podSelector: {matchLabels: {cage: small}}\npolicyTypes: [Egress]\negress:\n- to: [{ipBlock: {cidr: \"::/0\", except: [\"%v/128\"]}}]", n.bad.addrs[1]))
			gateway := n.linkLocal(n.caged)
			call := func(pass bool) *probe {
				return &probe{proto: "udp", from: n.caged.Namespace(), src: n.caged.v6, dst: gateway.WithZone("eth0"), dport: partlyPort, pass: pass}
			}
			leads(n.good)
			n.probeAll(call(true))
			leads(n.bad)
			p := call(false)
			n.probeAll(p)
			if got := n.bad.got(); got > 0 {
				t.Errorf("%d packets came to the denied backend", got)
			}
			p.dst, p.reason, p.policy = gateway, "policy", "cage"
			n.expectDenied(p)
			// Some are denied, and no table knows the address.
			n.backends(n.good, n.bad)
			n.settle()
			n.probeAll(call(false))
		})
	}
}
