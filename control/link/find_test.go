package link_test

import (
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control/link"
	"github.com/sluice-net/sluice/dataplane/endpoint"
)

// TestStill sees which links are what they were.
func TestStill(t *testing.T) {
	inside(t, func(t *testing.T) {
		other, err := netlab.CreateNamespace(netlab.Prefix(fmt.Sprintf("link-%d", os.Getpid())) + "other")
		must(t, err)
		t.Cleanup(func() {
			other.Close()
			must(t, netlab.DeleteNamespace(other.Name()))
		})
		const index = 300
		for _, c := range []struct {
			name   string
			change func(l netlink.Link)
			still  bool
		}{
			{"nothing", func(netlink.Link) {}, true},
			{"MTU", func(l netlink.Link) { must(t, netlink.LinkSetMTU(l, 1400)) }, true},
			{"name", func(l netlink.Link) {
				must(t, netlink.LinkSetDown(l))
				must(t, netlink.LinkSetName(l, "renamed"))
			}, false},
			{"MAC", func(l netlink.Link) { must(t, netlink.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 0, 9})) }, false},
			{"gone", func(l netlink.Link) { must(t, netlink.LinkDel(l)) }, false},
			{"its other end is elsewhere", func(netlink.Link) {
				there, err := netlink.LinkByName("pod-peer")
				must(t, err)
				fd, err := os.Open(netlab.RunDir + "/" + other.Name())
				must(t, err)
				defer fd.Close()
				must(t, netlink.LinkSetNsFd(there, int(fd.Fd())))
			}, false},
			{"another pair", func(l netlink.Link) {
				must(t, netlink.LinkDel(l))
				addVethAs(t, "between", 0, nil) // so that the other end has another index
				addVethAs(t, "pod", index, l.Attrs().HardwareAddr)
			}, false},
			{"another kind", func(l netlink.Link) {
				must(t, netlink.LinkDel(l))
				attrs := netlink.NewLinkAttrs()
				attrs.Name, attrs.Index, attrs.HardwareAddr = "pod", index, l.Attrs().HardwareAddr
				must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
			}, false},
		} {
			addVethAs(t, "pod", index, nil)
			l, err := netlink.LinkByIndex(index)
			must(t, err)
			was := link.Found{
				Link:   endpoint.Link{Ifindex: index, Name: "pod", MAC: endpoint.MAC{1}, HostMAC: endpoint.MAC(l.Attrs().HardwareAddr)},
				Inside: link.End{Ifindex: l.Attrs().ParentIndex, Namespace: l.Attrs().NetNsID},
			}
			c.change(l)
			got, err := link.Still([]link.Found{was})
			must(t, err)
			if len(got) > 0 != c.still {
				t.Errorf("%s changed: still %v, want %v", c.name, len(got) > 0, c.still)
			}
			for _, f := range got {
				now, err := netlink.LinkByIndex(index)
				must(t, err)
				if f.Link.MTU != now.Attrs().MTU || f.Link.MAC != was.Link.MAC {
					t.Errorf("%s changed: %+v", c.name, f)
				}
			}
			for _, name := range []string{"pod", "renamed", "between"} {
				if l, err := netlink.LinkByName(name); err == nil {
					must(t, netlink.LinkDel(l))
				}
			}
		}
	})
}

func addVethAs(t *testing.T, name string, index int, mac net.HardwareAddr) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index, attrs.HardwareAddr = name, index, mac
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "-peer"}))
}
