package doctor

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The kernel's generic netlink family "netdev" (include/uapi/linux/netdev.h,
// Linux 6.3 on).
const (
	netdevCmdDevGet    = 1
	netdevAttrIfindex  = 1
	netdevAttrFeatures = 3

	xdpBasic    = 1 << 0
	xdpRedirect = 1 << 1
	xdpZeroCopy = 1 << 3
	xdpRxSG     = 1 << 5
)

// xdpFeatures asks the kernel what a card's driver can do with XDP.
func xdpFeatures(name string) (uint64, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", name, err)
	}
	family, err := netlink.GenlFamilyGet("netdev")
	if err != nil {
		return 0, fmt.Errorf("find netlink family netdev: %w", err)
	}
	req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
	req.AddData(&nl.Genlmsg{Command: netdevCmdDevGet, Version: 1})
	req.AddData(nl.NewRtAttr(netdevAttrIfindex, nl.Uint32Attr(uint32(i.Index))))
	msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return 0, fmt.Errorf("ask for XDP features of %s: %w", name, err)
	}
	for _, m := range msgs {
		attrs, err := nl.ParseRouteAttr(m[nl.SizeofGenlmsg:])
		if err != nil {
			return 0, fmt.Errorf("read XDP features of %s: %w", name, err)
		}
		for _, a := range attrs {
			if a.Attr.Type&nl.NLA_TYPE_MASK == netdevAttrFeatures && len(a.Value) >= 8 {
				return nl.NativeEndian().Uint64(a.Value), nil
			}
		}
	}
	return 0, fmt.Errorf("ask for XDP features of %s: no answer", name)
}

// xdpModes puts features into words.
func xdpModes(features uint64) string {
	if features&xdpBasic == 0 {
		return "XDP generic at best"
	}
	text := "XDP native"
	if features&xdpZeroCopy != 0 {
		text += ", zero-copy"
	} else {
		text += ", copy"
	}
	if features&xdpRxSG != 0 {
		text += ", multi-buffer"
	}
	return text
}
