package dataplane

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/xdpprog"
)

// TestLeft sees what the successor of an agent takes for left behind by it: the
// link of the pod that it had been attached for, and no other that looks alike.
func TestLeft(t *testing.T) {
	const ifindex = 300
	ep := endpoint.Endpoint{
		Namespace: "x", Name: "pod", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")},
		Link: endpoint.Link{Ifindex: ifindex, Name: "pod0", MAC: macA, HostMAC: hostA},
	}
	for _, c := range []struct {
		name   string
		change func(t *testing.T, p *Plane, ep *endpoint.Endpoint)
		want   bool
	}{
		{"nothing has changed", func(*testing.T, *Plane, *endpoint.Endpoint) {}, true},
		{"addresses in another order", func(_ *testing.T, _ *Plane, ep *endpoint.Endpoint) {
			ep.Addrs = []netip.Addr{ep.Addrs[1], ep.Addrs[0]}
		}, true},
		{"an address less", func(_ *testing.T, _ *Plane, ep *endpoint.Endpoint) { ep.Addrs = ep.Addrs[:1] }, false},
		{"another address", func(_ *testing.T, _ *Plane, ep *endpoint.Endpoint) {
			ep.Addrs = []netip.Addr{ep.Addrs[0], netip.MustParseAddr("fd00::6")}
		}, false},
		{"another MAC in the pod", func(_ *testing.T, _ *Plane, ep *endpoint.Endpoint) { ep.Link.MAC[5]++ }, false},
		{"another MAC of the link", func(_ *testing.T, _ *Plane, ep *endpoint.Endpoint) { ep.Link.HostMAC[5]++ }, false},
		{"another link", func(_ *testing.T, _ *Plane, ep *endpoint.Endpoint) { ep.Link.Ifindex++ }, false},
		{"bound meanwhile", func(t *testing.T, p *Plane, ep *endpoint.Endpoint) {
			if _, adopted, err := p.Bind(*ep); err != nil || !adopted {
				t.Fatalf("adopted %v, %v", adopted, err)
			}
		}, false},
		{"another device with its index, name and MAC", func(t *testing.T, _ *Plane, _ *endpoint.Endpoint) {
			if err := netlink.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}); err != nil {
				t.Fatal(err)
			}
			addPod0(t, ifindex)
		}, false},
		{"without a program", func(t *testing.T, p *Plane, _ *endpoint.Endpoint) {
			if err := p.objs.Detach(xdpprog.PodEgress, ifindex); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(t)
			ownNamespace(t)
			addPod0(t, ifindex)
			first := openPlane(t, cfg, &heldFilters{})
			_, err := first.Attach(ep)
			if tcx := !first.noTCX.Load(); err == nil && !tcx {
				err = first.Close()
				t.Skipf("the kernel has no tcx: %v", err)
			}
			if first.Left(ep) {
				t.Error("left behind already by an agent that is there")
			}
			if err := errors.Join(err, first.Close()); err != nil {
				t.Fatal(err)
			}
			next := openPlane(t, cfg, &heldFilters{})
			now := ep
			c.change(t, next, &now)
			if got := next.Left(now); got != c.want {
				t.Errorf("left: %v, want %v", got, c.want)
			}
			if err := next.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// ownNamespace gives the test a network namespace that goes with it.
func ownNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(netns.Set(old), old.Close(), ns.Close()); err != nil {
			t.Error(err)
			return // the thread stays locked and ends with its goroutine
		}
		runtime.UnlockOSThread()
	})
}

// addPod0 makes a pair of links, one of them with an index that is asked for.
func addPod0(t *testing.T, ifindex int) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index, attrs.HardwareAddr = "pod0", ifindex, net.HardwareAddr(hostA[:])
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0"}); err != nil {
		t.Fatal(err)
	}
}
