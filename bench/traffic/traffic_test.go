package traffic_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/bench/traffic"
)

// spaceFor makes a namespace with a loopback that the test's end deletes.
func spaceFor(t *testing.T) *netlab.Namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	name := fmt.Sprintf("sluice-traffic-%d-%s", os.Getpid(), strings.ToLower(t.Name()))
	ns, err := netlab.CreateNamespace(strings.ReplaceAll(name, "/", "-"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(ns.Close(), netlab.DeleteNamespace(ns.Name())); err != nil {
			t.Error(err)
		}
	})
	return ns
}

var loopbacks = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}

const brief = 50 * time.Millisecond

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// measured runs a generator briefly. On a machine that is busy with other things that
// may be too short for anything to come: the next time is longer.
func measured(t *testing.T, run func(d time.Duration) error) {
	t.Helper()
	for d := brief; ; d *= 2 {
		err := run(d)
		if err == nil {
			return
		}
		if !errors.Is(err, traffic.ErrNothing) || d > patience {
			t.Fatal(err)
		}
	}
}

// onLoopback runs a test in both families.
func onLoopback(t *testing.T, f func(t *testing.T, end traffic.End, addr netip.Addr)) {
	for _, a := range loopbacks {
		t.Run(a.String(), func(t *testing.T) {
			f(t, traffic.End{Space: spaceFor(t), CPU: traffic.AnyCPU}, a)
		})
	}
}

func TestStream(t *testing.T) {
	onLoopback(t, func(t *testing.T, end traffic.End, addr netip.Addr) {
		measured(t, func(d time.Duration) error {
			r, err := traffic.Stream{
				Client: end, Server: end, To: netip.AddrPortFrom(addr, 9000), Warmup: brief, Duration: d,
			}.Run(t.Context())
			if err == nil && (r.Bytes == 0 || r.Elapsed < d || r.GbitPerSecond() <= 0) {
				t.Errorf("got %+v", r)
			}
			return err
		})
	})
}

func TestRequest(t *testing.T) {
	onLoopback(t, func(t *testing.T, end traffic.End, addr netip.Addr) {
		end.CPU = 0
		measured(t, func(d time.Duration) error {
			r, err := traffic.Request{
				Client: end, Server: end, To: netip.AddrPortFrom(addr, 9000), Warmup: brief, Duration: d,
			}.Run(t.Context())
			if err != nil {
				return err
			}
			median := r.Latency.Quantile(0.5)
			if r.Latency.Count() == 0 || median <= 0 {
				t.Errorf("%d round trips, median %v", r.Latency.Count(), median)
			}
			if median > d { // of few, that began in the measured time
				return fmt.Errorf("%w: median %v", traffic.ErrNothing, median)
			}
			return nil
		})
	})
}

func TestConnect(t *testing.T) {
	onLoopback(t, func(t *testing.T, end traffic.End, addr netip.Addr) {
		measured(t, func(d time.Duration) error {
			r, err := traffic.Connect{
				Client: end, Server: end, To: netip.AddrPortFrom(addr, 9000), Parallel: 3, Warmup: brief, Duration: d,
			}.Run(t.Context())
			if err == nil && (r.Connections == 0 || r.Connections != r.Latency.Count()) {
				t.Errorf("%d connections, %d latencies", r.Connections, r.Latency.Count())
			}
			return err
		})
	})
}

func TestConcurrent(t *testing.T) {
	onLoopback(t, func(t *testing.T, end traffic.End, addr netip.Addr) {
		r, err := traffic.Concurrent{
			Client: end, Server: end, To: netip.AddrPortFrom(addr, 9000), Connections: 300, Duration: brief,
		}.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r.Connections != 300 || r.Latency.Count() < 300 || r.PerSecond() <= 0 || r.Latency.Quantile(0.5) <= 0 {
			t.Errorf("%d connections in %v, %d exchanges", r.Connections, r.SetUp, r.Latency.Count())
		}
	})
	for _, n := range []int{0, 70000} {
		if _, err := (traffic.Concurrent{Connections: n}).Run(t.Context()); err == nil {
			t.Errorf("%d connections: no error", n)
		}
	}
}

// Nobody listens: an error, not a hang and not a zero.
func TestGeneratorsSayThatNobodyAnswers(t *testing.T) {
	end := traffic.End{Space: spaceFor(t), CPU: traffic.AnyCPU}
	unroutable := netip.MustParseAddrPort("192.0.2.1:9")
	for name, run := range map[string]func(context.Context) error{
		"stream": func(ctx context.Context) error {
			_, err := traffic.Stream{Client: end, Server: end, To: unroutable, Duration: brief}.Run(ctx)
			return err
		},
		"request": func(ctx context.Context) error {
			_, err := traffic.Request{Client: end, Server: end, To: unroutable, Duration: brief}.Run(ctx)
			return err
		},
		"connect": func(ctx context.Context) error {
			_, err := traffic.Connect{Client: end, Server: end, To: unroutable, Parallel: 2, Duration: brief}.Run(ctx)
			return err
		},
		"concurrent": func(ctx context.Context) error {
			_, err := traffic.Concurrent{Client: end, Server: end, To: unroutable, Connections: 2, Duration: brief}.Run(ctx)
			return err
		},
		"flood": func(ctx context.Context) error {
			f, err := traffic.Flood{
				Client: end, From: unroutable.Addr(), To: unroutable.Addr(), PayloadBytes: 1, Sockets: 1, Ports: 1,
			}.Start(ctx)
			if err == nil {
				err = f.Stop()
			}
			return err
		},
	} {
		if err := run(t.Context()); err == nil {
			t.Errorf("%s to an address that nothing has: no error", name)
		}
	}
}

