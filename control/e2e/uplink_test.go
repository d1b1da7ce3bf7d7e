package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control"
	"github.com/sluice-net/sluice/control/api"
)

// nicsVar names the two NICs that make the cable to the node's uplink, by MAC
// address, in a machine that has some for it: the node's first.
const nicsVar = "SLUICE_E2E_NICS"

// away is a node with an uplink, and two hosts beyond it: one that the server's
// policy lets in, and one that it doesn't.
type away struct {
	*pair
	friendly, stranger *netlab.External
}

var (
	friendly4, friendly6 = netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8:7::7")
	stranger4, stranger6 = netip.MustParseAddr("203.0.113.8"), netip.MustParseAddr("2001:db8:7::8")
)

// letIn is the server's policy.
const letIn = "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress]\ningress:\n" +
	"- from: [{ipBlock: {cidr: 203.0.113.7/32}}, {ipBlock: {cidr: \"2001:db8:7::7/128\"}}, {podSelector: {matchLabels: {role: friend}}}]\n" +
	"  ports: [{port: 80, protocol: TCP}, {port: 80, protocol: UDP}]"

func newAway(t *testing.T, s setup) *away {
	t.Helper()
	a := awayBy(t, s, "uplink")
	a.uplinkIs("on")
	return a
}

// awayBy has the agent have a go at these uplinks.
func awayBy(t *testing.T, s setup, uplinks ...string) *away {
	t.Helper()
	change := s.change
	s.change = func(c *control.Config) {
		c.Uplinks = uplinks
		if change != nil {
			change(c)
		}
	}
	if s.bond == nil {
		s.cable = cable(t)
	}
	a := &away{pair: newPair(t, s)}
	if s.cable == nil {
		// A wire carries whole checksums; a veth leaves them to the receiver.
		a.run(a.net.Router(), "ethtool", "-K", "node", "tx", "off")
	}
	for addrs, to := range map[[2]netip.Addr]**netlab.External{
		{friendly4, friendly6}: &a.friendly, {stranger4, stranger6}: &a.stranger,
	} {
		e, err := a.net.AddExternal(addrs[:]...)
		must(t, err)
		*to = e
		for _, addr := range addrs {
			a.serve(e.Namespace(), addr, 80)
		}
	}
	a.apply("server", letIn)
	return a
}

// cable finds the NICs of nicsVar by their addresses. Those of an earlier net
// come back some time after it has gone.
func cable(t *testing.T) []string {
	t.Helper()
	if os.Getenv(nicsVar) == "" {
		return nil
	}
	var names []string
	for _, mac := range strings.Split(os.Getenv(nicsVar), ",") {
		name := ""
		for end := time.Now().Add(patience); name == "" && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			ifaces, err := net.Interfaces()
			must(t, err)
			for _, i := range ifaces {
				if i.HardwareAddr.String() == mac {
					name = i.Name
				}
			}
		}
		if name == "" {
			t.Fatalf("no NIC %s", mac)
		}
		names = append(names, name)
	}
	return names
}

// uplinkIs waits until the uplink is in a state.
func (a *away) uplinkIs(state string) api.Uplink {
	a.Helper()
	var u api.Uplink
	a.eventually("uplink is "+state, func() bool {
		ctx, cancel := context.WithTimeout(a.Context(), patience)
		defer cancel()
		s, err := a.api.Status(ctx)
		if err != nil || len(s.Uplinks) != 1 {
			return false
		}
		u = s.Uplinks[0]
		return u.State == state
	})
	return u
}

// fromAway gives the probes of both protocols and families from an external host.
func fromAway(e *netlab.External, to *pod, port uint16, pass bool, why ...string) []*probe {
	var out []*probe
	for i, src := range e.Addrs() {
		for _, proto := range []string{"tcp", "udp"} {
			p := &probe{proto: proto, from: e.Namespace(), src: src, dst: to.addr(4 + 2*i), dport: port, pass: pass}
			if len(why) > 0 {
				p.reason, p.policy = "policy", why[0]
			}
			out = append(out, p)
		}
	}
	return out
}

