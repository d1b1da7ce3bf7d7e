package link

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Watch calls changed, from a goroutine of its own, each time that a link
// appears, changes or vanishes, until ctx ends.
func Watch(ctx context.Context, changed func()) error {
	updates := make(chan netlink.LinkUpdate, 256)
	err := netlink.LinkSubscribeWithOptions(updates, ctx.Done(), netlink.LinkSubscribeOptions{
		// A full socket buffer loses updates; the next turn looks at all links.
		ErrorCallback: func(error) { changed() },
	})
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	go func() {
		for range updates {
			changed()
		}
	}()
	return nil
}

// Exists reports whether a link is still the one that it was: the same index,
// name and kind.
func Exists(ifindex int, name string) bool {
	l, err := netlink.LinkByIndex(ifindex)
	return err == nil && l.Attrs().Name == name
}

// HostAddrs returns the addresses of this namespace's links: the node's own.
func HostAddrs() ([]netip.Addr, error) {
	list, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		if ip = ip.Unmap(); ok && !ip.IsLoopback() {
			out = append(out, ip)
		}
	}
	return out, nil
}
