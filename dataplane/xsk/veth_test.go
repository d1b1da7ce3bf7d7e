package xsk_test

import (
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/xsk"
)

func TestSendReceive(t *testing.T) {
	isolate(t)
	a, b := veth(t, "sluicea", "sluiceb", 1500)
	socks := steer(t, b)
	ua, ub := newUMEM(t, 512), newUMEM(t, 512)
	sa, sb := open(t, ua, small(a)), open(t, ub, small(b))
	register(t, socks, 0, sb.FD())
	if n := sb.Refill(); n != 256 {
		t.Fatalf("refilled %d frames, want the ring's 256", n)
	}
	if sa.Mode() != xsk.Copy {
		t.Fatalf("mode %v on veth, want copy", sa.Mode())
	}
	for i, size := range []int{18, 60, 64, 1000, 1514} {
		for round := range 20 {
			first := (i*20 + round) * 100
			send(t, sa, first, 100, size)
			receive(t, sb, first, 100, size)
		}
	}
	if sa.Unsent() != 0 || ua.Available() != 512 {
		t.Errorf("%d frames unsent, %d of 512 free", sa.Unsent(), ua.Available())
	}
	if n := ub.Available() + 256; n != 512 {
		t.Errorf("%d of 512 frames accounted for at the receiver", n)
	}
	st, err := sb.Stats()
	if st.TxRingEmpty = 0; err != nil || st != (xsk.Stats{}) {
		t.Errorf("receiver's stats %+v, %v", st, err)
	}
}

// TestSharedUMEM moves frames through a middle UMEM that two sockets on
// different devices share: received on one, sent on the other, by descriptor
// alone and in both directions.
func TestSharedUMEM(t *testing.T) {
	isolate(t)
	a, b := veth(t, "sluicea", "sluiceb", 1500)
	c, d := veth(t, "sluicec", "sluiced", 1500)
	mid := newUMEM(t, 1024)
	left, right := open(t, mid, small(b)), open(t, mid, small(c))
	register(t, steer(t, b), 0, left.FD())
	register(t, steer(t, c), 0, right.FD())
	left.Refill()
	right.Refill()
	west, east := open(t, newUMEM(t, 512), small(a)), open(t, newUMEM(t, 512), small(d))
	register(t, steer(t, a), 0, west.FD())
	register(t, steer(t, d), 0, east.FD())
	west.Refill()
	east.Refill()

	for round := range 20 {
		first := round * 100
		send(t, west, first, 100, 300)
		forward(t, left, right, 100)
		receive(t, east, first, 100, 300)
		send(t, east, first, 100, 1514)
		forward(t, right, left, 100)
		receive(t, west, first, 100, 1514)
	}
	if got := mid.Available() + mid.Held(); got != 1024 || mid.Held() != 512 {
		t.Errorf("%d of 1024 frames accounted for, %d held by rings of 512", got, mid.Held())
	}
}

// forward moves n frames from one socket to another of the same UMEM.
func forward(t *testing.T, from, to *xsk.Socket, n int) {
	t.Helper()
	p := xsk.NewPoller(-1, from, to)
	var descs [64]xsk.Desc
	for moved := 0; moved < n; {
		if st := p.Wait(int(patience.Milliseconds())); st != xsk.OK || !p.Ready(0) || p.Ready(1) {
			t.Fatalf("after %d frames: wait %v, ready %t %t", moved, st, p.Ready(0), p.Ready(1))
		}
		k := from.Recv(descs[:])
		if s := to.Send(descs[:k]); s != k {
			t.Fatalf("sent %d of %d", s, k)
		}
		for to.Pending() > 0 {
			if st := to.Kick(); st != xsk.OK && st != xsk.Again {
				t.Fatalf("kick: %v: %v", st, to.Err())
			}
			to.Reclaim()
		}
		to.Reclaim()
		from.Refill()
		moved += k
	}
	if !eventually(func() bool { to.Reclaim(); return to.Unsent() == 0 }) {
		t.Fatalf("%d unsent", to.Unsent())
	}
	from.Refill()
}

