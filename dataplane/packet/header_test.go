package packet_test

import (
	"testing"

	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
)

func addr(b interface{ AsSlice() []byte }) packet.Addr {
	s := b.AsSlice()
	if len(s) == 4 {
		return packet.AddrV4(uint32(s[0])<<24 | uint32(s[1])<<16 | uint32(s[2])<<8 | uint32(s[3]))
	}
	var a packet.Addr
	for i := range 8 {
		a.Hi = a.Hi<<8 | uint64(s[i])
		a.Lo = a.Lo<<8 | uint64(s[8+i])
	}
	return a
}

func parse(t *testing.T, frame []byte) packet.Header {
	t.Helper()
	// What an earlier packet left behind must not show.
	h := packet.Header{VLAN: 9, SrcPort: 9, FragID: 9, ICMPError: true, TCPFlags: 9}
	if r := packet.Parse(frame, &h); r != stat.OK {
		t.Fatalf("%x: %v", frame, r)
	}
	return h
}

func TestHeaderFields(t *testing.T) {
	h := parse(t, eth(0x88a8, tag(0x2007, 0x8100), tag(5, 0x0800), ip4(tTCP, tcp(packet.TCPSyn), 1, 1, 1, 0)[l3:]))
	want := packet.Header{
		Src: addr(src4), Dst: addr(dst4), SrcPort: 1000, DstPort: 80, L3: 22, L4: 46,
		EtherType: packet.EtherTypeIPv4, VLAN: 7, Tags: 2, Proto: tTCP, TTL: 64,
		TCPFlags: packet.TCPSyn, IPLen: 44, FragHeaders: 20,
	}
	if h != want {
		t.Errorf("got  %+v\nwant %+v", h, want)
	}
	h = parse(t, ip6(60, ext(tUDP), udp(3)))
	want = packet.Header{
		Src: addr(src6), Dst: addr(dst6), SrcPort: 1000, DstPort: 53, L3: 14, L4: 62,
		EtherType: packet.EtherTypeIPv6, Proto: tUDP, TTL: 64, IPLen: 59, FragHeaders: 16,
	}
	if h != want {
		t.Errorf("got  %+v\nwant %+v", h, want)
	}
}

func TestFragmentFields(t *testing.T) {
	h := parse(t, frag4(tUDP, 0, true, udp(0)))
	if h.Frag != packet.FragFirst || h.FragID != 0x1234 || h.FragOffset != 0 || h.FragHeaders != 8 || h.DstPort != 53 {
		t.Errorf("first: %+v", h)
	}
	l := parse(t, frag4(tUDP, 1480, false, make([]byte, 5)))
	if l.Frag != packet.FragLater || l.FragOffset != 1480 || l.SrcPort != 0 || l.FragKey() != h.FragKey() {
		t.Errorf("later: %+v", l)
	}
	if o := parse(t, frag4(47, 1480, false, make([]byte, 5))); o.FragKey() == h.FragKey() {
		t.Error("IPv4 fragments of two protocols share a key")
	}
	h = parse(t, ip6(0, ext(44), fragHeader(60, 0, true), ext(tTCP), tcp(packet.TCPAck), make([]byte, 4)))
	if h.Frag != packet.FragFirst || h.FragID != 9 || h.Proto != tTCP || h.FragHeaders != 28 || h.L4 != 14+40+24 {
		t.Errorf("IPv6 first: %+v", h)
	}
	l = parse(t, ip6(0, ext(44), fragHeader(60, 1232, true), make([]byte, 8)))
	if l.Frag != packet.FragLater || l.FragOffset != 1232 || l.Proto != 60 || l.FragKey() != h.FragKey() {
		t.Errorf("IPv6 later: %+v", l)
	}
	h = parse(t, ip6(44, fragHeader(tUDP, 0, false), udp(0)))
	if h.Frag != packet.FragNone || h.DstPort != 53 {
		t.Errorf("atomic: %+v", h)
	}
}

func TestKeySymmetry(t *testing.T) {
	there := parse(t, ip4(tUDP, udp(0)))
	frame := ip4(tUDP, set(udp(0), 0, 0, 53, 3, 232))
	copy(frame[l3+12:], dst4.AsSlice())
	copy(frame[l3+16:], src4.AsSlice())
	back := parse(t, frame)
	k1, s1 := there.Key()
	k2, s2 := back.Key()
	if k1 != k2 || s1 == s2 {
		t.Errorf("keys %v %v, sides %v %v", k1, k2, s1, s2)
	}
}

