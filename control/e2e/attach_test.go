package e2e_test

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestAttachments sees that a pod's link carries the programs on both sides, by
// whatever the kernel has, and says so: the matrix of kernels is made of it.
func TestAttachments(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{})
	pinned := 0
	for _, pin := range p.pins() {
		if strings.Contains(pin, "/pod-") {
			pinned++
		}
	}
	filters := 0
	must(t, p.net.Host().Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
				list, err := netlink.FilterList(l, parent)
				if err != nil {
					continue // no clsact here
				}
				for _, f := range list {
					if b, ok := f.(*netlink.BpfFilter); ok && strings.HasPrefix(l.Attrs().Name, "veth") && b.Name == "sluice" {
						filters++
					}
				}
			}
		}
		return nil
	}))
	t.Logf("%d pinned links, %d filters of pods", pinned, filters)
	p.onLink("sluice0.0", func(l netlink.Link) error {
		t.Logf("packets up to %d bytes", l.Attrs().MTU)
		return nil
	})
	switch {
	case pinned == 6 && filters == 0:
		t.Log("attached by tcx")
	case pinned == 0 && filters == 6:
		t.Log("attached by clsact")
	default:
		t.Error("want 6 tcx links or 6 filters: three pods, two hooks")
	}
}
