package netlab

import (
	"fmt"
	"net"
	"net/netip"

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
		return addGateways(h, link, p.addrs, nil)
	})
	if err != nil {
		return fmt.Errorf("set up eth0 in %s: %w", p.ns.name, err)
	}
	for _, a := range p.addrs {
		prefix := onLink(a)
		if n.prefixes[prefix] {
			continue
		}
		n.prefixes[prefix] = true
		r := routeOn(bridge, a, prefix.Bits(), firstOf(a.Is4(), n.cfg.NodeAddrs))
		if err := n.onHost.RouteReplace(r); err != nil {
			return fmt.Errorf("route %v to the bridge: %w", prefix, err)
		}
	}
	// A new prefix is news for the others as well.
	for _, other := range n.pods {
		if err := n.routeOnBridge(other); err != nil {
			return err
		}
	}
	return n.routeOnBridge(p)
}

// routeOnBridge tells a pod what is on-link: the prefixes of all pods, without
// the addresses in them that are not pods of the bridge.
func (n *Net) routeOnBridge(p *Pod) error {
	return p.ns.withNetlink(func(h *netlink.Handle) error {
		link, err := h.LinkByName("eth0")
		if err != nil {
			return fmt.Errorf("find eth0: %w", err)
		}
		for prefix := range n.prefixes {
			src := firstOf(prefix.Addr().Is4(), p.addrs)
			if !src.IsValid() {
				continue
			}
			if err := h.RouteReplace(routeOn(link, prefix.Addr(), prefix.Bits(), src)); err != nil {
				return fmt.Errorf("route %v in %s: %w", prefix, p.key, err)
			}
		}
		for a := range n.offLink() {
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

// offLink yields the addresses that are the host's own or beyond it.
func (n *Net) offLink() func(yield func(netip.Addr) bool) {
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
		if err := n.routeOnBridge(p); err != nil {
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
