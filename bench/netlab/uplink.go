package netlab

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// The two ends of the cable between the host and the router.
const (
	uplinkName = "uplink"
	nodeName   = "node"
)

// External is a host beyond the node's uplink.
type External struct {
	addrs []netip.Addr
	link  string // the router's end
	ns    *Namespace
}

// Addr returns the first of the host's addresses.
func (e *External) Addr() netip.Addr { return e.addrs[0] }

// Addrs returns all of the host's addresses; the caller must not change them.
func (e *External) Addrs() []netip.Addr { return e.addrs }

// Namespace returns the host's network namespace.
func (e *External) Namespace() *Namespace { return e.ns }

// addUplink connects host and router: all that is no pod's lies beyond it.
func (n *Net) addUplink() error {
	uplink, err := n.addCable()
	if err != nil {
		return err
	}
	node, err := n.onRouter.LinkByName(nodeName)
	if err != nil {
		return err
	}
	if err := n.onRouter.LinkSetUp(node); err != nil {
		return err
	}
	for _, via := range []netip.Addr{router4, router6} {
		if err := addAddr(n.onRouter, node, via); err != nil {
			return err
		}
		if err := setNeighbour(n.onHost, uplink, via, node.Attrs().HardwareAddr); err != nil {
			return err
		}
		src := firstOf(via.Is4(), n.cfg.NodeAddrs)
		if src.IsValid() { // a route's source must exist before the route
			if err := addAddr(n.onHost, uplink, src); err != nil {
				return err
			}
		}
		if err := n.onHost.RouteReplace(routeVia(uplink, defaultNet(via.Is4()), via, src)); err != nil {
			return fmt.Errorf("add default route via %v: %w", via, err)
		}
	}
	return nil
}

// addCable returns the host's end of the cable.
func (n *Net) addCable() (netlink.Link, error) {
	if len(n.cfg.Bond) > 0 {
		return n.addBond()
	}
	if len(n.cfg.Cable) == 0 {
		return n.addVeth(n.onHost, uplinkName, n.router, nodeName, 0)
	}
	for i, to := range []struct {
		ns   *Namespace
		h    *netlink.Handle
		name string
	}{{n.host, n.onHost, uplinkName}, {n.router, n.onRouter, nodeName}} {
		nic, err := netlink.LinkByName(n.cfg.Cable[i])
		if err != nil {
			return nil, fmt.Errorf("find NIC %s: %w", n.cfg.Cable[i], err)
		}
		if err := netlink.LinkSetNsFd(nic, int(to.ns.fd)); err != nil {
			return nil, fmt.Errorf("move NIC %s: %w", n.cfg.Cable[i], err)
		}
		if nic, err = to.h.LinkByName(n.cfg.Cable[i]); err != nil {
			return nil, fmt.Errorf("find NIC %s: %w", n.cfg.Cable[i], err)
		}
		if err := errors.Join(to.h.LinkSetName(nic, to.name), to.h.LinkSetUp(nic)); err != nil {
			return nil, fmt.Errorf("bring up NIC %s: %w", n.cfg.Cable[i], err)
		}
	}
	return n.onHost.LinkByName(uplinkName)
}

// bondWatch is how often a bond looks at its members' carrier, ms.
const bondWatch = 20

// addBond makes a cable of several, between a bond and a bridge.
func (n *Net) addBond() (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = nodeName, n.cfg.MTU
	attrs.HardwareAddr = net.HardwareAddr{0x02, 0x51, 0x1c, 0xe0, 0, 0x02} // or it changes with the ports
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := n.onRouter.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("add bridge of the router: %w", err)
	}
	attrs = netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = uplinkName, n.cfg.MTU
	bond := netlink.NewLinkBond(attrs)
	bond.Mode, bond.Miimon = netlink.BOND_MODE_ACTIVE_BACKUP, bondWatch
	if err := n.onHost.LinkAdd(bond); err != nil {
		return nil, fmt.Errorf("add bond: %w", err)
	}
	for _, name := range n.cfg.Bond {
		member, err := n.addVeth(n.onHost, name, n.router, name+"p", 0)
		if err != nil {
			return nil, err
		}
		port, err := n.onRouter.LinkByName(name + "p")
		if err != nil {
			return nil, fmt.Errorf("find port of the bridge: %w", err)
		}
		// What a member says for itself, with the bond's address, would have the
		// bridge send all to it, also while it is not in use.
		if err := n.host.setSysctls(sysctl{"ipv6/conf/" + name + "/disable_ipv6", "1"}); err != nil {
			return nil, err
		}
		// A bond takes members that are down, and brings them up.
		if err := errors.Join(n.onRouter.LinkSetMaster(port, bridge), n.onRouter.LinkSetUp(port),
			n.onHost.LinkSetDown(member), n.onHost.LinkSetMaster(member, bond)); err != nil {
			return nil, fmt.Errorf("add member of bond: %w", err)
		}
	}
	if err := n.onHost.LinkSetUp(bond); err != nil {
		return nil, fmt.Errorf("bring up bond: %w", err)
	}
	return n.onHost.LinkByName(uplinkName)
}

