package link

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
)

// resubscribe is how soon Watch subscribes anew after its subscription ended.
const resubscribe = 100 * time.Millisecond

// Watch calls changed, from goroutines of its own, each time that a link or an
// address of this namespace appears, changes or vanishes, until ctx ends. When
// the kernel drops events, as more of them come than are read, the subscription
// ends: changed is called, and another one begins.
func Watch(ctx context.Context, changed func()) error {
	for _, subscribe := range []subscription{toLinks, toAddrs} {
		stop := make(chan struct{})
		next, err := subscribe(stop)
		if err != nil {
			close(stop)
			return fmt.Errorf("watch links: %w", err)
		}
		go follow(ctx, subscribe, next, stop, changed)
	}
	return nil
}

// subscription subscribes to events until stop is closed. next waits for one
// and reports false at the end.
type subscription func(stop <-chan struct{}) (next func() bool, err error)

func toLinks(stop <-chan struct{}) (func() bool, error) {
	updates := make(chan netlink.LinkUpdate, 256)
	return receiver(updates), netlink.LinkSubscribe(updates, stop)
}

func toAddrs(stop <-chan struct{}) (func() bool, error) {
	updates := make(chan netlink.AddrUpdate, 256)
	return receiver(updates), netlink.AddrSubscribe(updates, stop)
}

func receiver[T any](updates <-chan T) func() bool {
	return func() bool {
		_, ok := <-updates
		return ok
	}
}

// follow calls changed for each event of a subscription and of those that come
// after it.
func follow(ctx context.Context, subscribe subscription, next func() bool, stop chan struct{}, changed func()) {
	for {
		end := context.AfterFunc(ctx, func() { close(stop) })
		for next() {
			changed()
		}
		if !end() {
			return
		}
		close(stop) // releases the socket
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(resubscribe):
			}
			stop = make(chan struct{})
			var err error
			if next, err = subscribe(stop); err == nil {
				break
			}
			close(stop)
		}
		changed() // something was missed
	}
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
