package doctor

import (
	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/control/link"
)

// network writes down links, addresses, routes and neighbours as the kernel lists
// them: the agent's image has no programs for that.
func (d *dump) network() {
	links, err := link.Whole(netlink.LinkList)
	d.putJSON("net/links.json", links, err)
	for name, list := range map[string]func() (any, error){
		"addresses": func() (any, error) {
			return link.Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
		},
		"routes": func() (any, error) {
			return link.Whole(func() ([]netlink.Route, error) {
				return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, netlink.RT_FILTER_TABLE)
			})
		},
		"rules": func() (any, error) {
			return link.Whole(func() ([]netlink.Rule, error) { return netlink.RuleList(netlink.FAMILY_ALL) })
		},
		"neighbours": func() (any, error) {
			return link.Whole(func() ([]netlink.Neigh, error) { return netlink.NeighList(0, netlink.FAMILY_ALL) })
		},
	} {
		v, err := list()
		d.putJSON("net/"+name+".json", v, err)
	}
}
