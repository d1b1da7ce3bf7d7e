package link

import (
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/xdpprog"
)

// Others names the programs beside Sluice's that see what enters the host by a
// link.
func Others(ifindex int) (names []string, err error) {
	list, err := xdpprog.OnLink(ifindex)
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		if !p.Own && p.At == "tcx-ingress" {
			names = append(names, p.Name)
		}
	}
	l := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
	filters, err := netlink.FilterList(l, filter(xdpprog.PodIngress, ifindex).Parent)
	if err != nil {
		return names, fmt.Errorf("list filters of link %d: %w", ifindex, err)
	}
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok && !own(f) {
			names = append(names, b.Name)
		}
	}
	return names, nil
}
