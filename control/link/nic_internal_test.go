package link

import (
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestTagUser looks for what tells a NIC's frames apart by their tags, on the NIC and
// on what it is part of, and nowhere else.
func TestTagUser(t *testing.T) {
	attrs := func(name string, index, parent, master int) netlink.LinkAttrs {
		return netlink.LinkAttrs{Name: name, Index: index, ParentIndex: parent, MasterIndex: master}
	}
	nic := func(master int) netlink.Link { return &netlink.Device{LinkAttrs: attrs("eth0", 1, 0, master)} }
	vlan := func(parent int) netlink.Link { return &netlink.Vlan{LinkAttrs: attrs("tagged", 9, parent, 0)} }
	bridge := func(index int, filtering bool) netlink.Link {
		return &netlink.Bridge{LinkAttrs: attrs("br0", index, 0, 0), VlanFiltering: &filtering}
	}
	bond := func(master int) netlink.Link { return &netlink.Bond{LinkAttrs: attrs("bond0", 2, 0, master)} }
	other := &netlink.Device{LinkAttrs: attrs("eth1", 4, 0, 0)}
	const filters = "br0, which is a bridge with vlan_filtering"
	for _, c := range []struct {
		name  string
		links []netlink.Link
		want  string
	}{
		{"alone", []netlink.Link{nic(0)}, ""},
		{"VLAN", []netlink.Link{nic(0), vlan(1)}, "tagged"},
		{"another's VLAN", []netlink.Link{nic(0), other, vlan(4)}, ""},
		{"bond", []netlink.Link{nic(2), bond(0)}, ""},
		{"bond's VLAN", []netlink.Link{nic(2), bond(0), vlan(2)}, "tagged"},
		{"bridge", []netlink.Link{nic(3), bridge(3, false)}, ""},
		{"bridge's VLAN", []netlink.Link{nic(3), bridge(3, false), vlan(3)}, "tagged"},
		{"bridge that filters", []netlink.Link{nic(3), bridge(3, true)}, filters},
		{"bond on a bridge that filters", []netlink.Link{nic(2), bond(3), bridge(3, true)}, filters},
		{"VLAN of the bridge of a bond", []netlink.Link{vlan(3), bridge(3, false), bond(3), nic(2)}, "tagged"},
		{"master elsewhere", []netlink.Link{nic(7)}, ""},
	} {
		i := slices.IndexFunc(c.links, func(l netlink.Link) bool { return l.Attrs().Index == 1 })
		if got := tagUser(c.links, c.links[i].Attrs()); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