func TestCancelEndsAStream(t *testing.T) {
	end := traffic.End{Space: spaceFor(t), CPU: traffic.AnyCPU}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(brief, cancel)
	_, err := traffic.Stream{
		Client: end, Server: end, To: netip.AddrPortFrom(loopbacks[0], 9000), Duration: time.Hour,
	}.Run(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
}

// Every packet of a flood that is sent once is a flow of its own, and the sink
// sees each.
func TestFloodOnceReachesTheSink(t *testing.T) {
	onLoopback(t, func(t *testing.T, end traffic.End, addr netip.Addr) {
		sink := sinkOn(t, end, "lo")
		f, err := traffic.Flood{
			Client: end, From: addr, To: addr, PayloadBytes: 18, Sockets: 3, Ports: 1000, Once: true,
		}.Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		<-f.Done()
		if err := f.Stop(); err != nil {
			t.Fatal(err)
		}
		got, err := sink.Received()
		for end := time.Now().Add(patience); err == nil && got < 3000 && time.Now().Before(end); time.Sleep(time.Millisecond) {
			got, err = sink.Received()
		}
		if err != nil || got != 3000 || f.Sent() != 3000 {
			t.Errorf("sent %d, received %d (%v), want 3000", f.Sent(), got, err)
		}
	})
}

func sinkOn(t *testing.T, end traffic.End, name string) *traffic.Sink {
	t.Helper()
	var sink *traffic.Sink
	err := end.Space.(*netlab.Namespace).Do(func() error {
		link, err := net.InterfaceByName(name)
		if err == nil {
			sink, err = traffic.NewSink(link.Index, unix.IPPROTO_UDP)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
	})
	return sink
}

func TestFloodValidates(t *testing.T) {
	for _, f := range []traffic.Flood{{Sockets: 0, Ports: 1}, {Sockets: 1, Ports: 0}, {Sockets: 1, Ports: 65536}} {
		if _, err := f.Start(t.Context()); err == nil {
			t.Errorf("%d sockets, %d ports: no error", f.Sockets, f.Ports)
		}
	}
}

// pair is a veth pair between two namespaces.
type pair struct {
	a, b       *netlab.Namespace
	ia, ib     int
	macA, macB net.HardwareAddr
}

func pairFor(t *testing.T) (p pair) {
	t.Helper()
	p.a = spaceFor(t)
	name := p.a.Name() + "-far"
	var err error
	if p.b, err = netlab.CreateNamespace(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(p.b.Close(), netlab.DeleteNamespace(name)); err != nil {
			t.Error(err)
		}
	})
	err = p.a.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "va"
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "vb"}); err != nil {
			return err
		}
		far, err := netlink.LinkByName("vb")
		if err != nil {
			return err
		}
		fd, err := os.Open("/run/netns/" + name)
		if err != nil {
			return err
		}
		defer fd.Close()
		return netlink.LinkSetNsFd(far, int(fd.Fd()))
	})
	up := func(ns *netlab.Namespace, name string, index *int, mac *net.HardwareAddr) error {
		return ns.Do(func() error {
			l, err := netlink.LinkByName(name)
			if err == nil {
				*index, *mac = l.Attrs().Index, l.Attrs().HardwareAddr
				err = netlink.LinkSetUp(l)
			}
			return err
		})
	}
	if err == nil {
		err = errors.Join(up(p.a, "va", &p.ia, &p.macA), up(p.b, "vb", &p.ib, &p.macB))
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// awaitCount waits until a counter moves.
func awaitCount(t *testing.T, count func() (uint64, error)) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		n, err := count()
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			return
		}
	}
	t.Error("nothing arrived")
}

func TestRawFloodMeetsXDP(t *testing.T) {
	p := pairFor(t)
	var drop *traffic.XDPDrop
	err := p.b.Do(func() (err error) {
		drop, err = traffic.NewXDPDrop(p.ib)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer drop.Close()
	frame := append(append(append([]byte{}, p.macB...), p.macA...), make([]byte, 48)...)
	f, err := traffic.RawFlood{Client: traffic.End{Space: p.a, CPU: traffic.AnyCPU}, Ifindex: p.ia, Frame: frame}.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	awaitCount(t, drop.Received)
	if err := f.Stop(); err != nil {
		t.Error(err)
	}
}

func TestOffload(t *testing.T) {
	p := pairFor(t)
	err := p.a.Do(func() error {
		for _, want := range []bool{true, false, true} {
			if err := traffic.TSO.Set("va", want); err != nil {
				return err
			}
			if got, err := traffic.TSO.Get("va"); err != nil || got != want {
				t.Errorf("TSO is %v (%v), want %v", got, err, want)
			}
		}
		if _, err := traffic.TSO.Get("none"); err == nil {
			t.Error("a link that doesn't exist has TSO")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
