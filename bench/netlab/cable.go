package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The gateway that every pod and external host sees on its own link, and the
// router that the host sees on its uplink.
var (
	gateway4 = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::1")
	router4  = netip.MustParseAddr("169.254.254.1")
	router6  = netip.MustParseAddr("fe80::2")
)

// addVeth makes a veth pair: name on the parent's side, peer in ns.
func (n *Net) addVeth(parent *netlink.Handle, name string, ns *Namespace, peer string, master int) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	attrs.MTU = n.cfg.MTU
	attrs.NumTxQueues, attrs.NumRxQueues = n.cfg.Queues, n.cfg.Queues
	attrs.MasterIndex = master
	queues := uint32(n.cfg.Queues)
	err := parent.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(ns.fd), PeerMTU: uint32(n.cfg.MTU),
		PeerNumTxQueues: queues, PeerNumRxQueues: queues,
	})
	if err != nil {
		return nil, fmt.Errorf("add link %s: %w", name, err)
	}
	link, err := parent.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, err)
	}
	if err := parent.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("bring up link %s: %w", name, err)
	}
	return link, nil
}

// plugRouted hangs ns onto the parent by a veth pair with a /32 and /128 route
// for each address and a link-local gateway. Neighbours are permanent on both
// sides, so no packet is spent on resolving them. The parent speaks to ns from
// src, if it has an address of the family.
func (n *Net) plugRouted(parent *netlink.Handle, src []netip.Addr, ns *Namespace, name string, addrs []netip.Addr) (netlink.Link, error) {
	outer, err := n.addVeth(parent, name, ns, "eth0", 0)
	if err != nil {
		return nil, err
	}
	var inner netlink.Link
	err = ns.withNetlink(func(h *netlink.Handle) error {
		if inner, err = bringUp(h, addrs); err != nil {
			return err
		}
		return addGateways(h, inner, addrs, outer.Attrs().HardwareAddr)
	})
	if err != nil {
		return nil, fmt.Errorf("set up eth0 in %s: %w", ns.name, err)
	}
	for _, a := range addrs {
		if err := setNeighbour(parent, outer, a, inner.Attrs().HardwareAddr); err != nil {
			return nil, err
		}
		if err := parent.RouteReplace(routeOn(outer, a, a.BitLen(), firstOf(a.Is4(), src))); err != nil {
			return nil, fmt.Errorf("route %v to %s: %w", a, name, err)
		}
	}
	return outer, nil
}

// bringUp gives eth0 its addresses and returns it.
func bringUp(h *netlink.Handle, addrs []netip.Addr) (netlink.Link, error) {
	link, err := h.LinkByName("eth0")
	if err != nil {
		return nil, fmt.Errorf("find eth0: %w", err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("bring up eth0: %w", err)
	}
	for _, a := range addrs {
		if err := addAddr(h, link, a); err != nil {
			return nil, err
		}
	}
	return link, nil
}

// addGateways adds a default route for each family that addrs have.
func addGateways(h *netlink.Handle, link netlink.Link, addrs []netip.Addr, mac net.HardwareAddr) error {
	for _, via := range []netip.Addr{gateway4, gateway6} {
		from := firstOf(via.Is4(), addrs)
		if !from.IsValid() {
			continue
		}
		if mac != nil {
			if err := setNeighbour(h, link, via, mac); err != nil {
				return err
			}
		}
		if err := h.RouteReplace(routeVia(link, defaultNet(via.Is4()), via, from)); err != nil {
			return fmt.Errorf("add default route via %v: %w", via, err)
		}
	}
	return nil
}

// routeOn is an on-link route to the first bits of an address. A valid src
// becomes the preferred source.
func routeOn(link netlink.Link, a netip.Addr, bits int, src netip.Addr) *netlink.Route {
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.PrefixFrom(a, bits).Masked())}
	if a.Is4() {
		r.Scope = netlink.SCOPE_LINK // the kernel takes the default for a gateway's
	}
	if src.IsValid() {
		r.Src = src.AsSlice()
	}
	return r
}

// routeVia is a route through a gateway that no prefix of the link covers. A
// valid src becomes the preferred source.
func routeVia(link netlink.Link, dst *net.IPNet, via, src netip.Addr) *netlink.Route {
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: via.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}
	if src.IsValid() {
		r.Src = src.AsSlice()
	}
	return r
}

// addAddr gives a link, which must be up, an address, and returns when packets
// to it are delivered.
func addAddr(h *netlink.Handle, link netlink.Link, a netip.Addr) error {
	addr := &netlink.Addr{IPNet: hostNet(a)}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := h.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("add address %v to %s: %w", a, link.Attrs().Name, err)
	}
	return awaitLocal(h, link, a)
}

// The kernel makes the local route of an IPv6 address in a work queue, also
// without duplicate address detection (addrconf_dad_start in
// net/ipv6/addrconf.c). Until then the address resolves to a neighbour on the
// link that will never answer.
const (
	localWithin = 10 * time.Second
	localEvery  = time.Millisecond
)

// awaitLocal waits for the local route of an address.
func awaitLocal(h *netlink.Handle, link netlink.Link, a netip.Addr) error {
	if a.Is4() {
		return nil
	}
	var on netlink.RouteGetOptions
	if a.IsLinkLocalUnicast() {
		on.OifIndex = link.Attrs().Index
	}
	for end := time.Now().Add(localWithin); ; time.Sleep(localEvery) {
		routes, err := h.RouteGetWithOptions(a.AsSlice(), &on)
		if err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Now().After(end) {
			return errors.Join(fmt.Errorf("wait for address %v of %s: no local route, but %v", a, link.Attrs().Name, routes), err)
		}
	}
}

func setNeighbour(h *netlink.Handle, link netlink.Link, a netip.Addr, mac net.HardwareAddr) error {
	err := h.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("set neighbour %v on %s: %w", a, link.Attrs().Name, err)
	}
	return nil
}

func hostNet(a netip.Addr) *net.IPNet {
	return ipNet(netip.PrefixFrom(a, a.BitLen()))
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func defaultNet(v4 bool) *net.IPNet {
	if v4 {
		return ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	return ipNet(netip.PrefixFrom(netip.IPv6Unspecified(), 0))
}

func firstOf(v4 bool, addrs []netip.Addr) netip.Addr {
	for _, a := range addrs {
		if a.Is4() == v4 {
			return a
		}
	}
	return netip.Addr{}
}
