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
	if err := stripsTags(a); err != nil {
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
	links, err := whole(netlink.LinkList)
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

// stripsTags reports a NIC whose tagged frames XDP would take for untagged ones.
func stripsTags(a *netlink.LinkAttrs) error {
	strips, err := rxVLANOffload(a.Name)
	if err != nil || !strips {
		return nil // a driver that has no such flag doesn't strip
	}
	links, err := whole(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if l.Type() == "vlan" && l.Attrs().ParentIndex == a.Index {
			return fmt.Errorf("it carries %s and takes the tags off before XDP sees frames: ethtool -K %s rxvlan off", l.Attrs().Name, a.Name)
		}
	}
	return nil
}