// The oracle of KeyTo is MakeKey, on values so few that many are equal.
func TestKeyTo(t *testing.T) {
	few := []packet.Addr{{}, {Lo: 1}, {Hi: 1}, {Hi: 1, Lo: 1}, {Hi: 1 << 63}, {Lo: 1 << 63}, addr(src4), addr(src6)}
	ports := []uint16{0, 1, 80, 65535}
	for _, src := range few {
		for _, dst := range few {
			for _, sport := range ports {
				for _, dport := range ports {
					h := packet.Header{Src: src, Dst: dst, SrcPort: sport, DstPort: dport, Proto: tUDP}
					var got packet.Key
					side := h.KeyTo(&got)
					want, wantSide := packet.MakeKey(src, dst, sport, dport, tUDP)
					if got != want || side != wantSide {
						t.Errorf("%v:%d to %v:%d: %v %d, want %v %d", src, sport, dst, dport, got, side, want, wantSide)
					}
				}
			}
		}
	}
}

func TestICMPKeys(t *testing.T) {
	for _, c := range []struct {
		name              string
		frame             []byte
		srcPort, dstPort  uint16
		classify, errored uint16
	}{
		{"echo", ip4(tICMP, echo(8)), 77, 77, 8 << 8, 0},
		{"echo reply", ip4(tICMP, echo(0)), 77, 77, 0, 0},
		{"echo 6", ip6(tICMP6, echo(128)), 77, 77, 128 << 8, 0},
		{"echo reply 6", ip6(tICMP6, echo(129)), 77, 77, 129 << 8, 0},
		{"timestamp", ip4(tICMP, icmp(13, 0, make([]byte, 16))), 0, 13 << 8, 13 << 8, 0},
		{"timestamp reply", ip4(tICMP, icmp(14, 0, make([]byte, 16))), 13 << 8, 0, 14 << 8, 0},
		{"other with code", ip4(tICMP, icmp(40, 3, make([]byte, 4))), 0, 40<<8 | 3, 40<<8 | 3, 0},
		{"other 6", ip6(tICMP6, icmp(200, 1)), 0, 200<<8 | 1, 200<<8 | 1, 0},
		{"error", ip4(tICMP, icmp(3, 4, make([]byte, 4), quote4())), 0, 0, 3<<8 | 4, 1},
	} {
		h := parse(t, c.frame)
		if h.SrcPort != c.srcPort || h.DstPort != c.dstPort || h.ClassifyPort() != c.classify || h.ICMPError != (c.errored == 1) {
			t.Errorf("%s: ports %d %d, classify %x, error %v", c.name, h.SrcPort, h.DstPort, h.ClassifyPort(), h.ICMPError)
		}
	}
	if h := parse(t, ip4(tTCP, tcp(packet.TCPAck))); h.ClassifyPort() != 80 {
		t.Errorf("TCP is classified by %d", h.ClassifyPort())
	}
	if h := parse(t, ip4(47, make([]byte, 8))); h.ClassifyPort() != 0 {
		t.Errorf("GRE is classified by %d", h.ClassifyPort())
	}
}

