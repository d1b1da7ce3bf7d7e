package e2e_test

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/control"
)

// uplinksAre waits until each uplink is on, or off for the reason that is given.
func (n *node) uplinksAre(want map[string]string) {
	n.Helper()
	for name, reason := range want {
		n.eventually(name+": "+reason, func() bool {
			for _, u := range n.status().Uplinks {
				if u.Name == name {
					return u.State == "on" && reason == "on" || u.State == "off" && reason != "on" && strings.Contains(u.Reason, reason)
				}
			}
			return false
		})
	}
}

// addWide makes a veth pair of the host whose ends have so many queues.
func (n *node) addWide(name string, rx, peerTX int) {
	n.Helper()
	must(n.T, n.net.Host().Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumRxQueues, attrs.NumTxQueues = name, rx, 1
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "p", PeerNumRxQueues: 1, PeerNumTxQueues: uint32(peerTX)})
	}))
}

// TestUplinkQueues names NICs with more queues than sockets or frames can be had,
// and one whose driver has too few for XDP.
func TestUplinkQueues(t *testing.T) {
	t.Parallel()
	n := newPair(t, setup{change: func(c *control.Config) {
		c.Uplinks, c.Frames = []string{"many", "wide", "few", "fit"}, 8192
	}})
	n.addWide("many", 300, 1)
	n.addWide("wide", 200, 1)
	n.addWide("few", 1, 4)
	n.addWide("fit", 2, 1)
	for _, name := range []string{"few", "fewp", "fit", "fitp"} {
		n.onLink(name, netlink.LinkSetUp)
	}
	n.uplinksAre(map[string]string{
		"many": "300 queues: uplinks have room for 256 in all",
		"wide": "200 queues with 8192 frames each for 1 workers",
		"few":  "too few queues",
		"fit":  "on",
	})
	n.probeAll(append(all(n.friend, n.server, 80, true), all(n.other, n.server, 80, false, "server")...)...)
}

// TestUplinkDown has a NIC that is down when the agent starts and comes up later,
// whose cable is pulled, and that goes for good.
func TestUplinkDown(t *testing.T) {
	t.Parallel()
	n := newPair(t, setup{change: func(c *control.Config) { c.Uplinks = []string{"spare"} }})
	n.addWide("spare", 2, 1)
	n.onLink("sparep", netlink.LinkSetDown)
	n.probeAll(append(all(n.friend, n.server, 80, true), all(n.other, n.server, 80, false, "server")...)...)
	n.onLink("spare", netlink.LinkSetUp)
	n.onLink("sparep", netlink.LinkSetUp)
	n.uplinksAre(map[string]string{"spare": "on"})
	n.onLink("sparep", netlink.LinkSetDown) // the cable
	n.probeAll(append(all(n.friend, n.server, 80, true), all(n.other, n.server, 80, false, "server")...)...)
	n.uplinksAre(map[string]string{"spare": "on"})
	n.onLink("spare", netlink.LinkDel)
	n.uplinksAre(map[string]string{"spare": "no such link"})
	n.probeAll(append(all(n.friend, n.server, 80, true), all(n.other, n.server, 80, false, "server")...)...)
}

// TestUplinkOtherProgram meets an XDP program of somebody else on the NIC, in
// every mode: it stays, the agent names it and enforces without that NIC, and
// takes the NIC as soon as it is free. While it has it, nobody else gets it.
func TestUplinkOtherProgram(t *testing.T) {
	t.Parallel()
	a := newAway(t, setup{})
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "somebody_elses", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}}) // XDP_PASS
	must(t, err)
	t.Cleanup(func() { prog.Close() })
	set := func(fd int, flags uint32) (err error) {
		must(t, a.net.Host().Do(func() error {
			l, e := netlink.LinkByName("uplink")
			if e == nil {
				err = netlink.LinkSetXdpFdWithFlags(l, fd, int(flags))
			}
			return e
		}))
		return err
	}
	if err := set(prog.FD(), unix.XDP_FLAGS_DRV_MODE); err == nil {
		t.Error("another program took Sluice's place")
	}
	for _, mode := range []uint32{unix.XDP_FLAGS_DRV_MODE, unix.XDP_FLAGS_SKB_MODE} {
		a.signal(unix.SIGTERM)
		a.cleanup()
		a.programGone()
		must(t, set(prog.FD(), mode))
		a.start()
		if u := a.uplinkIs("off"); !strings.Contains(u.Reason, "another XDP program is attached: somebody_elses") {
			t.Errorf("reason: %q", u.Reason)
		}
		a.probeAll(append(fromAway(a.friendly, a.server, 80, true), fromAway(a.stranger, a.server, 80, false, "server")...)...)
		if !a.programOnUplink() {
			t.Error("the agent took another's program off")
		}
		must(t, set(-1, mode))
		a.uplinkIs("on")
		a.probeAll(append(fromAway(a.friendly, a.server, 80, true), fromAway(a.stranger, a.server, 80, false, "server")...)...)
	}
}