// routeFromRouter makes the router send addresses to the node.
func (n *Net) routeFromRouter(addrs []netip.Addr) error {
	uplink, err := n.onHost.LinkByName(uplinkName)
	if err != nil {
		return fmt.Errorf("find uplink: %w", err)
	}
	node, err := n.onRouter.LinkByName(nodeName)
	if err != nil {
		return fmt.Errorf("find the node's link: %w", err)
	}
	for _, a := range addrs {
		if err := setNeighbour(n.onRouter, node, a, uplink.Attrs().HardwareAddr); err != nil {
			return err
		}
		if err := n.onRouter.RouteReplace(routeOn(node, a, a.BitLen(), netip.Addr{})); err != nil {
			return fmt.Errorf("route %v to the node: %w", a, err)
		}
	}
	return nil
}

func (n *Net) unrouteFromRouter(addrs []netip.Addr) error {
	node, err := n.onRouter.LinkByName(nodeName)
	errs := []error{err}
	for _, a := range addrs {
		if err == nil {
			errs = append(errs, n.onRouter.RouteDel(routeOn(node, a, a.BitLen(), netip.Addr{})))
		}
	}
	return errors.Join(errs...)
}

// AddHostAddr makes an address the host's own. Several may share it: it goes
// with the last RemoveHostAddr.
func (n *Net) AddHostAddr(a netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hostAddrs[a] > 0 {
		n.hostAddrs[a]++
		return nil
	}
	if err := n.claim("host", []netip.Addr{a}); err != nil {
		return fmt.Errorf("add address of the host: %w", err)
	}
	uplink, err := n.onHost.LinkByName(uplinkName)
	if err != nil {
		return fmt.Errorf("find uplink: %w", err)
	}
	if a != firstOf(a.Is4(), n.cfg.NodeAddrs) { // those came with the uplink
		if err := addAddr(n.onHost, uplink, a); err != nil {
			return err
		}
	}
	if err := n.routeFromRouter([]netip.Addr{a}); err != nil {
		return err
	}
	n.hostAddrs[a] = 1
	return n.announceOffLink(a)
}

// RemoveHostAddr undoes one AddHostAddr.
func (n *Net) RemoveHostAddr(a netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch n.hostAddrs[a] {
	case 0:
		return fmt.Errorf("remove address %v of the host: not there", a)
	case 1:
	default:
		n.hostAddrs[a]--
		return nil
	}
	delete(n.hostAddrs, a)
	n.release([]netip.Addr{a})
	uplink, err := n.onHost.LinkByName(uplinkName)
	if err != nil {
		return fmt.Errorf("find uplink: %w", err)
	}
	return errors.Join(
		n.onHost.AddrDel(uplink, &netlink.Addr{IPNet: hostNet(a)}),
		n.unrouteFromRouter([]netip.Addr{a}),
	)
}

// AddExternal builds a host with these addresses, one or more, beyond the
// uplink.
func (n *Net) AddExternal(addrs ...netip.Addr) (_ *External, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(addrs) == 0 {
		return nil, errors.New("add external host: no address")
	}
	key := "ip:" + addrs[0].String()
	if err := n.claim(key, addrs); err != nil {
		return nil, fmt.Errorf("add external host: %w", err)
	}
	e := &External{addrs: slices.Clone(addrs), link: linkName(key)}
	defer func() {
		if err != nil {
			n.release(addrs)
			if e.ns != nil {
				err = errors.Join(err, e.ns.Close(), DeleteNamespace(e.ns.name))
			}
		}
	}()
	if e.ns, err = n.namespace(spaceName(key)); err != nil {
		return nil, err
	}
	if _, err := n.plugRouted(n.onRouter, nil, e.ns, e.link, addrs); err != nil {
		return nil, fmt.Errorf("add external host %v: %w", addrs[0], err)
	}
	uplink, err := n.onHost.LinkByName(uplinkName)
	if err != nil {
		return nil, fmt.Errorf("find uplink: %w", err)
	}
	for _, a := range addrs {
		// More specific than any prefix of the bridge.
		if err := n.onHost.RouteReplace(n.routeToRouter(uplink, a)); err != nil {
			return nil, fmt.Errorf("route %v to the uplink: %w", a, err)
		}
		n.externals[a] = e
		if err := n.announceOffLink(a); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// RemoveExternal takes an external host down.
func (n *Net) RemoveExternal(e *External) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.release(e.addrs)
	uplink, err := n.onHost.LinkByName(uplinkName)
	if err != nil {
		return fmt.Errorf("find uplink: %w", err)
	}
	var errs []error
	for _, a := range e.addrs {
		delete(n.externals, a)
		errs = append(errs, n.onHost.RouteDel(n.routeToRouter(uplink, a)))
	}
	if link, err := n.onRouter.LinkByName(e.link); err != nil {
		errs = append(errs, fmt.Errorf("find link of %v: %w", e.addrs[0], err))
	} else {
		errs = append(errs, n.onRouter.LinkDel(link))
	}
	return errors.Join(append(errs, e.ns.Close(), DeleteNamespace(e.ns.name))...)
}

func (n *Net) routeToRouter(uplink netlink.Link, a netip.Addr) *netlink.Route {
	via := router6
	if a.Is4() {
		via = router4
	}
	return routeVia(uplink, hostNet(a), via, firstOf(a.Is4(), n.cfg.NodeAddrs))
}

// External returns the external host that has the address, or nil.
func (n *Net) External(a netip.Addr) *External {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.externals[a]
}

// Externals lists the external hosts by address.
func (n *Net) Externals() []*External {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := slices.Collect(maps.Values(n.externals))
	slices.SortFunc(list, func(a, b *External) int { return a.addrs[0].Compare(b.addrs[0]) })
	return slices.Compact(list)
}
