package netlab

import (
	"fmt"
	"iter"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

const bridgeName = "cni0"

// On the bridge, the pods' arbitrary addresses are grouped into prefixes of
// these lengths, which every pod has on-link.
const (
	onLinkBits4 = 24
	onLinkBits6 = 64
)

// addBridge makes the pods' bridge; it holds their gateway addresses.
func (n *Net) addBridge() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeName
	attrs.MTU = n.cfg.MTU
	attrs.HardwareAddr = net.HardwareAddr{0x02, 0x51, 0x1c, 0xe0, 0, 0x01} // or it changes with the ports
	snoop := false
	if err := n.onHost.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snoop}); err != nil {
		return err
	}
	link, err := n.onHost.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	if err := n.onHost.LinkSetUp(link); err != nil {
		return err
	}
	for _, a := range []netip.Addr{gateway4, gateway6} {
		if err := addAddr(n.onHost, link, a); err != nil {
			return err
		}
	}
	return nil
}

// plugBridged hangs a pod onto the bridge.
func (n *Net) plugBridged(p *Pod) error {
	bridge, err := n.onHost.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	if _, err := n.addVeth(n.onHost, p.link, p.ns, "eth0", bridge.Attrs().Index); err != nil {
		return err
	}
	err = p.ns.withNetlink(func(h *netlink.Handle) error {
		link, err := bringUp(h, p.addrs)
		if err != nil {
			return err
		}
		p.mac = link.Attrs().HardwareAddr
		return addGateways(h, link, p.addrs, nil)
	})
	if err != nil {
		return fmt.Errorf("set up eth0 in %s: %w", p.ns.name, err)
	}
	for _, a := range p.addrs {
		if err := n.addOnLink(bridge, a); err != nil {
			return err
		}
	}
	if err := n.routeOnBridge(p, slices.Collect(maps.Keys(n.prefixes)), slices.Collect(n.offLink())); err != nil {
		return err
	}
	if len(n.pods) >= maxResolving {
		return n.pinNeighbours(p)
	}
	return nil
}

// addOnLink tells the host and the pods about the prefix of an address, if it
// is new.
func (n *Net) addOnLink(bridge netlink.Link, a netip.Addr) error {
	prefix := onLink(a)
	if n.prefixes[prefix] {
		return nil
	}
	n.prefixes[prefix] = true
	r := routeOn(bridge, a, prefix.Bits(), firstOf(a.Is4(), n.cfg.NodeAddrs))
	if err := n.onHost.RouteReplace(r); err != nil {
		return fmt.Errorf("route %v to the bridge: %w", prefix, err)
	}
	var inside []netip.Addr
	for a := range n.offLink() {
		if onLink(a) == prefix {
			inside = append(inside, a)
		}
	}
	for _, p := range n.pods {
		if err := n.routeOnBridge(p, []netip.Prefix{prefix}, inside); err != nil {
			return err
		}
	}
	return nil
}

// routeOnBridge tells a pod that prefixes are on-link, and addresses, where
// they are inside any prefix, are not.
func (n *Net) routeOnBridge(p *Pod, prefixes []netip.Prefix, offLink []netip.Addr) error {
	return p.ns.withNetlink(func(h *netlink.Handle) error {
		link, err := h.LinkByName("eth0")
		if err != nil {
			return fmt.Errorf("find eth0: %w", err)
		}
		for _, prefix := range prefixes {
			src := firstOf(prefix.Addr().Is4(), p.addrs)
			if !src.IsValid() {
				continue
			}
			if err := h.RouteReplace(routeOn(link, prefix.Addr(), prefix.Bits(), src)); err != nil {
				return fmt.Errorf("route %v in %s: %w", prefix, p.key, err)
			}
		}
		for _, a := range offLink {
			src := firstOf(a.Is4(), p.addrs)
			if !src.IsValid() || !n.prefixes[onLink(a)] {
				continue
			}
			via := gateway6
			if a.Is4() {
				via = gateway4
			}
			if err := h.RouteReplace(routeVia(link, hostNet(a), via, src)); err != nil {
				return fmt.Errorf("route %v in %s: %w", a, p.key, err)
			}
		}
		return nil
	})
}

// maxResolving is how many pods of a bridge resolve each other by ARP and
// neighbour discovery. What they find out goes into one table of the kernel
// for all namespaces together, which by default holds 1024 entries (gc_thresh3
// in net/core/neighbour.c), and its setting is the machine's. Entries that are
// permanent don't count.
const maxResolving = 16

// pinNeighbours makes a pod and the others known to each other for good.
func (n *Net) pinNeighbours(p *Pod) error {
	for _, other := range n.pods {
		if err := setNeighbours(p, other); err != nil {
			return err
		}
		if err := setNeighbours(other, p); err != nil {
			return err
		}
	}
	return nil
}

func setNeighbours(in, of *Pod) error {
	return in.ns.withNetlink(func(h *netlink.Handle) error {
		link, err := h.LinkByName("eth0")
		if err != nil {
			return fmt.Errorf("find eth0 of %s: %w", in.key, err)
		}
		for _, a := range of.addrs {
			if !firstOf(a.Is4(), in.addrs).IsValid() {
				continue
			}
			if err := setNeighbour(h, link, a, of.mac); err != nil {
				return err
			}
		}
		return nil
	})
}

// forgetNeighbour makes all others forget where a pod was, as the next one
// with its address will be elsewhere. That there is nothing to forget is fine.
func (n *Net) forgetNeighbour(p *Pod) {
	forget := func(h *netlink.Handle, name string) error {
		link, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		for _, a := range p.addrs {
			h.NeighDel(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: a.AsSlice()})
		}
		return nil
	}
	for _, other := range n.pods {
		other.ns.withNetlink(func(h *netlink.Handle) error { return forget(h, "eth0") })
	}
	forget(n.onHost, bridgeName)
}

// offLink yields the addresses that are the host's own or beyond it.
func (n *Net) offLink() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for a := range n.hostAddrs {
			if !yield(a) {
				return
			}
		}
		for a := range n.externals {
			if !yield(a) {
				return
			}
		}
	}
}

// announceOffLink tells the pods of the bridge about an address inside their
// prefixes that is not one of theirs.
func (n *Net) announceOffLink(a netip.Addr) error {
	if n.cfg.Shape != Bridge || !n.prefixes[onLink(a)] {
		return nil
	}
	for _, p := range n.pods {
		if err := n.routeOnBridge(p, nil, []netip.Addr{a}); err != nil {
			return err
		}
	}
	return nil
}

func onLink(a netip.Addr) netip.Prefix {
	bits := onLinkBits6
	if a.Is4() {
		bits = onLinkBits4
	}
	p, _ := a.Prefix(bits) // the length fits the family
	return p
}
