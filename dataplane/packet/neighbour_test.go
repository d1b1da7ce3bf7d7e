package packet_test

import (
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
)

var mustAddr = netip.MustParseAddr

func TestARP(t *testing.T) {
	h := parse(t, eth(0x0806, arp(2), make([]byte, 18)))
	want := packet.Neighbour{
		Sender: addr(src4), Target: addr(dst4), SenderMAC: packet.MAC{2, 0, 0, 0, 0, 1}, HasMAC: true, Op: 2,
	}
	if h.Class != packet.ClassARP || h.Neighbour != want || !h.Class.Link() {
		t.Errorf("class %d, %+v", h.Class, h.Neighbour)
	}
	for name, b := range map[string][]byte{
		"hardware": set(arp(1), 1, 6), "protocol": set(arp(1), 2, 0x86, 0xdd),
		"hardware length": set(arp(1), 4, 8), "protocol length": set(arp(1), 5, 16),
		"operation 0": arp(0), "operation 3": arp(3), "operation 257": set(arp(1), 6, 1),
	} {
		if r := packet.Parse(eth(0x0806, b), &h); r != stat.Malformed {
			t.Errorf("%s: %v", name, r)
		}
	}
	if r := packet.Parse(eth(0x0806, arp(1)[:27]), &h); r != stat.Truncated {
		t.Errorf("cut: %v", r)
	}
}

func TestNeighbourDiscovery(t *testing.T) {
	var (
		all    = mustAddr("ff02::1")
		node   = mustAddr("ff02::1:ff00:2")
		none   = netip.IPv6Unspecified()
		zero   = make([]byte, 4)
		target = dst6.AsSlice()
		mac    = packet.MAC{2, 0, 0, 0, 0, 9}
		opt    = func(typ byte) []byte { return cat([]byte{typ, 1}, mac[:]) }
		sol    = func(opts ...[]byte) []byte { return icmp(135, 0, zero, target, cat(opts...)) }
		adv    = func(flags byte, opts ...[]byte) []byte {
			return icmp(136, 0, []byte{flags, 0, 0, 0}, target, cat(opts...))
		}
		rs = func(opts ...[]byte) []byte { return icmp(133, 0, zero, cat(opts...)) }
		ra = func(opts ...[]byte) []byte { return icmp(134, 0, make([]byte, 12), cat(opts...)) }
	)
	type who struct {
		class          packet.Class
		sender, target netip.Addr
		mac            bool
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  stat.Reason
		who   who
	}{
		{"solicitation", nd(ll6, node, sol(opt(1))), stat.OK, who{packet.ClassNeighbourSolicitation, ll6, dst6, true}},
		{"solicitation without option", nd(src6, dst6, sol()), stat.OK, who{packet.ClassNeighbourSolicitation, src6, dst6, false}},
		{"duplicate detection", nd(none, node, sol()), stat.OK, who{packet.ClassNeighbourSolicitation, none, dst6, false}},
		{"duplicate detection to unicast", nd(none, dst6, sol()), stat.Malformed, who{}},
		{"duplicate detection with MAC", nd(none, node, sol(opt(1))), stat.Malformed, who{}},
		{"advertisement", nd(src6, all, adv(0x20, opt(2))), stat.OK, who{packet.ClassNeighbourAdvertisement, dst6, dst6, true}},
		{"advertisement, source option only", nd(src6, all, adv(0, opt(1))), stat.OK, who{packet.ClassNeighbourAdvertisement, dst6, dst6, false}},
		{"solicited to all", nd(src6, all, adv(0x40, opt(2))), stat.Malformed, who{}},
		{"router solicitation", nd(ll6, all, rs(opt(1))), stat.OK, who{packet.ClassRouterSolicitation, ll6, ll6, true}},
		{"router solicitation from none", nd(none, all, rs()), stat.OK, who{packet.ClassRouterSolicitation, none, none, false}},
		{"router solicitation from none with MAC", nd(none, all, rs(opt(1))), stat.Malformed, who{}},
		{"router advertisement", nd(ll6, all, ra(opt(1))), stat.OK, who{packet.ClassRouterAdvertisement, ll6, ll6, true}},
		{"router advertisement from global", nd(src6, all, ra()), stat.Malformed, who{}},
		{"router advertisement cut", nd(ll6, all, ra()[:15]), stat.Truncated, who{}},
		{"redirect", nd(ll6, dst6, icmp(137, 0, zero, target, target)), stat.Redirect, who{}},
		{"routed", link6(254, ll6, node, sol()), stat.Malformed, who{}},
		{"code", nd(ll6, node, set(sol(), 1, 1)), stat.Malformed, who{}},
		{"cut", nd(ll6, node, sol()[:23]), stat.Truncated, who{}},
		{"multicast target", nd(ll6, node, icmp(135, 0, zero, all.AsSlice())), stat.Malformed, who{}},
		{"mapped target", nd(ll6, node, icmp(135, 0, zero, mustAddr("::ffff:1.2.3.4").AsSlice())), stat.Malformed, who{}},
		{"multicast source", nd(all, node, sol()), stat.Malformed, who{}},
		{"two MACs", nd(ll6, node, sol(opt(1), opt(1))), stat.Malformed, who{}},
		{"other options", nd(ll6, node, sol([]byte{14, 1, 0, 0, 0, 0, 0, 0}, opt(1))), stat.OK, who{packet.ClassNeighbourSolicitation, ll6, dst6, true}},
		{"option length 0", nd(ll6, node, sol([]byte{14, 0, 0, 0, 0, 0, 0, 0})), stat.Malformed, who{}},
		{"option beyond", nd(ll6, node, sol([]byte{14, 2, 0, 0, 0, 0, 0, 0})), stat.Malformed, who{}},
		{"option cut", nd(ll6, node, sol(opt(1)[:6])), stat.Malformed, who{}},
		{"long MAC", nd(ll6, node, sol([]byte{1, 2}, make([]byte, 14))), stat.Malformed, who{}},
		{"fragmented", ip6(44, fragHeader(tICMP6, 0, true), sol()), stat.BadFragment, who{}},
		{"atomic fragment", ip6(44, fragHeader(tICMP6, 0, false), sol()), stat.BadFragment, who{}},
	} {
		var h packet.Header
		if got := packet.Parse(c.frame, &h); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
			continue
		}
		if c.want != stat.OK {
			continue
		}
		n := h.Neighbour
		if h.Class != c.who.class || n.Sender != addr(c.who.sender) || n.Target != addr(c.who.target) ||
			n.HasMAC != c.who.mac || n.HasMAC && n.SenderMAC != mac {
			t.Errorf("%s: class %d, %+v", c.name, h.Class, n)
		}
	}
}