// TestTwoQueues has one UMEM serve both queues of a device: each socket gets
// the frames of its own.
func TestTwoQueues(t *testing.T) {
	isolate(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = "sluicea", 2, 2
	err := netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: "sluiceb", PeerNumTxQueues: 2, PeerNumRxQueues: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	a, b := up(t, "sluicea"), up(t, "sluiceb")
	socks := steer(t, b)
	from, to := newUMEM(t, 512), newUMEM(t, 1024)
	var tx, rx [2]*xsk.Socket
	for q := range uint32(2) {
		ca, cb := small(a), small(b)
		ca.Queue, cb.Queue = q, q
		tx[q], rx[q] = open(t, from, ca), open(t, to, cb)
		rx[q].Refill()
		register(t, socks, q, rx[q].FD())
	}
	for round := range 10 {
		for q := range 2 {
			send(t, tx[q], 1000*q+round*50, 50, 90)
		}
		for q := range 2 {
			receive(t, rx[q], 1000*q+round*50, 50, 90)
		}
	}
}

// TestBusyPoll has the system calls run the driver's receive loop.
func TestBusyPoll(t *testing.T) {
	isolate(t)
	a, b := veth(t, "sluicea", "sluiceb", 1500)
	cfg := small(b)
	cfg.BusyPollUs = 20
	sa, sb := open(t, newUMEM(t, 512), small(a)), open(t, newUMEM(t, 512), cfg)
	register(t, steer(t, b), 0, sb.FD())
	sb.Refill()
	if got := sb.Config().BusyPollBudget; got != 64 {
		t.Errorf("budget %d, want 64", got)
	}
	for round := range 10 {
		send(t, sa, round*100, 100, 100)
		if st := sb.Wake(); st != xsk.OK {
			t.Errorf("wake: %v: %v", st, sb.Err())
		}
		receive(t, sb, round*100, 100, 100)
	}
}

// TestOneWaySockets leaves out the rx ring, or the tx ring.
func TestOneWaySockets(t *testing.T) {
	isolate(t)
	a, b := veth(t, "sluicea", "sluiceb", 1500)
	tx, rx := small(a), small(b)
	tx.RxSize, rx.TxSize = 0, 0
	sa, sb := open(t, newUMEM(t, 512), tx), open(t, newUMEM(t, 512), rx)
	register(t, steer(t, b), 0, sb.FD())
	sb.Refill()
	send(t, sa, 0, 200, 100)
	receive(t, sb, 0, 200, 100)
	if n := sa.Recv(make([]xsk.Desc, 4)); n != 0 {
		t.Errorf("received %d without a ring", n)
	}
	if n := sb.Send(make([]xsk.Desc, 4)); n != 0 || sb.Pending() != 0 || sb.Kick() != xsk.OK {
		t.Errorf("sent %d without a ring", n)
	}
	for _, s := range []*xsk.Socket{sa, sb} {
		if st := s.Probe(); st != xsk.OK {
			t.Errorf("probe: %v: %v", st, s.Err())
		}
	}
}

// TestTxBudget counts the kicks that a burst of 256 needs.
func TestTxBudget(t *testing.T) {
	isolate(t)
	a, b := veth(t, "sluicea", "sluiceb", 1500)
	c, d := veth(t, "sluicec", "sluiced", 1500)
	cfg := small(a)
	cfg.TxBudget = 0
	few := open(t, newUMEM(t, 512), cfg)
	cfg = small(c)
	cfg.TxBudget = 1000
	many := open(t, newUMEM(t, 512), cfg)
	for _, ifindex := range []int{b, d} {
		sink := open(t, newUMEM(t, 256), small(ifindex))
		register(t, steer(t, ifindex), 0, sink.FD())
	}
	if got := few.Config().TxBudget; got != 32 {
		t.Errorf("default budget %d, want 32", got)
	}
	if kicks := send(t, few, 0, 256, 60); kicks != 8 && kicks != 9 {
		t.Errorf("%d kicks of 32 for 256 frames", kicks)
	}
	switch budget := many.Config().TxBudget; budget {
	case 32:
		t.Log("this kernel has no XDP_MAX_TX_SKB_BUDGET")
	case 256:
		if kicks := send(t, many, 0, 256, 60); kicks != 1 {
			t.Errorf("%d kicks of %d for 256 frames", kicks, budget)
		}
	default:
		t.Errorf("budget %d, want the ring's 256", budget)
	}
}

// TestPollerWakes ends a wait by an eventfd, from another goroutine.
func TestPollerWakes(t *testing.T) {
	isolate(t)
	a, _ := veth(t, "sluicea", "sluiceb", 1500)
	s := open(t, newUMEM(t, 64), small(a))
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(wake)
	p := xsk.NewPoller(wake, s)
	if st := p.Wait(0); st != xsk.Idle || p.Woken() {
		t.Fatalf("wait: %v, woken %t", st, p.Woken())
	}
	go unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	if st := p.Wait(-1); st != xsk.OK || !p.Woken() || p.Ready(0) {
		t.Fatalf("wait: %v, woken %t, ready %t", st, p.Woken(), p.Ready(0))
	}
}

// TestNoAllocsOnVeth runs the packet path's system calls.
func TestNoAllocsOnVeth(t *testing.T) {
	isolate(t)
	a, b := veth(t, "sluicea", "sluiceb", 1500)
	sa, sb := open(t, newUMEM(t, 512), small(a)), open(t, newUMEM(t, 512), small(b))
	register(t, steer(t, b), 0, sb.FD())
	sb.Refill()
	p := xsk.NewPoller(-1, sb, sa)
	descs, addrs := make([]xsk.Desc, 16), make([]uint64, 16)
	moved := 0
	allocs := testing.AllocsPerRun(200, func() {
		n := sa.UMEM().Alloc(addrs)
		for i, addr := range addrs[:n] {
			fillFrame(sa.UMEM().Bytes(addr, 100), uint32(i))
			descs[i] = xsk.Desc{Addr: addr, Len: 100}
		}
		sa.UMEM().Free(addrs[sa.Send(descs[:n]):n])
		sa.Kick()
		sa.Reclaim()
		p.Wait(100)
		sb.Wait(0)
		k := sb.Recv(descs)
		sb.UMEM().FreeDescs(descs[:k])
		sb.Refill()
		sb.Wake()
		sb.Probe()
		moved += k
	})
	if allocs != 0 {
		t.Errorf("%v allocations a burst", allocs)
	}
	if moved < 1000 {
		t.Errorf("%d frames moved", moved)
	}
}
