package dataplane

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/dataplane/xsk"
)

// newSendingWorker has a socket on a pair of links that stands for the steering port,
// and pod b at the end of another.
func newSendingWorker(t *testing.T, mtu int) *testWorker {
	t.Helper()
	needRoot(t)
	ownNamespace(t)
	addPod0(t, 70)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "port"
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}))
	up := func(name string, mtu int) int {
		l, err := netlink.LinkByName(name)
		must(err)
		must(errors.Join(netlink.LinkSetMTU(l, mtu), netlink.LinkSetUp(l)))
		return l.Attrs().Index
	}
	up("pod0", 1500)
	up("eth0", mtu)
	up("peer", 1500)
	w := newTestWorker(t)
	cfg := xsk.Default(up("port", 1500), 0)
	sock, err := w.umem.Open(cfg)
	must(err)
	w.sock = sock
	t.Cleanup(func() {
		for i := range w.direct {
			w.closeDirect(&w.direct[i])
		}
		if err := sock.Close(); err != nil {
			t.Error(err)
		}
	})
	snap := *w.snap
	snap.local = append([]local{}, snap.local...)
	snap.local[slotB].ifindex = 70
	w.snap = &snap
	w.maxHeard, w.wanted = 0, slotB
	w.openWanted(w.snap)
	if w.direct[slotB].sock == nil {
		t.Fatal("no way into the pod")
	}
	return w
}

// What the kernel did not take, however often it was asked, goes into the pod though
// nothing else comes for it. Here each call takes one: they are too large for the pod.
func TestDirectGoesOn(t *testing.T) {
	w := newSendingWorker(t, 600)
	s := aToB(53)
	s.udp = true
	frames := make([][]byte, 2*maxKicks)
	for i := range frames {
		frames[i] = append(s.frame(t), make([]byte, 1000)...)
	}
	w.umem.Alloc(make([]uint64, len(frames)))
	w.put(frames...)
	for i := range frames {
		p := &w.b.pkts[i]
		p.verb, p.slot, p.to = verbShortcut, slotA, slotB
	}
	w.transmit(w.snap)
	d := &w.direct[slotB]
	if d.sock.Pending() == 0 {
		t.Fatal("the kernel has taken all")
	}
	for range 3 {
		w.nowNs = w.nextSweep
		w.housekeep(w.snap)
	}
	if d.sock.Pending() > 0 || d.out > 0 || w.inPods > 0 {
		t.Errorf("%d frames wait in the ring, %d are out, %d to all pods", d.sock.Pending(), d.out, w.inPods)
	}
}
