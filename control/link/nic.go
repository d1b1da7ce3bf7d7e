package link

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/dataplane"
	"github.com/sluice-net/sluice/xdpprog"
)

// NIC describes the link of a name, which is to be an uplink, or says why it
// can't be one. Members of a bond and ports of a bridge can: what passes goes on
// to their master. A NIC that is down can as well, once it is up.
func (Ports) NIC(name string) (dataplane.NIC, error) {
	var nic dataplane.NIC
	l, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nic, errors.New("there is no such link")
	}
	if err != nil {
		return nic, fmt.Errorf("find link: %w", err)
	}
	a := l.Attrs()
	if err := canBeUplink(l); err != nil {
		return nic, err
	}
	if err := otherProgram(a); err != nil {
		return nic, err
	}
	if err := stripsTags(l); err != nil {
		return nic, err
	}
	queues, err := rxQueues(name)
	if err != nil {
		queues = max(a.NumRxQueues, 1) // the driver has no channels to choose from
	}
	nic = dataplane.NIC{Name: name, Ifindex: a.Index, MTU: a.MTU, Queues: queues}
	copy(nic.MAC[:], a.HardwareAddr)
	return nic, nil
}

// canBeUplink tells NICs from links that stand on others. veth counts as one: it
// is what a node in a namespace has.
func canBeUplink(l netlink.Link) error {
	a := l.Attrs()
	switch kind := l.Type(); {
	case strings.HasPrefix(a.Name, kernelPrefix) || strings.HasPrefix(a.Name, workerPrefix):
		return errors.New("it is a steering port")
	case kind == "bond":
		return fmt.Errorf("it is a bond, which has no queues of its own: name its members (%s)", strings.Join(members(a.Index), ", "))
	case kind == "vlan" || kind == "macvlan" || kind == "ipvlan":
		return fmt.Errorf("it is a %s, which has no driver of its own: name the NIC below it, whose tagged frames pass untouched", kind)
	case kind != "device" && kind != "veth":
		return fmt.Errorf("it is a %s: an uplink is a NIC", kind)
	case len(a.HardwareAddr) != 6:
		return errors.New("it has no Ethernet address")
	}
	return nil
}

func members(master int) []string {
	links, err := Whole(netlink.LinkList)
	if err != nil {
		return nil
	}
	var names []string
	for _, l := range links {
		if l.Attrs().MasterIndex == master {
			names = append(names, l.Attrs().Name)
		}
	}
	slices.Sort(names)
	return names
}

// otherProgram reports another's XDP program: a NIC takes one.
func otherProgram(a *netlink.LinkAttrs) error {
	if a.Xdp == nil || !a.Xdp.Attached {
		return nil
	}
	name, err := xdpprog.ProgramName(a.Xdp.ProgId)
	if err != nil || xdpprog.OwnProgram(name) {
		return nil // gone meanwhile, or an agent's
	}
	return fmt.Errorf("another XDP program is attached: %s, id %d; a NIC takes one, so detach it or leave this NIC out", name, a.Xdp.ProgId)
}

// stripsTags reports a NIC whose tagged frames XDP would take for untagged ones,
// where something tells its frames apart by their tags: what a worker has judged
// comes back without them. A veth pair hands tags over beside the frame, whatever
// its flags say (veth_xdp_rcv_skb in drivers/net/veth.c).
func stripsTags(l netlink.Link) error {
	why := "a veth pair hands tags over beside the frame, where XDP does not see them: leave it out"
	if name := l.Attrs().Name; l.Type() != "veth" {
		strips, err := rxVLANOffload(name)
		if err != nil || !strips {
			return nil // a driver that has no such flag doesn't strip
		}
		why = fmt.Sprintf("the NIC takes the tags off before XDP sees frames: ethtool -K %s rxvlan off", name)
	}
	links, err := Whole(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	if user := tagUser(links, l.Attrs()); user != "" {
		return fmt.Errorf("it carries %s, and %s", user, why)
	}
	return nil
}

// tagUser names a VLAN device, or a bridge that knows VLANs, that frames of a NIC
// come to: on it, or on the bond or the bridge that it is part of.
func tagUser(links []netlink.Link, nic *netlink.LinkAttrs) string {
	byIndex := make(map[int]netlink.Link, len(links))
	for _, l := range links {
		byIndex[l.Attrs().Index] = l
	}
	at := nic.Index
	for range links { // masters have masters, but no circles
		for _, l := range links {
			if l.Type() == "vlan" && l.Attrs().ParentIndex == at {
				return l.Attrs().Name
			}
		}
		l := byIndex[at]
		if l == nil || l.Attrs().MasterIndex == 0 {
			return ""
		}
		at = l.Attrs().MasterIndex
		if b, ok := byIndex[at].(*netlink.Bridge); ok && b.VlanFiltering != nil && *b.VlanFiltering {
			return b.Name + ", which is a bridge with vlan_filtering"
		}
	}
	return ""
}
