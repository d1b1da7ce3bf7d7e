package xsk_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/xsk"
)

// eventually tries f until it is true.
func eventually(f func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if f() {
			return true
		}
	}
	return f()
}

// TestRebind closes and reopens the same queue: the kernel gives it back with
// a delay, which Open waits for, and no frame is lost on the way.
func TestRebind(t *testing.T) {
	isolate(t)
	a, b := veth(t, "sluicea", "sluiceb", 1500)
	socks := steer(t, b)
	ua, ub := newUMEM(t, 256), newUMEM(t, 256)
	sa := open(t, ua, small(a))
	cfg := small(b)
	cfg.FillSize, cfg.BindTimeout = 64, patience
	for round := range 5 {
		sb, err := ub.Open(cfg)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		register(t, socks, 0, sb.FD())
		sb.Refill()
		send(t, sa, 0, 40, 100)
		receive(t, sb, 0, 30, 100) // ten are left in the ring
		if err := sb.Close(); err != nil {
			t.Fatal(err)
		}
		if ub.Available() != 256 || ub.Held() != 0 {
			t.Fatalf("round %d: %d of 256 frames free, %d held after the close", round, ub.Available(), ub.Held())
		}
	}
}

// TestBusyQueue asks for a queue that is in use: no retry brings it, and the
// error says why.
func TestBusyQueue(t *testing.T) {
	isolate(t)
	a, _ := veth(t, "sluicea", "sluiceb", 1500)
	open(t, newUMEM(t, 64), small(a))
	cfg := small(a)
	for _, timeout := range []time.Duration{-1, 30 * time.Millisecond} {
		cfg.BindTimeout = timeout
		start := time.Now()
		if _, err := newUMEM(t, 64).Open(cfg); !errors.Is(err, unix.EBUSY) {
			t.Errorf("timeout %v: error %v, want EBUSY", timeout, err)
		}
		if d := time.Since(start); d < timeout {
			t.Errorf("timeout %v: gave up after %v", timeout, d)
		}
	}
	for _, c := range []struct {
		change func(*xsk.Config)
		want   error
	}{
		{func(c *xsk.Config) { c.Queue = 7 }, unix.EINVAL},
		{func(c *xsk.Config) { c.Ifindex = 1 << 20 }, unix.ENODEV},
	} {
		cfg := small(a)
		c.change(&cfg)
		u := newUMEM(t, 64)
		if _, err := u.Open(cfg); !errors.Is(err, c.want) {
			t.Errorf("queue %d of %d: error %v, want %v", cfg.Queue, cfg.Ifindex, err, c.want)
		}
		if err := u.Close(); err != nil {
			t.Errorf("after a failed Open: %v", err)
		}
	}
}

// TestSameQueueTwice asks for a second socket on a queue of the same UMEM.
func TestSameQueueTwice(t *testing.T) {
	isolate(t)
	a, _ := veth(t, "sluicea", "sluiceb", 1500)
	u := newUMEM(t, 64)
	open(t, u, small(a))
	if _, err := u.Open(small(a)); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "has the queue") {
		t.Errorf("error %v, want one that names the queue", err)
	}
}