// host gives the probes of the node itself from outside.
func (a *away) host(e *netlab.External) []*probe {
	var out []*probe
	for i, src := range e.Addrs() {
		for _, proto := range []string{"tcp", "udp"} {
			out = append(out, &probe{proto: proto, from: e.Namespace(), src: src, dst: a.net.Config().NodeAddrs[i], dport: 22, pass: true})
		}
	}
	return out
}

// TestUplink sends traffic of every kind over an uplink: what policy allows
// arrives, also where the host translates, nothing else does, and the node's own
// traffic is left alone.
func TestUplink(t *testing.T) {
	if os.Getenv(nicsVar) == "" {
		t.Parallel()
	}
	for _, c := range []struct {
		name            string
		offload         bool
		queues, workers int
		shape           netlab.Shape
	}{
		{"offload", true, 1, 1, netlab.Routed},
		{"inspect", false, 1, 1, netlab.Routed},
		{"queues", true, 4, 3, netlab.Bridge},
	} {
		t.Run(c.name, func(t *testing.T) {
			if os.Getenv(nicsVar) == "" {
				t.Parallel()
			} else if c.queues > 1 {
				t.Skip("the NICs have one queue")
			}
			a := newAway(t, setup{shape: c.shape, queues: c.queues, change: func(cfg *control.Config) {
				cfg.Offload, cfg.Workers = c.offload, c.workers
			}})
			u := a.uplinkIs("on")
			if len(u.Queues) != c.queues || u.Mode == "none" || (u.Mode == "zerocopy") != (os.Getenv(nicsVar) != "") {
				t.Errorf("uplink: %+v", u)
			}
			t.Logf("uplink with %d queues in %s mode, offload %v", len(u.Queues), u.Mode, c.offload)
			for _, n := range a.net.Config().NodeAddrs {
				a.serve(a.net.Host(), n, 22)
			}
			a.services()
			probes := append(fromAway(a.friendly, a.server, 80, true), fromAway(a.stranger, a.server, 80, false, "server")...)
			probes = append(probes, fromAway(a.friendly, a.server, 81, false, "server")...)
			probes = append(probes, fromAway(a.stranger, a.other, 80, true)...) // no policy there
			probes = append(append(probes, a.host(a.stranger)...), all(a.friend, a.server, 80, true)...)
			// The isolated server calls: straight, and by addresses that are
			// translated. The replies are the other's, as the uplink sees them.
			for i, dst := range []netip.Addr{stranger4, stranger6, netip.MustParseAddr(awayVIP4), netip.MustParseAddr(awayVIP6)} {
				for _, proto := range []string{"tcp", "udp"} {
					probes = append(probes, &probe{proto: proto, from: a.server.Namespace(), src: a.server.addr(4 + 2*(i%2)), dst: dst, dport: 80, pass: true})
				}
			}
			for range 3 {
				a.probeAll(probes...)
			}
			for _, family := range []int{4, 6} {
				if got := a.pingAddr(a.friendly.Namespace(), a.other.addr(family), 3, 100, pingPatience); got != 3 {
					t.Errorf("ping over the uplink, IPv%d: %d of 3 answered", family, got)
				}
			}
			a.lives()
			s := a.status()
			for _, counter := range []string{"uplink-steered", "uplink-resumed"} {
				if s.Programs[counter] == 0 {
					t.Errorf("%s: nothing", counter)
				}
			}
			if c.offload {
				a.floodDenied()
			}
		})
	}
}

// Services whose servers are beyond the uplink.
const (
	awayVIP4 = "10.96.0.9"
	awayVIP6 = "fd00:96::9"
)

func (a *away) services() {
	a.Helper()
	path := filepath.Join(a.dir, ".away")
	must(a.T, os.WriteFile(path, fmt.Appendf(nil, `
table inet away {
	chain services {
		type nat hook prerouting priority dstnat;
		ip daddr %s dnat ip to %v
		ip6 daddr %s dnat ip6 to %v
	}
}
`, awayVIP4, stranger4, awayVIP6, stranger6), 0o644))
	a.run(a.net.Host(), "nft", "-f", path)
}