func TestICMPErrors(t *testing.T) {
	unreachable := func(q []byte) []byte { return ip4(tICMP, icmp(3, 3, make([]byte, 4), q)) }
	unreachable6 := func(q []byte) []byte { return ip6(tICMP6, icmp(1, 4, make([]byte, 4), q)) }
	innerEcho := set(quote4(), 9, byte(tICMP))
	copy(innerEcho[20:], echo(8)[:8])
	innerError := set(innerEcho, 20, 3)
	for _, c := range []struct {
		name  string
		frame []byte
		want  stat.Reason
		sport uint16
		dport uint16
		proto packet.Proto
	}{
		{"udp", unreachable(quote4()), stat.OK, 4000, 53, tUDP},
		{"only ports", unreachable(quote4()[:24]), stat.OK, 4000, 53, tUDP},
		{"ports cut", unreachable(quote4()[:23]), stat.Truncated, 0, 0, tUDP},
		{"header cut", unreachable(quote4()[:19]), stat.Truncated, 0, 0, 0},
		{"ihl beyond", unreachable(set(quote4(), 0, 0x4f)), stat.Truncated, 0, 0, tUDP},
		{"ihl 4", unreachable(set(quote4(), 0, 0x44)), stat.Malformed, 0, 0, 0},
		{"version", unreachable(set(quote4(), 0, 0x65)), stat.Malformed, 0, 0, 0},
		{"options", unreachable(cat(set(quote4()[:20], 0, 0x46), make([]byte, 4), quote4()[20:])), stat.OK, 4000, 53, tUDP},
		{"later fragment", unreachable(set(quote4(), 6, 0, 9)), stat.ICMPUnrelated, 0, 0, tUDP},
		{"not the receiver's", unreachable(set(quote4(), 12, 10, 9, 9, 9)), stat.ICMPUnrelated, 0, 0, tUDP},
		{"echo", unreachable(innerEcho), stat.OK, 77, 77, tICMP},
		{"echo cut", unreachable(innerEcho[:27]), stat.Truncated, 0, 0, tICMP},
		{"error about an error", unreachable(innerError), stat.ICMPUnrelated, 0, 0, tICMP},
		{"gre", unreachable(set(quote4()[:20], 9, 47)), stat.OK, 0, 0, 47},
		{"icmpv6 in ipv4", unreachable(set(innerEcho, 9, 58)), stat.Malformed, 0, 0, tICMP6},
		{"source quench", ip4(tICMP, icmp(4, 0, make([]byte, 4), quote4())), stat.OK, 4000, 53, tUDP},
		{"time exceeded", ip4(tICMP, icmp(11, 0, make([]byte, 4), quote4())), stat.OK, 4000, 53, tUDP},
		{"parameter problem", ip4(tICMP, icmp(12, 0, make([]byte, 4), quote4())), stat.OK, 4000, 53, tUDP},

		{"tcp6", unreachable6(quote6(tTCP, tcp(packet.TCPAck))), stat.OK, 1000, 80, tTCP},
		{"tcp6 ports cut", unreachable6(quote6(tTCP, be16(1000))), stat.Truncated, 0, 0, tTCP},
		{"behind options", unreachable6(quote6(60, ext(tTCP), tcp(packet.TCPAck)[:4])), stat.OK, 1000, 80, tTCP},
		{"options cut", unreachable6(quote6(60, ext(tTCP)[:4])), stat.Truncated, 0, 0, 60},
		{"first fragment 6", unreachable6(quote6(44, fragHeader(tUDP, 0, true), udp(0))), stat.OK, 1000, 53, tUDP},
		{"later fragment 6", unreachable6(quote6(44, fragHeader(tUDP, 8, true), udp(0))), stat.ICMPUnrelated, 0, 0, tUDP},
		{"version 6", unreachable6(set(quote6(tUDP, udp(0)), 0, 0x45)), stat.Malformed, 0, 0, 0},
		{"header cut 6", unreachable6(quote6(tUDP)[:39]), stat.Truncated, 0, 0, 0},
		{"mapped", unreachable6(set(quote6(tUDP, udp(0)), 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff)), stat.Malformed, 0, 0, 0},
		{"not the receiver's 6", unreachable6(set(quote6(tUDP, udp(0)), 23, 9)), stat.ICMPUnrelated, 0, 0, tUDP},
		{"error about an error 6", unreachable6(quote6(tICMP6, icmp(1, 0, make([]byte, 4)))), stat.ICMPUnrelated, 0, 0, tICMP6},
		{"icmp in ipv6", unreachable6(quote6(tICMP, echo(8))), stat.Malformed, 0, 0, tICMP},
		{"too big", ip6(tICMP6, icmp(2, 0, make([]byte, 4), quote6(tUDP, udp(0)))), stat.OK, 1000, 53, tUDP},
		{"unknown error type", ip6(tICMP6, icmp(100, 0, make([]byte, 4))), stat.Truncated, 0, 0, 0},
		{"error header cut 6", ip6(tICMP6, icmp(1, 0)), stat.Truncated, 0, 0, 0},
	} {
		var h packet.Header
		if got := packet.Parse(c.frame, &h); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
			continue
		}
		if h.Inner.SrcPort != c.sport || h.Inner.DstPort != c.dport || h.Inner.Proto != c.proto {
			t.Errorf("%s: quoted %+v", c.name, h.Inner)
		}
	}
}