// TestNoCarrier sends while the peer is down: the device drops the frames,
// which come back all the same.
func TestNoCarrier(t *testing.T) {
	isolate(t)
	a, b := veth(t, "sluicea", "sluiceb", 1500)
	s := open(t, newUMEM(t, 128), small(a))
	l, err := netlink.LinkByIndex(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetDown(l); err != nil {
		t.Fatal(err)
	}
	var addrs [1]uint64
	s.UMEM().Alloc(addrs[:])
	fillFrame(s.UMEM().Bytes(addrs[0], 60), 0)
	s.Send([]xsk.Desc{{Addr: addrs[0], Len: 60}})
	if st := s.Kick(); st != xsk.Again || !errors.Is(s.Err(), unix.EBUSY) {
		t.Errorf("kick: %v, %v, want again by EBUSY", st, s.Err())
	}
	send(t, s, 1, 100, 60)
	if got := s.UMEM().Available(); got != 128 {
		t.Errorf("%d of 128 frames free", got)
	}
}

func TestZeroCopyOnVeth(t *testing.T) {
	isolate(t)
	a, b := veth(t, "sluicea", "sluiceb", 1500)
	u := newUMEM(t, 64)
	cfg := small(a)
	cfg.Mode = xsk.ZeroCopy
	if _, err := u.Open(cfg); !errors.Is(err, xsk.ErrZeroCopy) || !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatalf("error %v, want ErrZeroCopy", err)
	}
	cfg.Mode = xsk.Auto
	s := open(t, u, cfg)
	if s.Mode() != xsk.Copy || s.Config().Mode != xsk.Auto {
		t.Errorf("mode %v, asked for %v", s.Mode(), s.Config().Mode)
	}
	cfg = small(b)
	cfg.Mode = xsk.ZeroCopy
	if _, err := u.Open(cfg); !errors.Is(err, xsk.ErrZeroCopy) {
		t.Errorf("second socket: error %v, want ErrZeroCopy", err)
	}
	cfg = small(b)
	cfg.MultiBuffer = true
	if _, err := u.Open(cfg); !errors.Is(err, xsk.ErrMultiBuffer) {
		t.Errorf("second socket: error %v, want ErrMultiBuffer", err)
	}
	cfg = small(b)
	cfg.NeedWakeup = false
	if _, err := u.Open(cfg); err == nil || !strings.Contains(err.Error(), "need-wakeup") {
		t.Errorf("second socket: error %v, want need-wakeup named", err)
	}
}

// TestDeviceDeleted deletes the device under two sockets on one UMEM, of which
// one lives on: the dead one says so, and gives its frames back.
func TestDeviceDeleted(t *testing.T) {
	isolate(t)
	a, _ := veth(t, "sluicea", "sluiceb", 1500)
	c, d := veth(t, "sluicec", "sluiced", 1500)
	socks := steer(t, c)
	u := newUMEM(t, 1024)
	dead, live := open(t, u, small(a)), open(t, u, small(c))
	register(t, socks, 0, live.FD())
	dead.Refill()
	live.Refill()
	peer := open(t, newUMEM(t, 256), small(d))

	var addrs [3]uint64
	u.Alloc(addrs[:])
	if n := dead.Send([]xsk.Desc{{Addr: addrs[0], Len: 60}, {Addr: addrs[1], Len: 60}, {Addr: addrs[2], Len: 60}}); n != 3 {
		t.Fatalf("sent %d", n)
	}
	deleteLink(t, a)
	if st := dead.Kick(); st != xsk.Dead || !errors.Is(dead.Err(), unix.ENXIO) {
		t.Errorf("kick: %v, %v, want dead by ENXIO", st, dead.Err())
	}
	if st := dead.Probe(); st != xsk.Dead {
		t.Errorf("probe: %v, want dead", st)
	}
	if st := dead.Wait(1); st != xsk.Dead {
		t.Errorf("wait: %v, want dead", st)
	}
	if st := xsk.NewPoller(-1, dead, live).Wait(1); st != xsk.Dead {
		t.Errorf("poller: %v, want dead", st)
	}
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	if u.Available() != 1024-256 || u.Held() != 256 {
		t.Errorf("%d of 1024 frames free, %d held by the living socket's ring of 256", u.Available(), u.Held())
	}
	send(t, peer, 0, 100, 200)
	receive(t, live, 0, 100, 200)

	// A new socket shares with the one that lives.
	e, _ := veth(t, "sluicee", "sluicef", 1500)
	again := open(t, u, small(e))
	if n := again.Refill(); n != 256 {
		t.Errorf("refilled %d", n)
	}
	if st := again.Wait(0); st != xsk.Idle {
		t.Errorf("wait: %v, want idle", st)
	}
}

