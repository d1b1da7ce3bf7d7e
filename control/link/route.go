package link

import (
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// discardPort is where the packet that makes the kernel resolve a neighbour
// goes to (RFC 863).
const discardPort = 9

// fromRoute finds the link of an address by the host's own tables: the route's
// device if that is a pod's link, or behind a bridge the port that the
// neighbour's MAC was learned on.
func fromRoute(addr netip.Addr, links []netlink.Link) (Found, bool) {
	routes, err := netlink.RouteGet(addr.AsSlice())
	if err != nil || len(routes) == 0 || routes[0].Gw != nil {
		return Found{}, false
	}
	dev := byIndex(links, routes[0].LinkIndex)
	if dev == nil || dev.Type() != "veth" && dev.Type() != "bridge" {
		return Found{}, false
	}
	mac := neighbour(addr, dev)
	if mac == nil {
		ask(addr)
		return Found{}, false // known by the next turn
	}
	if dev.Type() == "bridge" {
		if dev = bridgePort(dev, mac, links); dev == nil {
			return Found{}, false
		}
	}
	hit := Found{Link: endpointLink(dev), Inside: inside(dev)}
	copy(hit.Link.MAC[:], mac)
	return hit, true
}

// routedTo returns the index of the link that the host sends to an address by, 0
// if there is none; false if a neighbour was asked, and has not answered yet.
func routedTo(addr netip.Addr, links []netlink.Link) (ifindex int, known bool) {
	routes, err := netlink.RouteGet(addr.AsSlice())
	if err != nil || len(routes) == 0 || routes[0].Gw != nil {
		return 0, true
	}
	dev := byIndex(links, routes[0].LinkIndex)
	if dev != nil && dev.Type() == "bridge" {
		mac := neighbour(addr, dev)
		if mac == nil {
			if silent(addr, dev) {
				return 0, true
			}
			ask(addr)
			return 0, false
		}
		dev = bridgePort(dev, mac, links)
	}
	if dev == nil {
		return 0, true
	}
	return dev.Attrs().Index, true
}

// silent reports whether a neighbour was asked in vain.
func silent(addr netip.Addr, dev netlink.Link) bool {
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	neighs, err := netlink.NeighList(dev.Attrs().Index, family)
	return err != nil || slices.ContainsFunc(neighs, func(n netlink.Neigh) bool {
		ip, _ := netip.AddrFromSlice(n.IP)
		return ip.Unmap() == addr && n.State&unix.NUD_FAILED != 0
	})
}

func byIndex(links []netlink.Link, index int) netlink.Link {
	for _, l := range links {
		if l.Attrs().Index == index {
			return l
		}
	}
	return nil
}

func neighbour(addr netip.Addr, dev netlink.Link) net.HardwareAddr {
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	neighs, err := netlink.NeighList(dev.Attrs().Index, family)
	if err != nil {
		return nil
	}
	for _, n := range neighs {
		ip, _ := netip.AddrFromSlice(n.IP)
		if ip.Unmap() == addr && len(n.HardwareAddr) == 6 && n.State&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) == 0 {
			return n.HardwareAddr
		}
	}
	return nil
}

// ask makes the kernel resolve a neighbour.
func ask(addr netip.Addr) {
	c, err := net.Dial("udp", netip.AddrPortFrom(addr, discardPort).String())
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte{0})
}

// bridgePort returns the veth port of a bridge behind which mac was seen.
func bridgePort(bridge netlink.Link, mac net.HardwareAddr, links []netlink.Link) netlink.Link {
	fdb, err := netlink.NeighList(0, unix.AF_BRIDGE)
	if err != nil {
		return nil
	}
	for _, e := range fdb {
		if e.HardwareAddr.String() != mac.String() || e.State&unix.NUD_PERMANENT != 0 {
			continue
		}
		port := byIndex(links, e.LinkIndex)
		if port != nil && port.Attrs().MasterIndex == bridge.Attrs().Index && port.Type() == "veth" {
			return port
		}
	}
	return nil
}
