package cni

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/link"
)

// inspect describes the sandbox that the plugins before have made: the cable
// between the interface inside and the host, and the addresses.
func inspect(args *skel.CmdArgs, c *Conf) (*api.Sandbox, error) {
	prev, err := current.NewResultFromResult(c.PrevResult)
	if err != nil {
		return nil, fmt.Errorf("read prevResult: %w", err)
	}
	id := parseArgs(args.Args)
	s := &api.Sandbox{
		Attachment: attachment(args),
		Namespace:  id.namespace, Pod: id.name, UID: id.uid,
		Addresses: addresses(prev, args.IfName), TimeoutMs: c.timeout.Milliseconds(),
	}
	if len(s.Addresses) == 0 {
		return nil, fmt.Errorf("prevResult has no addresses for %s", args.IfName)
	}
	return s, cable(s, args)
}

func attachment(args *skel.CmdArgs) api.Attachment {
	return api.Attachment{ContainerID: args.ContainerID, IfName: args.IfName}
}

// addresses lists those of the sandbox's interface, unmapped. An address that
// names no interface is the sandbox's.
func addresses(prev *current.Result, ifName string) []netip.Addr {
	var out []netip.Addr
	for _, ip := range prev.IPs {
		if i := ip.Interface; i != nil && *i >= 0 && *i < len(prev.Interfaces) {
			if at := prev.Interfaces[*i]; at.Sandbox == "" || at.Name != ifName {
				continue
			}
		}
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// cable finds both ends of the veth pair, whatever plugin has made it.
func cable(s *api.Sandbox, args *skel.CmdArgs) error {
	ns, err := netns.GetFromPath(args.Netns)
	if err != nil {
		return fmt.Errorf("open sandbox %s: %w", args.Netns, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return fmt.Errorf("look into sandbox %s: %w", args.Netns, err)
	}
	defer h.Close()
	inside, err := h.LinkByName(args.IfName)
	if err != nil {
		return fmt.Errorf("find %s in sandbox: %w", args.IfName, err)
	}
	if inside.Type() != "veth" {
		return fmt.Errorf("%s in sandbox is %s: only veth pairs can be enforced", args.IfName, inside.Type())
	}
	host, err := netlink.LinkByIndex(inside.Attrs().ParentIndex)
	if err != nil {
		return fmt.Errorf("find the host's end of %s: %w", args.IfName, err)
	}
	if host.Type() != "veth" || host.Attrs().ParentIndex != inside.Attrs().Index {
		return errors.New("the sandbox's link doesn't end in this namespace")
	}
	s.Link, s.Ifindex = host.Attrs().Name, host.Attrs().Index
	s.MAC = inside.Attrs().HardwareAddr.String()
	addrs, err := link.Whole(func() ([]netlink.Addr, error) { return h.AddrList(inside, netlink.FAMILY_V6) })
	if err != nil {
		return fmt.Errorf("list addresses in sandbox: %w", err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Is6() && ip.IsLinkLocalUnicast() {
			s.LinkLocal = append(s.LinkLocal, ip)
		}
	}
	return nil
}