func TestMulticastListeners(t *testing.T) {
	group, unicast := mustAddr("ff02::16"), dst6
	msg := icmp(131, 0, make([]byte, 20))
	v2 := icmp(143, 0, make([]byte, 4))
	behind := func(hops byte) []byte {
		h := header6(0, 8+len(v2), ll6, group)
		h[7] = hops
		return eth(packet.EtherTypeIPv6, h, ext(tICMP6, 5, 2, 0, 0, 1, 0), v2)
	}
	igmp := set(header4(2, 0, 8), 8, 1)
	copy(igmp[16:], []byte{224, 0, 0, 22})
	for _, c := range []struct {
		name  string
		frame []byte
		want  stat.Reason
		class packet.Class
	}{
		{"mld", link6(1, ll6, group, msg), stat.OK, packet.ClassMLD},
		{"mld from none", link6(1, netip.IPv6Unspecified(), group, msg), stat.OK, packet.ClassMLD},
		{"mld behind router alert", behind(1), stat.OK, packet.ClassMLD},
		{"mld may be routed", behind(2), stat.Malformed, 0},
		{"mld to unicast", link6(1, ll6, unicast, msg), stat.Malformed, 0},
		{"mld from global", link6(1, src6, group, msg), stat.Malformed, 0},
		{"mld cut", link6(1, ll6, group, msg[:23]), stat.Truncated, 0},
		{"mld query", link6(1, ll6, group, icmp(130, 0, make([]byte, 24))), stat.OK, packet.ClassMLD},
		{"mld done", link6(1, ll6, group, icmp(132, 0, make([]byte, 20))), stat.OK, packet.ClassMLD},
		{"igmp", eth(0x0800, igmp, make([]byte, 8)), stat.OK, packet.ClassIGMP},
		{"igmp may be routed", eth(0x0800, set(igmp, 8, 2), make([]byte, 8)), stat.Malformed, 0},
		{"igmp to unicast", eth(0x0800, set(igmp, 16, 10), make([]byte, 8)), stat.Malformed, 0},
		{"igmp cut", eth(0x0800, set(igmp, 3, 27), make([]byte, 8)), stat.Truncated, 0},
		{"igmp fragment", eth(0x0800, set(igmp, 6, 0x20), make([]byte, 8)), stat.BadFragment, 0},
	} {
		var h packet.Header
		if got := packet.Parse(c.frame, &h); got != c.want || h.Class != c.class {
			t.Errorf("%s: %v, class %d, want %v, %d", c.name, got, h.Class, c.want, c.class)
		}
	}
}
