package netlab_test

import (
	"io"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-net/sluice/bench/netlab"
)

// end is one side of a probe.
type end struct {
	ns    *netlab.Namespace
	addrs []netip.Addr
}

const servedPort = 4000

var tags atomic.Uint32 // so that no two probes of this process are alike

// atATime is how many probes everyPair makes at a time. Each has its few seconds: of
// a thousand at once all would need them on a machine that is busy with other things.
const atATime = 32

// everyPair probes from each address to each other one of its family.
func everyPair(t *testing.T, ends []end) {
	t.Helper()
	arrived := map[uint32]chan struct{}{}
	var mu sync.Mutex
	for _, e := range ends {
		for _, a := range e.addrs {
			defer serve(t, e.ns, a, func(in netlab.SCTPInit) {
				mu.Lock()
				defer mu.Unlock()
				select {
				case arrived[in.Tag] <- struct{}{}:
				default:
				}
			})()
		}
	}
	var wg sync.WaitGroup
	turns := make(chan struct{}, atATime)
	probe := func(f func()) {
		turns <- struct{}{}
		wg.Go(func() {
			f()
			<-turns
		})
	}
	for _, src := range ends {
		for _, from := range src.addrs {
			for _, dst := range ends {
				for _, to := range dst.addrs {
					if from.Is4() != to.Is4() {
						continue
					}
					tag := tags.Add(1)
					port := uint16(20000 + tag) // never one that an earlier connection lingers at
					hit := make(chan struct{}, 1)
					mu.Lock()
					arrived[tag] = hit
					mu.Unlock()
					from, to := netip.AddrPortFrom(from, port), netip.AddrPortFrom(to, servedPort)
					in := netlab.SCTPInit{Src: from, Dst: to, Tag: tag}
					probe(func() { want(t, "TCP", from, to)(src.ns.ProbeTCP(t.Context(), from, to)) })
					probe(func() { want(t, "UDP", from, to)(src.ns.ProbeUDP(t.Context(), from, to)) })
					probe(func() { want(t, "SCTP", from, to)(src.ns.ProbeSCTP(t.Context(), in, hit)) })
				}
			}
		}
	}
	wg.Wait()
}

func want(t *testing.T, proto string, from, to netip.AddrPort) func(netlab.Result, error) {
	return func(r netlab.Result, err error) {
		if err != nil || !r.Passed {
			t.Errorf("%s %v to %v: %q, %v", proto, from, to, r.Seen, err)
		}
	}
}

// serve answers at servedPort of an address until its result is called.
func serve(t *testing.T, ns *netlab.Namespace, a netip.Addr, seen func(netlab.SCTPInit)) (stop func()) {
	t.Helper()
	at := netip.AddrPortFrom(a, servedPort)
	tcp, err := ns.EchoTCP(at)
	if err != nil {
		t.Fatal(err)
	}
	udp, err := ns.EchoUDP(at)
	if err != nil {
		t.Fatal(err)
	}
	sctp, err := ns.WatchSCTP(a, seen)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		tcp.Close()
		udp.Close()
		sctp.Close()
	}
}

// TestDeniedLooksDenied has the kernel drop what the probes send: silence must
// not be taken for anything else.
func TestDeniedLooksDenied(t *testing.T) {
	n := netFor(t, nil)
	a := addPod(t, n, "x/a", "10.0.1.10", "fd00::10")
	b := addPod(t, n, "x/b", "10.0.1.11", "fd00::11")
	for _, addr := range b.Addrs() {
		defer serve(t, b.Namespace(), addr, func(in netlab.SCTPInit) { t.Errorf("INIT %v arrived", in) })()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, dst := range b.Addrs() {
		// A rule, for a route would be less specific than the pod's own.
		run(t, n.Host(), "ip", []string{"-4", "-6"}[i], "rule", "add", "to", dst.String(), "pref", "1", "blackhole")
		from, to := netip.AddrPortFrom(a.Addrs()[i], 20000), netip.AddrPortFrom(dst, servedPort)
		silent := func(proto string) func(netlab.Result, error) {
			return func(r netlab.Result, err error) {
				if err != nil || r.Passed || !strings.HasPrefix(r.Seen, "no") {
					t.Errorf("%s %v to %v: %+v, %v, want silence", proto, from, to, r, err)
				}
			}
		}
		in := netlab.SCTPInit{Src: from, Dst: to, Tag: 1}
		wg.Go(func() { silent("TCP")(a.Namespace().ProbeTCP(t.Context(), from, to)) })
		wg.Go(func() { silent("UDP")(a.Namespace().ProbeUDP(t.Context(), from, to)) })
		wg.Go(func() { silent("SCTP")(a.Namespace().ProbeSCTP(t.Context(), in, make(chan struct{}))) })
	}
}

// TestPatiently has a server answer later than a probe waits otherwise.
func TestPatiently(t *testing.T) {
	t.Parallel()
	n := netFor(t, nil)
	p := addPod(t, n, "x/a", "10.0.1.10")
	from, to := netip.AddrPortFrom(p.Addrs()[0], 20000), netip.AddrPortFrom(p.Addrs()[0], servedPort)
	var tcp net.Listener
	var udp *net.UDPConn
	err := p.Namespace().Do(func() (err error) {
		if tcp, err = net.Listen("tcp", to.String()); err == nil {
			udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(to))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const late = 4 * time.Second
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := tcp.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		time.Sleep(late)
		io.CopyN(c, c, 16)
	})
	wg.Go(func() {
		buf := make([]byte, 16)
		size, back, err := udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Error(err)
			return
		}
		time.Sleep(late)
		udp.WriteToUDPAddrPort(buf[:size], back)
	})
	ctx := netlab.Patiently(t.Context(), 30*time.Second)
	want(t, "TCP", from, to)(p.Namespace().ProbeTCP(ctx, from, to))
	want(t, "UDP", from, to)(p.Namespace().ProbeUDP(ctx, from, to))
	wg.Wait()
	tcp.Close()
	udp.Close()
}

func run(t *testing.T, ns *netlab.Namespace, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Run(cmd); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out.String())
	}
}

func TestProcesses(t *testing.T) {
	n := netFor(t, nil)
	p := addPod(t, n, "x/a", "10.0.1.10")
	cmd := exec.Command("sleep", "60")
	if err := p.Namespace().Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	pids, err := netlab.Processes([]string{p.Namespace().Name()})
	if err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("Processes: %v, %v, want only %d", pids, err, cmd.Process.Pid)
	}
	if pids, err := netlab.Processes([]string{n.Host().Name()}); err != nil || len(pids) > 0 {
		t.Errorf("Processes of the host: %v, %v, want none", pids, err)
	}
}
