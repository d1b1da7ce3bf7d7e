package link

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/xdpprog"
)

// Filters attaches programs as clsact filters, for kernels before 6.6. It
// implements dataplane.Filters. A filter stays when the agent goes; attaching
// again replaces it in one step.
type Filters struct{}

// The place among a link's filters: before those of others, at a handle of our
// own.
const (
	filterPriority = 1
	filterHandle   = 0x51ce
	filterName     = "sluice"
)

// Attach puts the program progFD at the point p of a link.
func (Filters) Attach(p xdpprog.Point, ifindex, progFD int) error {
	qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact to link %d: %w", ifindex, err)
	}
	f := filter(p, ifindex)
	f.Fd = progFD
	if err := netlink.FilterReplace(f); err != nil {
		return fmt.Errorf("attach %s filter to link %d: %w", p, ifindex, err)
	}
	return nil
}

// Detach takes the filter of a point off; it is not an error if there is none.
func (Filters) Detach(p xdpprog.Point, ifindex int) error {
	err := netlink.FilterDel(filter(p, ifindex))
	gone := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
	if err != nil && !gone {
		return fmt.Errorf("detach %s filter from link %d: %w", p, ifindex, err)
	}
	return nil
}

// Attached reports whether a filter of Sluice is at the point p of a link.
func (Filters) Attached(p xdpprog.Point, ifindex int) bool {
	at := filter(p, ifindex)
	l := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
	filters, err := netlink.FilterList(l, at.Parent)
	return err == nil && slices.ContainsFunc(filters, own)
}

func own(f netlink.Filter) bool {
	b, ok := f.(*netlink.BpfFilter)
	return ok && b.Handle == filterHandle && b.Name == filterName
}

func filter(p xdpprog.Point, ifindex int) *netlink.BpfFilter {
	parent := uint32(netlink.HANDLE_MIN_INGRESS)
	if p == xdpprog.PodEgress {
		parent = netlink.HANDLE_MIN_EGRESS
	}
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex, Parent: parent, Handle: filterHandle,
			Protocol: unix.ETH_P_ALL, Priority: filterPriority,
		},
		Name: filterName, DirectAction: true,
	}
}

// RemoveFilters takes all filters of Sluice off all links.
func RemoveFilters() error {
	links, err := Whole(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, l := range links {
		for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
			filters, err := netlink.FilterList(l, parent)
			if err != nil {
				continue // no clsact here
			}
			for _, f := range filters {
				if own(f) {
					errs = append(errs, netlink.FilterDel(f))
				}
			}
		}
	}
	return errors.Join(errs...)
}
