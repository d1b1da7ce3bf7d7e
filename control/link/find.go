package link

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/sluice-net/sluice/dataplane/endpoint"
)

// Finder finds the links of pods by their addresses.
type Finder struct {
	// NetNS are folders of named network namespaces, where container runtimes
	// and `ip netns` keep the pods' sandboxes.
	NetNS []string

	told told
}

// DefaultNetNS are the folders that containerd, CRI-O and `ip netns` use.
func DefaultNetNS() []string { return []string{"/run/netns", "/var/run/netns"} }

// Found is what is known of the link of a pod.
type Found struct {
	Link      endpoint.Link
	LinkLocal []netip.Addr
}

// Told returns what was told of the links of addresses, and the addresses that
// nobody has told of.
func (f *Finder) Told(addrs []netip.Addr) (found map[netip.Addr]Found, rest []netip.Addr) {
	found = make(map[netip.Addr]Found)
	for _, a := range addrs {
		if hit, ok := f.told.at(a); ok {
			found[a] = hit
		} else {
			rest = append(rest, a)
		}
	}
	return found, rest
}

// Search adds the link of each address that it finds to found. It looks into the
// sandboxes whose other end is here, which says all and sends nothing; for
// addresses of pods whose sandbox can't be seen, routes, neighbours and bridge
// tables are asked. Where several sandboxes have an address, as one that is
// being taken down and its successor may, the newest link has it.
func (f *Finder) Search(addrs []netip.Addr, found map[netip.Addr]Found) error {
	if len(addrs) == 0 {
		return nil
	}
	want := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		want[a] = true
	}
	links, err := whole(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	err = f.fromSandboxes(links, want, found)
	for _, a := range addrs {
		if _, ok := found[a]; !ok {
			if hit, ok := fromRoute(a, links); ok {
				found[a] = hit
			}
		}
	}
	return err
}

// peers maps a namespace ID, as this namespace numbers them, to the links
// here whose other end is in that namespace.
func peersByNamespace(links []netlink.Link) map[int][]netlink.Link {
	peers := make(map[int][]netlink.Link)
	for _, l := range links {
		if id := l.Attrs().NetNsID; l.Type() == "veth" && id >= 0 {
			peers[id] = append(peers[id], l)
		}
	}
	return peers
}

func (f *Finder) fromSandboxes(links []netlink.Link, want map[netip.Addr]bool, found map[netip.Addr]Found) error {
	peers := peersByNamespace(links)
	if len(peers) == 0 {
		return nil
	}
	seen := make(map[string]bool)
	var errs []error
	for _, dir := range f.NetNS {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil || seen[real] {
			continue
		}
		seen[real] = true
		entries, err := os.ReadDir(real)
		if err != nil {
			errs = append(errs, fmt.Errorf("list network namespaces: %w", err))
			continue
		}
		for _, e := range entries {
			// A sandbox that goes away meanwhile is no error.
			_ = sandbox(filepath.Join(real, e.Name()), peers, want, found)
		}
	}
	return errors.Join(errs...)
}

// sandbox looks into one namespace.
func sandbox(path string, peers map[int][]netlink.Link, want map[netip.Addr]bool, found map[netip.Addr]Found) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	id, err := netlink.GetNetNsIdByFd(int(ns))
	if err != nil || id < 0 || len(peers[id]) == 0 {
		return err
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	for _, here := range peers[id] {
		inside, err := h.LinkByIndex(here.Attrs().ParentIndex)
		if err != nil {
			continue
		}
		addrs, err := h.AddrList(inside, netlink.FAMILY_ALL)
		if err != nil {
			continue
		}
		record(here, inside, addrs, want, found)
	}
	return nil
}

func record(here, inside netlink.Link, addrs []netlink.Addr, want map[netip.Addr]bool, found map[netip.Addr]Found) {
	hit := Found{Link: endpointLink(here)}
	copy(hit.Link.MAC[:], inside.Attrs().HardwareAddr)
	var own []netip.Addr
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		ip = ip.Unmap()
		switch {
		case !ok:
		case ip.Is6() && ip.IsLinkLocalUnicast():
			hit.LinkLocal = append(hit.LinkLocal, ip)
		case want[ip]:
			own = append(own, ip)
		}
	}
	for _, ip := range own {
		if hit.Link.Ifindex > found[ip].Link.Ifindex { // indices are given out in order
			found[ip] = hit
		}
	}
}

func endpointLink(l netlink.Link) endpoint.Link {
	a := l.Attrs()
	e := endpoint.Link{Ifindex: a.Index, Name: a.Name, MTU: a.MTU}
	copy(e.HostMAC[:], a.HardwareAddr)
	return e
}
