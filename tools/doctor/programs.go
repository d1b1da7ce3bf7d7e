package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/control/link"
	"github.com/sluice-net/sluice/xdpprog"
)

// programs looks for XDP and tcx programs and filters of others.
func (r *Report) programs(o *Options) {
	if o.Root != "" {
		return
	}
	links, err := link.Whole(netlink.LinkList)
	if err != nil {
		r.add("programs", "links", Warn, err.Error(), "")
		return
	}
	own, others := 0, 0
	for _, l := range links {
		mine, theirs := r.onLink(l)
		own, others = own+mine, others+theirs
	}
	if others == 0 {
		r.add("programs", "others", OK, fmt.Sprintf("none on %s; %d of Sluice's", count(len(links), "link"), own), "")
	}
}

func (r *Report) onLink(l netlink.Link) (own, others int) {
	a := l.Attrs()
	if x := a.Xdp; x != nil && x.Attached {
		name, err := xdpprog.ProgramName(x.ProgId)
		if err != nil {
			name = fmt.Sprint("id ", x.ProgId)
		}
		if xdpprog.OwnProgram(name) {
			own++
		} else {
			others++
			r.add("programs", a.Name+" XDP", Warn, name, "a link has one XDP program: Sluice can't steer on this one; pods' traffic is not concerned")
		}
	}
	list, err := xdpprog.OnLink(a.Index)
	if err != nil {
		return own, others
	}
	var order []string
	foreign := 0
	for _, p := range list {
		order = append(order, p.At+":"+p.Name)
		if p.Own {
			own++
		} else {
			foreign++
		}
	}
	if foreign > 0 {
		r.add("programs", a.Name+" tcx", Info, strings.Join(order, " "), "programs run in this order; what one of them drops or redirects the next ones don't see")
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := netlink.FilterList(l, parent)
		if err != nil {
			continue
		}
		foreign += countForeign(filters)
		if names := bpfNames(filters); len(names) > 0 {
			r.add("programs", a.Name+" tc", Info, strings.Join(names, " "), "clsact filters run after tcx programs on ingress and egress")
		}
	}
	return own, others + foreign
}

func bpfNames(filters []netlink.Filter) []string {
	var names []string
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok && b.Name != "sluice" {
			names = append(names, b.Name)
		}
	}
	slices.Sort(names)
	return names
}

func countForeign(filters []netlink.Filter) int { return len(bpfNames(filters)) }
