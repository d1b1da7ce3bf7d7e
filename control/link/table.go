package link

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Table is what is known of this namespace's links and addresses. It follows the
// kernel's events, so that a look costs no system call: a node has hundreds of
// links, and a pod that starts makes a dozen events. Now and then, and when
// events were lost, it is read anew. It is safe for concurrent use.
type Table struct {
	mu    sync.Mutex
	links map[int]known  // by index
	addrs map[addrAt]int // how often: IPv4 has an address again for another peer

	// What HostAddrs gives.
	sorted     bool
	own, local []netip.Addr
}

type known struct {
	name string
	veth bool
}

type addrAt struct {
	ifindex int
	addr    netip.Prefix
}

// Follow brings the table up to date and keeps it so until ctx ends. changed is
// called, from other goroutines, each time that a link or an address appears,
// changes or vanishes, when the table knows of it.
func (t *Table) Follow(ctx context.Context, changed func()) error {
	if err := errors.Join(links(t).follow(ctx, changed), addrs(t).follow(ctx, changed)); err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	return nil
}

// Exists reports whether a link is still the one that it was: the same index and
// name. Of a link that it doesn't know it asks the kernel: the link may be newer
// than the latest event.
func (t *Table) Exists(ifindex int, name string) bool {
	t.mu.Lock()
	l := t.links[ifindex]
	t.mu.Unlock()
	return l.name == name || Exists(ifindex, name)
}

// ipvsLink has the addresses of all Services where kube-proxy uses IPVS. They are no
// more the node's than where it uses netfilter, and it opens no node ports there.
const ipvsLink = "kube-ipvs0"

// HostAddrs returns the addresses of this namespace's links, the node's own, but
// for those of Services, and IPv6's link-local ones of veth links: these are local.
// Both are sorted and have each address once. The caller must not change them.
func (t *Table) HostAddrs() (own, local []netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.sorted {
		t.own, t.local, t.sorted = nil, nil, true
		for at := range t.addrs {
			l, there := t.links[at.ifindex] // if not, its event is to come
			if l.name == ipvsLink {
				continue
			}
			if a := at.addr.Addr(); a.Is6() && a.IsLinkLocalUnicast() && (l.veth || !there) {
				t.local = append(t.local, a)
			} else {
				t.own = append(t.own, a)
			}
		}
		for _, list := range []*[]netip.Addr{&t.own, &t.local} {
			slices.SortFunc(*list, netip.Addr.Compare)
			*list = slices.Compact(*list)
		}
	}
	return t.own, t.local
}

func (t *Table) listLinks() (changed bool, err error) {
	list, err := Whole(netlink.LinkList)
	if err != nil {
		return false, fmt.Errorf("list links: %w", err)
	}
	links := make(map[int]known, len(list))
	for _, l := range list {
		links[l.Attrs().Index] = knownOf(l)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	changed = !maps.Equal(links, t.links)
	t.links, t.sorted = links, false
	return changed, nil
}

func knownOf(l netlink.Link) known { return known{l.Attrs().Name, l.Type() == "veth"} }

// applyLink takes an event in. Bridges tell of their ports in an address family
// of their own: there a port that leaves is deleted.
func (t *Table) applyLink(u *netlink.LinkUpdate) {
	index, now := u.Attrs().Index, knownOf(u)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case u.Family != unix.AF_UNSPEC:
	case u.Header.Type == unix.RTM_DELLINK:
		delete(t.links, index)
	case t.links[index] != now:
		t.links[index], t.sorted = now, false
	}
}

func (t *Table) listAddrs() (changed bool, err error) {
	list, err := addrList()
	if err != nil {
		return false, err
	}
	addrs := make(map[addrAt]int, len(list))
	for _, a := range list {
		if at, ok := at(a.LinkIndex, a.IPNet); ok {
			addrs[at]++
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	changed = !maps.Equal(addrs, t.addrs)
	t.addrs, t.sorted = addrs, false
	return changed, nil
}

// at is where an address is, if others may reach this node by it.
func at(ifindex int, a *net.IPNet) (addrAt, bool) {
	ip, ok := hostAddr(a.IP)
	bits, _ := a.Mask.Size()
	return addrAt{ifindex, netip.PrefixFrom(ip, bits)}, ok
}

// applyAddr takes an event in. Which of two peers' an address of IPv4 is it
// doesn't tell: then all are read.
func (t *Table) applyAddr(u *netlink.AddrUpdate) {
	at, ok := at(u.LinkIndex, &u.LinkAddress)
	if !ok {
		return
	}
	if t.take(at, u.NewAddr) {
		_, _ = t.listAddrs() // or by the next event, or in time
	}
}

// take notes that an address is there, or gone. It reports whether it can't tell
// what has become of it.
func (t *Table) take(at addrAt, there bool) (unclear bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.addrs[at]
	switch {
	case there && n > 0:
		return at.addr.Addr().Is4()
	case there:
		t.addrs[at], t.sorted = 1, false
	case n == 1 && !perPeer(at.addr):
		delete(t.addrs, at)
		t.sorted = false
	default:
		return n > 0
	}
	return false
}

// perPeer reports whether a link may have an address once for each of several
// peers. Of two that were there one may have gone before all were read, and its
// event come after.
func perPeer(a netip.Prefix) bool { return a.Addr().Is4() && a.IsSingleIP() }

// Exists asks the kernel whether a link is still the one that it was.
func Exists(ifindex int, name string) bool {
	l, err := netlink.LinkByIndex(ifindex)
	return err == nil && l.Attrs().Name == name
}

// HostAddrs asks the kernel for the addresses of this namespace's links.
func HostAddrs() ([]netip.Addr, error) {
	list, err := addrList()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if ip, ok := hostAddr(a.IP); ok {
			out = append(out, ip)
		}
	}
	return out, nil
}

func addrList() ([]netlink.Addr, error) {
	list, err := Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return list, nil
}

// hostAddr is an address by which others may reach this node.
func hostAddr(ip []byte) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip)
	a = a.Unmap()
	return a, ok && !a.IsLoopback()
}
