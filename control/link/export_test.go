package link

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink"
)

// Compare says how the table differs from what the kernel says.
func (t *Table) Compare() error {
	fresh := Table{}
	_, errLinks := fresh.listLinks()
	_, errAddrs := fresh.listAddrs()
	if err := errors.Join(errLinks, errAddrs); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !maps.Equal(t.links, fresh.links) {
		return fmt.Errorf("links %v, want %v", t.links, fresh.links)
	}
	var seen, want []addrAt
	for at := range t.addrs {
		seen = append(seen, at)
	}
	for at := range fresh.addrs {
		want = append(want, at)
	}
	order := func(a, b addrAt) int { return a.addr.Compare(b.addr) }
	slices.SortFunc(seen, order)
	slices.SortFunc(want, order)
	if len(seen) != len(want) {
		return fmt.Errorf("addresses %v, want %v", seen, want)
	}
	return nil
}

// Has reports whether the table knows a link by itself.
func (t *Table) Has(l netlink.Link) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.links[l.Attrs().Index].name == l.Attrs().Name
}

// Apply takes an event in.
func (t *Table) Apply(u *netlink.AddrUpdate) { t.applyAddr(u) }
