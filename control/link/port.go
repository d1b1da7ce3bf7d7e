// Package link finds the host-side links of pods and owns the steering ports.
// It is the only user of netlink outside the benchmarks, and never touches a
// packet. Everything happens in the network namespace of the calling thread's
// process; a sandbox's namespace is only looked into.
package link

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane"
)

// Names of a worker's steering port: kernel's end and worker's end.
const (
	kernelPrefix = "sluice0."
	workerPrefix = "sluice1."
)

// Ports makes steering ports: veth pairs with one queue, whose kernel's end has
// no transmit offloads, so that what reaches the worker is segmented and
// checksummed. It implements dataplane.Ports.
//
// The kernel's end receives by NAPI, with GRO, because that makes a frame forget
// the socket that sent it (skb_prepare_for_gro, drivers/net/veth.c). Otherwise
// it would count as sent only when its receiver is done with it, and a pod that
// keeps its packets in a queue would block the port for all.
type Ports struct{}

// Ensure returns the port of a worker, made anew if it is not there or not
// whole or of another MTU. An existing port is left as it is, with what is in
// its queues, but for how it receives.
func (Ports) Ensure(worker, mtu int) (dataplane.Port, error) {
	kernel, far := fmt.Sprint(kernelPrefix, worker), fmt.Sprint(workerPrefix, worker)
	port, err := findPort(kernel, far, mtu)
	if err == nil {
		return port, receiveByNAPI(kernel)
	}
	if !broken(err) {
		return port, err
	}
	for _, name := range []string{kernel, far} {
		if l, err := netlink.LinkByName(name); err == nil {
			if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
				return port, fmt.Errorf("delete broken steering port %s: %w", name, err)
			}
		}
	}
	if err := makePort(kernel, far, mtu); err != nil {
		return port, err
	}
	if err := receiveByNAPI(kernel); err != nil {
		return port, err
	}
	return findPort(kernel, far, mtu)
}

// Whole implements dataplane.Ports.
func (Ports) Whole(worker, mtu int) (bool, error) {
	_, err := findPort(fmt.Sprint(kernelPrefix, worker), fmt.Sprint(workerPrefix, worker), mtu)
	if err != nil && !broken(err) {
		return false, err
	}
	return err == nil, nil
}

var errNotWhole = errors.New("not a pair that is up")

// broken reports whether findPort has found that a port is not what it should be, and
// not that it could not look.
func broken(err error) bool {
	var gone netlink.LinkNotFoundError
	return errors.Is(err, errNotWhole) || errors.As(err, &gone)
}

// findPort looks a port up; it is whole if both ends are up and each other's.
func findPort(kernel, far string, mtu int) (dataplane.Port, error) {
	var p dataplane.Port
	a, err := netlink.LinkByName(kernel)
	if err != nil {
		return p, fmt.Errorf("find steering port %s: %w", kernel, err)
	}
	b, err := netlink.LinkByName(far)
	if err != nil {
		return p, fmt.Errorf("find steering port %s: %w", far, err)
	}
	x, y := a.Attrs(), b.Attrs()
	up := x.Flags&net.FlagUp != 0 && y.Flags&net.FlagUp != 0
	if x.ParentIndex != y.Index || y.ParentIndex != x.Index || !up || x.MTU != mtu || y.MTU != mtu {
		return p, fmt.Errorf("steering port %s: %w with MTU %d", kernel, errNotWhole, mtu)
	}
	return dataplane.Port{Name: far, Kernel: x.Index, Worker: y.Index}, nil
}

func makePort(kernel, far string, mtu int) (err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = kernel, mtu
	attrs.NumTxQueues, attrs.NumRxQueues = 1, 1
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: far, PeerMTU: uint32(mtu), PeerNumTxQueues: 1, PeerNumRxQueues: 1,
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("create steering port %s: %w", kernel, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, netlink.LinkDel(veth))
		}
	}()
	for _, name := range []string{kernel, far} {
		// Neither end has an address, answers ARP or speaks IPv6.
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find steering port %s: %w", name, err)
		}
		if err := disableIPv6(l); err != nil {
			return err
		}
		if err := netlink.LinkSetARPOff(l); err != nil {
			return fmt.Errorf("turn ARP off on %s: %w", name, err)
		}
		if err := disableOffloads(name); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
	}
	return nil
}

// disableIPv6 keeps a link from speaking IPv6. In a container /proc/sys can't be
// written; there the link gets no address, so that nobody finds it.
func disableIPv6(l netlink.Link) error {
	name := l.Attrs().Name
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0o644)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		err = netlink.LinkSetIP6AddrGenMode(l, nl.IN6_ADDR_GEN_MODE_NONE)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("disable IPv6 on %s: %w", name, err)
	}
	return nil
}

// RemovePorts deletes the steering ports of all workers from first on.
func RemovePorts(first int) error {
	links, err := Whole(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, l := range links {
		name := l.Attrs().Name
		number, ours := strings.CutPrefix(name, kernelPrefix)
		if worker, err := strconv.Atoi(number); !ours || err != nil || worker < first || l.Type() != "veth" {
			continue
		}
		if err := netlink.LinkDel(l); err != nil {
			errs = append(errs, fmt.Errorf("delete steering port %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
