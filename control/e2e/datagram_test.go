package e2e_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
)

// TestLargeDatagrams sends datagrams that travel in fragments: those of a
// friend come back whole, of the others nothing arrives.
func TestLargeDatagrams(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		n := newPair(t, s)
		n.apply("ping", "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress]\ningress:\n- from: [{podSelector: {matchLabels: {role: friend}}}]")
		victim := n.wire(n.server.Namespace())
		for _, family := range []int{4, 6} {
			for _, size := range []int{1473, 3000, 9000, 30000, 60000} {
				conn := n.udp(n.friend, at(n.server.addr(family), 80))
				sent, got := make([]byte, size), make([]byte, size+1)
				_, _ = rand.Read(sent)
				n.eventually("large datagram comes back", func() bool {
					_, err := conn.Write(sent)
					must(t, err)
					must(t, conn.SetReadDeadline(time.Now().Add(time.Second)))
					have, err := conn.Read(got)
					return err == nil && bytes.Equal(got[:have], sent)
				})
				denied := n.udp(n.other, at(n.server.addr(family), 80))
				_, err := denied.Write(sent)
				must(t, err)
			}
			if got := n.pingAddr(n.friend.Namespace(), n.server.addr(family), 3, 8000, pingPatience); got < 2 {
				t.Errorf("%d of 3 large echo replies of family %d", got, family)
			}
		}
		n.eventually("the other's fragments are dropped", func() bool {
			d := n.status().Drops
			return d["policy"] >= 10 && d["bad-fragment"] >= 10
		})
		fromOther := func(p gopacket.Packet) bool {
			src := p.NetworkLayer()
			return src != nil && (src.NetworkFlow().Src().String() == n.other.v4.String() || src.NetworkFlow().Src().String() == n.other.v6.String())
		}
		if got := victim.arrived(func(p gopacket.Packet) bool { return fromOther(p) && p.Layer(layers.LayerTypeICMPv6) == nil }); got > 0 {
			t.Errorf("%d fragments of the other arrived", got)
		}
	})
}

// udp is a connected socket of a pod.
func (n *node) udp(from *pod, dst netip.AddrPort) *net.UDPConn {
	n.Helper()
	src := from.v4
	if dst.Addr().Is6() {
		src = from.v6
	}
	var conn *net.UDPConn
	must(n.T, from.Namespace().Do(func() (err error) {
		conn, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(at(src, n.port())), net.UDPAddrFromAddrPort(dst))
		return err
	}))
	n.Cleanup(func() { conn.Close() })
	return conn
}

// TestPortUnreachable sees that the error of a closed port reaches the pod that
// asked, and that a connection to it is refused, not left to time out.
func TestPortUnreachable(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		n := newPair(t, s)
		n.apply("server", allowFrom("role: friend", "[{port: 81, protocol: TCP}, {port: 81, protocol: UDP}]"))
		for _, family := range []int{4, 6} {
			conn := n.udp(n.friend, at(n.server.addr(family), 81))
			n.refused(conn)
			_, err := dial(n.friend.Namespace(), at(n.friend.addr(family), n.port()), at(n.server.addr(family), 81))
			if !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("family %d: connection to a closed port: %v", family, err)
			}
		}
	})
}

// refused waits until an ICMP error reaches a socket that sends.
func (n *node) refused(conn *net.UDPConn) {
	n.Helper()
	n.eventually("port unreachable arrives", func() bool {
		_, werr := conn.Write([]byte("anyone?"))
		must(n.T, conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		_, rerr := conn.Read(make([]byte, 10))
		return errors.Is(werr, unix.ECONNREFUSED) || errors.Is(rerr, unix.ECONNREFUSED)
	})
}

// TestPathMTU narrows the path to an external host, in IPv4 at the router and in
// IPv6, where that has no address to speak from, at the node: the errors reach
// the isolated pod that has a flow there.
func TestPathMTU(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		n := newPair(t, s)
		router, err := netlab.OpenNamespace(netlab.Prefix(n.net.Config().Name) + "router")
		must(t, err)
		t.Cleanup(func() { router.Close() })
		for _, a := range []string{"203.0.113.7", "2001:db8::7"} {
			ext, err := n.net.AddExternal(netip.MustParseAddr(a))
			must(t, err)
			n.serve(ext.Namespace(), ext.Addr(), 80)
			narrow := router
			if ext.Addr().Is6() {
				narrow = n.net.Host()
			}
			must(t, narrow.Do(func() error {
				routes, err := netlink.RouteGet(ext.Addr().AsSlice())
				if err != nil {
					return err
				}
				link, err := netlink.LinkByIndex(routes[0].LinkIndex)
				if err != nil {
					return err
				}
				return netlink.LinkSetMTU(link, 1300)
			}))
			conn := n.udp(n.server, at(ext.Addr(), 80))
			raw, err := conn.SyscallConn()
			must(t, err)
			must(t, raw.Control(func(fd uintptr) {
				if ext.Addr().Is4() {
					err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
				} else {
					err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
				}
			}))
			must(t, err)
			n.eventually("the path's MTU is known", func() bool {
				_, err := conn.Write(make([]byte, 1400))
				return errors.Is(err, unix.EMSGSIZE)
			})
		}
	})
}

// TestForgedErrors has those who have no part in a flow report errors of it.
func TestForgedErrors(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		n := newPair(t, s)
		live := n.udp(n.friend, at(n.server.v4, 80))
		echo := func() error {
			if _, err := live.Write([]byte("live")); err != nil {
				return err
			}
			must(t, live.SetReadDeadline(time.Now().Add(patience)))
			_, err := live.Read(make([]byte, 10))
			return err
		}
		must(t, echo())
		evil := n.wire(n.other.Namespace())
		target := n.wire(n.friend.Namespace())
		source := live.LocalAddr().(*net.UDPAddr).AddrPort()
		quoted := func(sport uint16) []byte {
			return n.udpFrame(target.mac, evil.mac, at(source.Addr(), sport), at(n.server.v4, 80), "live")[14:]
		}
		before := n.status().Drops["icmp-unrelated"]
		for _, q := range [][]byte{quoted(source.Port()), quoted(source.Port() + 1)} {
			for range 5 {
				evil.send(n.frame(&layers.Ethernet{SrcMAC: evil.mac, DstMAC: n.nextHop(n.other), EthernetType: layers.EthernetTypeIPv4},
					&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: n.other.v4.AsSlice(), DstIP: n.friend.v4.AsSlice()},
					&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 3)}, gopacket.Payload(q)))
			}
		}
		n.eventually("forged errors are dropped", func() bool { return n.status().Drops["icmp-unrelated"] >= before+10 })
		must(t, echo())
		if got := target.arrived(func(p gopacket.Packet) bool { return p.Layer(layers.LayerTypeICMPv4) != nil }); got > 0 {
			t.Errorf("%d ICMP messages arrived", got)
		}
	})
}