// TestDeviceMoved moves the device into another network namespace: to the
// socket it is as good as deleted.
func TestDeviceMoved(t *testing.T) {
	here := isolate(t)
	a, _ := veth(t, "sluicea", "sluiceb", 1500)
	s := open(t, newUMEM(t, 128), small(a))
	s.Refill()
	there, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if err := netns.Set(here); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByIndex(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetNsFd(l, int(there)); err != nil {
		t.Fatal(err)
	}
	if st := s.Wait(1); st != xsk.Dead {
		t.Errorf("wait: %v, %v, want dead", st, s.Err())
	}
	if err := s.Close(); err != nil || s.UMEM().Available() != 128 {
		t.Errorf("close: %v, %d of 128 frames free", err, s.UMEM().Available())
	}
}

// TestShareBeyondDead opens a socket while the first one on the UMEM is dead
// and still open.
func TestShareBeyondDead(t *testing.T) {
	isolate(t)
	a, _ := veth(t, "sluicea", "sluiceb", 1500)
	u := newUMEM(t, 256)
	dead := open(t, u, small(a))
	deleteLink(t, a)
	if !eventually(func() bool { return dead.Probe() == xsk.Dead }) {
		t.Fatal("the socket outlives its device")
	}
	c, d := veth(t, "sluicec", "sluiced", 1500)
	// The dead one can't be shared with, so this one registers the UMEM
	// again, the next one shares with it.
	first, second := open(t, u, small(c)), open(t, u, small(d))
	socks := steer(t, d)
	register(t, socks, 0, second.FD())
	var addrs [100]uint64
	second.Fill(addrs[:u.Alloc(addrs[:])])
	send(t, first, 0, 50, 100)
	receive(t, second, 0, 50, 100)
}

func TestDeviceDownUp(t *testing.T) {
	isolate(t)
	a, b := veth(t, "sluicea", "sluiceb", 1500)
	socks := steer(t, b)
	sa, sb := open(t, newUMEM(t, 256), small(a)), open(t, newUMEM(t, 512), small(b))
	register(t, socks, 0, sb.FD())
	sb.Refill()
	send(t, sa, 0, 50, 100)
	receive(t, sb, 0, 50, 100)

	l, err := netlink.LinkByIndex(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetDown(l); err != nil {
		t.Fatal(err)
	}
	if st := sa.Probe(); st != xsk.Down || !errors.Is(sa.Err(), unix.ENETDOWN) {
		t.Errorf("probe: %v, %v, want down", st, sa.Err())
	}
	if st := sa.Wait(1); st != xsk.Down {
		t.Errorf("wait: %v, want down", st)
	}
	var addr [1]uint64
	sa.UMEM().Alloc(addr[:])
	fillFrame(sa.UMEM().Bytes(addr[0], 100), 50)
	sa.Send([]xsk.Desc{{Addr: addr[0], Len: 100}})
	if st := sa.Kick(); st != xsk.Down {
		t.Errorf("kick: %v, want down", st)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
	// The peer's carrier comes back by a work queue, and a frame sent before
	// is dropped by the device. The one that was kept goes with the rest.
	if !eventually(func() bool { return carrier(t, a) && carrier(t, b) }) {
		t.Fatal("no carrier after up")
	}
	if st := sa.Kick(); st != xsk.OK {
		t.Errorf("kick after up: %v, %v", st, sa.Err())
	}
	send(t, sa, 51, 50, 100)
	receive(t, sb, 50, 51, 100)
}

func carrier(t *testing.T, ifindex int) bool {
	t.Helper()
	l, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().OperState == netlink.OperUp
}

func deleteLink(t *testing.T, ifindex int) {
	t.Helper()
	l, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(l); err != nil {
		t.Fatal(err)
	}
}
