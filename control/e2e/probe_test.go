package e2e_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control/api"
)

// probe is one attempt to reach an echo server, and whether it should succeed.
type probe struct {
	proto  string // tcp or udp
	from   *netlab.Namespace
	src    netip.Addr
	dst    netip.Addr
	dport  uint16
	pass   bool
	reason string // of the denial, or ""
	policy string // that a denial names, or ""

	sport uint16
}

func (p *probe) String() string {
	return fmt.Sprintf("%s %v > %v:%d", p.proto, p.src, p.dst, p.dport)
}

// denied reports whether an event is that of the probe's denial.
func (p *probe) denied(f *api.Flow) bool {
	return f.Event == "denied" && f.Src.Addr == p.src && f.Src.Port == p.sport && f.Dst.Addr == p.dst && f.Dst.Port == p.dport
}

// serve runs echo servers for both protocols at an address until the test ends.
func (n *node) serve(at *netlab.Namespace, a netip.Addr, port uint16) {
	n.Helper()
	ap := netip.AddrPortFrom(a, port)
	tcp, err := at.EchoTCP(ap)
	must(n.T, err)
	n.Cleanup(func() { tcp.Close() })
	udp, err := at.EchoUDP(ap)
	must(n.T, err)
	n.Cleanup(func() { udp.Close() })
}

// serveBoth serves both families of a pod.
func (n *node) serveBoth(p *pod, port uint16) {
	n.Helper()
	n.serve(p.Namespace(), p.v4, port)
	n.serve(p.Namespace(), p.v6, port)
}

// all gives the probes of both protocols and families between two pods.
func all(from, to *pod, port uint16, pass bool, why ...string) []*probe {
	var out []*probe
	for _, proto := range []string{"tcp", "udp"} {
		for _, family := range []int{4, 6} {
			p := &probe{proto: proto, from: from.Namespace(), src: from.addr(family), dst: to.addr(family), dport: port, pass: pass}
			if len(why) > 0 {
				p.reason = "policy"
				p.policy = why[0]
			}
			out = append(out, p)
		}
	}
	return out
}

// emulated machines are so slow that silence of some seconds is no evidence: a probe
// that should pass, or should be told of as denied, is made again before its silence
// counts.
var emulated = os.Getenv(patienceVar) != ""

// probeAll runs probes at the same time, and compares what happened with what
// should, and the denied ones with what the API says about them.
func (n *node) probeAll(probes ...*probe) {
	n.Helper()
	var wg sync.WaitGroup
	results := make([]string, len(probes))
	for i, p := range probes {
		p.sport = n.port()
		wg.Go(func() {
			r, err := n.try(p)
			for again := 0; emulated && again < 3 && p.pass && !r.Passed && n.Context().Err() == nil; again++ {
				p.sport = n.port()
				r, err = n.try(p)
			}
			if err != nil || r.Passed != p.pass {
				results[i] = fmt.Sprintf("%v: passed %v (%s, %v), want %v", p, r.Passed, r.Seen, err, p.pass)
			}
		})
	}
	wg.Wait()
	for _, r := range results {
		if r != "" {
			n.Error(r)
		}
	}
	for _, p := range probes {
		if p.reason != "" {
			n.expectDenied(p)
		}
	}
}

// try makes a probe. What should pass may take as long as a busy machine does.
func (n *node) try(p *probe) (netlab.Result, error) {
	src, dst, ctx := netip.AddrPortFrom(p.src, p.sport), netip.AddrPortFrom(p.dst, p.dport), n.Context()
	if p.pass {
		ctx = netlab.Patiently(ctx, patience/6)
	}
	if p.proto == "udp" {
		return p.from.ProbeUDP(ctx, src, dst)
	}
	return p.from.ProbeTCP(ctx, src, dst)
}

// expectDenied looks for the event of a probe's denial.
func (n *node) expectDenied(p *probe) {
	n.Helper()
	for again := 0; emulated && again < 3; again++ {
		if within(patience/9, func() bool { _, is := n.find(p.denied); return is }) {
			break
		}
		p.sport = n.port()
		if r, err := n.try(p); err != nil || r.Passed {
			n.Errorf("%v, again: passed %v (%s, %v), want it denied", p, r.Passed, r.Seen, err)
		}
	}
	f := n.event(p.String(), p.denied)
	if f.Reason != p.reason || f.Verdict != "deny" {
		n.Errorf("%v: %s because of %q, want %q", p, f.Verdict, f.Reason, p.reason)
	}
	if p.policy == "" {
		return
	}
	for _, ref := range f.DecidedBy {
		if ref.Name == p.policy && ref.Kind == "NetworkPolicy" && ref.Namespace == "x" {
			return
		}
	}
	n.Errorf("%v: decided by %+v, want %s", p, f.DecidedBy, p.policy)
}

// dial opens a TCP connection from a namespace.
func dial(from *netlab.Namespace, src netip.AddrPort, dst netip.AddrPort) (c *net.TCPConn, err error) {
	err = from.Do(func() error {
		// A keep-alive would open a flow anew that was lost.
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(src), Timeout: patience, KeepAlive: -1}
		conn, err := d.Dial("tcp", dst.String())
		if err == nil {
			c = conn.(*net.TCPConn)
		}
		return err
	})
	return c, err
}

// closeNow closes a connection, so that its port is free if it is reset. A process
// that another test starts has this one's descriptors until it executes.
func closeNow(c *net.TCPConn) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return c.Close()
}
