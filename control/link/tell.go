package link

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/dataplane/endpoint"
)

// told is what others, such as a CNI plugin, say of pods' links. It is safe for
// concurrent use.
type told struct {
	mu     sync.Mutex
	byAddr map[netip.Addr][]telling // oldest first
}

type telling struct {
	who   string
	found Found
}

// Tell says that the pod behind a link has these addresses. It holds until who
// is forgotten, while the link exists; of several that say so for an address
// the last one does.
func (f *Finder) Tell(who string, addrs []netip.Addr, found Found) {
	f.told.mu.Lock()
	defer f.told.mu.Unlock()
	f.told.drop(func(x telling) bool { return x.who == who })
	if f.told.byAddr == nil {
		f.told.byAddr = make(map[netip.Addr][]telling)
	}
	for _, a := range addrs {
		f.told.byAddr[a] = append(f.told.byAddr[a], telling{who, found})
	}
}

// Forget takes back what who said of a link.
func (f *Finder) Forget(who string, ifindex int) {
	f.told.mu.Lock()
	defer f.told.mu.Unlock()
	f.told.drop(func(x telling) bool { return x.who == who && x.found.Link.Ifindex == ifindex })
}

func (t *told) drop(which func(telling) bool) {
	for a, list := range t.byAddr {
		list = slices.DeleteFunc(list, which)
		if len(list) == 0 {
			delete(t.byAddr, a)
		} else {
			t.byAddr[a] = list
		}
	}
}

// at returns the last telling of an address whose link is there.
func (t *told) at(a netip.Addr) (Found, bool) {
	t.mu.Lock()
	list := slices.Clone(t.byAddr[a])
	t.mu.Unlock()
	for _, x := range slices.Backward(list) {
		if Exists(x.found.Link.Ifindex, x.found.Link.Name) {
			return x.found, true
		}
	}
	return Found{}, false
}

// ByIndex describes the host-side link of a pod, given its index, name and the
// pod's own MAC address.
func ByIndex(ifindex int, name string, mac endpoint.MAC) (endpoint.Link, error) {
	l, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return endpoint.Link{}, fmt.Errorf("find link %d: %w", ifindex, err)
	}
	if l.Attrs().Name != name || l.Type() != "veth" {
		return endpoint.Link{}, fmt.Errorf("find link %d: it is %s %s, not veth %s", ifindex, l.Type(), l.Attrs().Name, name)
	}
	e := endpointLink(l)
	e.MAC = mac
	return e, nil
}
