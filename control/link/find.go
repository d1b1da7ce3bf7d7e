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
	Inside    End // if a search has found it
}

// End is the end of a pod's link that is in its sandbox, as this namespace sees it.
type End struct {
	Ifindex   int
	Namespace int // this namespace's number for the sandbox's; -1: none
}

// Still returns, of links that were found before, those that are what they were:
// the same index, name and MAC address, and their other end where it was. What
// else may change of a link is as of now.
func Still(before []Found) ([]Found, error) {
	links, err := Whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var out []Found
	for _, f := range before {
		l := byIndex(links, f.Link.Ifindex)
		if l == nil || l.Type() != "veth" {
			continue
		}
		now := f
		now.Link, now.Inside = endpointLink(l), inside(l)
		now.Link.MAC = f.Link.MAC
		if now.Link.Name == f.Link.Name && now.Link.HostMAC == f.Link.HostMAC && now.Inside == f.Inside {
			out = append(out, now)
		}
	}
	return out, nil
}

func inside(l netlink.Link) End { return End{l.Attrs().ParentIndex, l.Attrs().NetNsID} }

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
// being taken down and its successor may, or one that has taken it on by itself,
// the link has it that the host sends to, else the newest. It is asked again and
// again whether that is enough by now; then found stays as it was.
func (f *Finder) Search(addrs []netip.Addr, found map[netip.Addr]Found, enough func() bool) (done bool, _ error) {
	if len(addrs) == 0 {
		return true, nil
	}
	want := make(claims, len(addrs))
	for _, a := range addrs {
		want[a] = nil
	}
	links, err := Whole(netlink.LinkList)
	if err != nil {
		return false, fmt.Errorf("list links: %w", err)
	}
	err = f.fromSandboxes(links, want, enough)
	if enough() {
		return false, err
	}
	for _, a := range addrs {
		if list := want[a]; len(list) > 0 {
			if hit, ok := rightful(a, list, links); ok {
				found[a] = hit
			}
		} else if _, ok := found[a]; !ok {
			if hit, ok := fromRoute(a, links); ok {
				found[a] = hit
			}
		}
	}
	return true, err
}

// claims are the links in whose sandboxes the addresses are that are looked for.
type claims map[netip.Addr][]Found

// rightful is the link, of those that claim an address, that has it; false if
// that will be known by another turn.
func rightful(addr netip.Addr, list []Found, links []netlink.Link) (Found, bool) {
	newest := list[0] // indices are given out in order
	for _, f := range list[1:] {
		if f.Link.Ifindex > newest.Link.Ifindex {
			newest = f
		}
	}
	if len(list) == 1 {
		return newest, true
	}
	ifindex, known := routedTo(addr, links)
	for _, f := range list {
		if f.Link.Ifindex == ifindex {
			return f, known
		}
	}
	return newest, known
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

func (f *Finder) fromSandboxes(links []netlink.Link, want claims, enough func() bool) error {
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
			if enough() {
				return nil
			}
			// A sandbox that goes away meanwhile is no error.
			_ = sandbox(filepath.Join(real, e.Name()), peers, want)
		}
	}
	return errors.Join(errs...)
}

// sandbox looks into one namespace.
func sandbox(path string, peers map[int][]netlink.Link, want claims) error {
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
		addrs, err := Whole(func() ([]netlink.Addr, error) { return h.AddrList(inside, netlink.FAMILY_ALL) })
		if err != nil {
			continue
		}
		record(here, inside, addrs, want)
	}
	return nil
}

func record(here, there netlink.Link, addrs []netlink.Addr, want claims) {
	hit := Found{Link: endpointLink(here), Inside: inside(here)}
	copy(hit.Link.MAC[:], there.Attrs().HardwareAddr)
	var own []netip.Addr
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		ip = ip.Unmap()
		_, wanted := want[ip]
		switch {
		case !ok:
		case ip.Is6() && ip.IsLinkLocalUnicast():
			hit.LinkLocal = append(hit.LinkLocal, ip)
		case wanted:
			own = append(own, ip)
		}
	}
	for _, ip := range own {
		want[ip] = append(want[ip], hit)
	}
}

func endpointLink(l netlink.Link) endpoint.Link {
	a := l.Attrs()
	e := endpoint.Link{Ifindex: a.Index, Name: a.Name, MTU: a.MTU}
	copy(e.HostMAC[:], a.HardwareAddr)
	return e
}