// lives holds connections over the uplink through changes of policy.
func (a *away) lives() {
	a.Helper()
	conn, err := dial(a.friendly.Namespace(), at(friendly4, a.port()), at(a.server.v4, 80))
	must(a.T, err)
	a.Cleanup(func() { conn.Close() })
	talk := &talk{a.node, conn}
	talk.say("connected")
	s := a.stream(a.friendly.Namespace(), friendly6, a.server.v6, 80)
	s.flows()
	back := a.stream(a.server.Namespace(), a.server.v4, netip.MustParseAddr(awayVIP4), 80)
	back.flows()
	from, fromBack := s.mark(), back.mark()
	for range 50 {
		talk.say("over the uplink")
	}
	s.after(100)
	s.intact("over the uplink", from)
	a.allow("role: nobody")
	talk.cut("tightened")
	s.silent("tightened")
	back.intact("back from the service", fromBack)
	a.apply("server", letIn)
	talk.resumes("loosened")
	s.flows()
	s.close()
	back.close()
}

// floodDenied sees a flood of denied datagrams dropped in the driver, and counted
// for the flow that was reported.
func (a *away) floodDenied() {
	a.Helper()
	var conn *net.UDPConn
	must(a.T, a.stranger.Namespace().Do(func() (err error) {
		conn, err = net.DialUDP("udp", &net.UDPAddr{IP: stranger4.AsSlice()}, net.UDPAddrFromAddrPort(at(a.server.v4, 80)))
		return err
	}))
	defer conn.Close()
	before := a.status()
	a.eventually("denied flow is dropped in the driver", func() bool {
		for range 100 {
			_, _ = conn.Write([]byte("denied"))
		}
		return a.status().Programs["uplink-denied"] > before.Programs["uplink-denied"]+1000
	})
	sport := uint16(conn.LocalAddr().(*net.UDPAddr).Port)
	a.eventually("denied flow's events tell how many", func() bool {
		told := uint32(0)
		for _, f := range a.events() {
			if f.Event == "denied" && f.Src.Port == sport && f.Src.Addr == stranger4 {
				told += 1 + f.Suppressed
			}
		}
		return told > 1000
	})
}

// TestUplinkAgentAway ends agents in every way: what is established over the
// uplink goes on, the node's own traffic always does, and nothing passes that
// policy forbids.
func TestUplinkAgentAway(t *testing.T) {
	t.Parallel()
	a := newAway(t, setup{change: func(c *control.Config) { c.HeartbeatTimeout = control.Duration(time.Second) }})
	a.serve(a.net.Host(), a.net.Config().NodeAddrs[0], 22)
	a.serve(a.net.Host(), a.net.Config().NodeAddrs[1], 22)
	a.probeAll(fromAway(a.friendly, a.server, 80, true)...)
	s := a.stream(a.friendly.Namespace(), friendly4, a.server.v4, 80)
	s.flows()
	began := s.mark()
	a.signal(unix.SIGKILL)
	// At once, with a fresh heartbeat and no socket, and when that is stale.
	for range 2 {
		a.probeAll(append(append(fromAway(a.friendly, a.server, 80, false), fromAway(a.stranger, a.server, 80, false)...), a.host(a.stranger)...)...)
		s.intact("without an agent", began)
		time.Sleep(time.Duration(a.cfg.HeartbeatTimeout))
	}
	a.start()
	a.uplinkIs("on")
	s.intact("over the restart", began)
	a.probeAll(append(fromAway(a.friendly, a.server, 80, true), fromAway(a.stranger, a.server, 80, false, "server")...)...)

	a.signal(unix.SIGSTOP)
	t.Cleanup(func() { _ = a.agent.cmd.Process.Signal(unix.SIGCONT) })
	a.eventually("agent stands still", a.agent.stopped)
	time.Sleep(time.Duration(a.cfg.HeartbeatTimeout))
	a.probeAll(append(append(fromAway(a.friendly, a.server, 80, false), fromAway(a.stranger, a.server, 80, false)...), a.host(a.stranger)...)...)
	s.intact("while the agent hangs", began)
	a.signal(unix.SIGCONT)
	a.uplinkIs("on")
	a.probeAll(append(fromAway(a.friendly, a.server, 80, true), fromAway(a.stranger, a.server, 80, false, "server")...)...)

	// Without uplinks, the next agent takes the program off.
	a.signal(unix.SIGTERM)
	a.cfg.Uplinks = nil
	a.start()
	a.programGone()
	s.intact("over all", began)
	a.probeAll(append(fromAway(a.friendly, a.server, 80, true), fromAway(a.stranger, a.server, 80, false, "server")...)...)
	a.cfg.Uplinks = []string{"uplink"}
	a.signal(unix.SIGTERM)
	a.start()
	a.uplinkIs("on")
	a.signal(unix.SIGTERM)
	if !a.programOnUplink() {
		t.Error("the program went with the agent: attaching it anew resets many a NIC")
	}
	a.cleanup()
	a.programGone()
}