// The flow that an error quotes is the receiver's own: its key is that of the
// packets that the receiver sent, seen from the other side.
func TestInnerKey(t *testing.T) {
	q := quote4()
	h := parse(t, ip4(tICMP, icmp(3, 3, make([]byte, 4), q)))
	sent := parse(t, eth(packet.EtherTypeIPv4, q, make([]byte, 100)))
	flowKey, sender := sent.Key()
	k, side := h.InnerKey()
	if k != flowKey || side != sender.Other() {
		t.Errorf("inner key %v, side %d, want %v, %d", k, side, flowKey, sender.Other())
	}
	if _, _, _, dport := k.Tuple(side.Other()); dport != 53 {
		t.Errorf("the receiver's destination port is %d, want 53", dport)
	}
}

func TestAddrKinds(t *testing.T) {
	for _, c := range []struct {
		text                            string
		unspec, loop, multi, link, okay bool
	}{
		{"0.0.0.0", true, false, false, false, false},
		{"::", true, false, false, false, false},
		{"127.0.0.1", false, true, false, false, false},
		{"127.255.0.9", false, true, false, false, false},
		{"::1", false, true, false, false, false},
		{"224.0.0.1", false, false, true, false, false},
		{"239.255.255.255", false, false, true, false, false},
		{"240.0.0.1", false, false, false, false, true},
		{"ff02::1", false, false, true, false, false},
		{"fe80::1", false, false, false, true, true},
		{"febf::1", false, false, false, true, true},
		{"fec0::1", false, false, false, false, true},
		{"169.254.1.1", false, false, false, true, true},
		{"255.255.255.255", false, false, false, false, false},
		{"10.0.0.1", false, false, false, false, true},
		{"126.0.0.1", false, false, false, false, true},
		{"2001:db8::1", false, false, false, false, true},
	} {
		a := packet.AddrFrom(mustAddr(c.text))
		if a.IsUnspecified() != c.unspec || a.IsLoopback() != c.loop || a.IsMulticast() != c.multi ||
			a.IsLinkLocal() != c.link || a.ValidSource() != c.okay {
			t.Errorf("%s: %v %v %v %v %v", c.text,
				a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.IsLinkLocal(), a.ValidSource())
		}
	}
}

func TestOpening(t *testing.T) {
	for name, c := range map[string]struct {
		frame []byte
		want  bool
	}{
		"syn":       {ip4(tTCP, tcp(packet.TCPSyn)), true},
		"syn ecn":   {ip4(tTCP, tcp(packet.TCPSyn|packet.TCPEce|packet.TCPCwr)), true},
		"syn ack":   {ip4(tTCP, tcp(packet.TCPSyn|packet.TCPAck)), false},
		"ack":       {ip4(tTCP, tcp(packet.TCPAck)), false},
		"echo":      {ip4(tICMP, echo(8)), true},
		"reply":     {ip4(tICMP, echo(0)), false},
		"echo 6":    {ip6(tICMP6, echo(128)), true},
		"reply 6":   {ip6(tICMP6, echo(129)), false},
		"udp":       {ip4(tUDP, udp(0)), false},
		"gre":       {ip4(47, make([]byte, 8)), false},
		"timestamp": {ip4(tICMP, icmp(13, 0, make([]byte, 16))), false},
	} {
		if h := parse(t, c.frame); h.Opening() != c.want {
			t.Errorf("%s: %v", name, h.Opening())
		}
	}
}

func TestAddrConversion(t *testing.T) {
	for _, text := range []string{"0.0.0.0", "10.1.2.3", "255.255.255.255", "::", "2001:db8::ff", "fe80::1"} {
		a := mustAddr(text)
		p := packet.AddrFrom(a)
		if p.Netip() != a || p.Is4() != a.Is4() || p != addr(a) || a.Is4() && packet.AddrV4(p.V4()) != p {
			t.Errorf("%s became %v and back %s", text, p, p.Netip())
		}
	}
}