// programGone waits until no program is on the uplink: the kernel takes it off a
// moment after its last reference has gone.
func (a *away) programGone() {
	a.Helper()
	a.eventually("the program is off the uplink", func() bool { return !a.programOnUplink() })
}

func (a *away) programOnUplink() bool {
	a.Helper()
	on := false
	must(a.T, a.net.Host().Do(func() error {
		l, err := netlink.LinkByName("uplink")
		if err == nil {
			on = l.Attrs().Xdp != nil && l.Attrs().Xdp.Attached
		}
		return err
	}))
	return on
}

// TestUplinkWatchdog hangs one worker, and nothing else of the agent: the uplink
// is given up until the worker is back.
func TestUplinkWatchdog(t *testing.T) {
	t.Parallel()
	a := newAway(t, setup{})
	a.serve(a.net.Host(), a.net.Config().NodeAddrs[0], 22)
	a.serve(a.net.Host(), a.net.Config().NodeAddrs[1], 22)
	s := a.stream(a.friendly.Namespace(), friendly6, a.server.v6, 80)
	s.flows()
	began := s.mark()
	release := a.hangWorker()
	u := a.uplinkIs("stalled")
	if !strings.Contains(u.Reason, "worker 0") {
		t.Errorf("stalled because of %q", u.Reason)
	}
	a.programGone()
	a.probeAll(append(fromAway(a.stranger, a.server, 80, false), a.host(a.stranger)...)...)
	s.intact("while the worker hangs", began)
	release()
	a.uplinkIs("on")
	a.probeAll(append(fromAway(a.friendly, a.server, 80, true), fromAway(a.stranger, a.server, 80, false, "server")...)...)
	s.intact("over all", began)
}

// TestUplinkRefused names links that can't be uplinks: the agent says why, and
// enforces without them.
func TestUplinkRefused(t *testing.T) {
	t.Parallel()
	n := newPair(t, setup{change: func(c *control.Config) { c.Uplinks = []string{"nope", "br9", "mv0", "sluice0.0"} }})
	n.run(n.net.Host(), "ip", "link", "add", "link", "uplink", "name", "mv0", "type", "macvlan")
	n.run(n.net.Host(), "ip", "link", "add", "name", "br9", "type", "bridge")
	want := map[string]string{"nope": "no such link", "br9": "it is a bridge", "mv0": "is a macvlan", "sluice0.0": "steering port"}
	n.eventually("reasons", func() bool {
		for _, u := range n.status().Uplinks {
			if u.State != "off" || !strings.Contains(u.Reason, want[u.Name]) {
				return false
			}
		}
		return len(n.status().Uplinks) == len(want)
	})
	n.probeAll(append(all(n.friend, n.server, 80, true), all(n.other, n.server, 80, false, "server")...)...)
}
