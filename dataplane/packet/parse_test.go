package packet_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
)

const l3 = 14 // of an untagged frame

// Shorthands for the protocols of the tables below.
const (
	tTCP   = packet.ProtoTCP
	tUDP   = packet.ProtoUDP
	tSCTP  = packet.ProtoSCTP
	tICMP  = packet.ProtoICMP
	tICMP6 = packet.ProtoICMPv6
)

// TestReasons has one case a rule, and its nearest legal neighbour.
func TestReasons(t *testing.T) {
	ackTCP := tcp(packet.TCPAck)
	many := func(n int) (b []byte) { // n destination options, then TCP
		for i := range n {
			next := packet.Proto(60)
			if i == n-1 {
				next = tTCP
			}
			b = append(b, ext(next)...)
		}
		return append(b, ackTCP...)
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  stat.Reason
	}{
		{"empty", nil, stat.Truncated},
		{"short ethernet", eth(0x0800)[:13], stat.Truncated},
		{"802.3 length", eth(100, make([]byte, 100)), stat.UnknownEtherType},
		{"unknown ethertype", eth(0x88cc, make([]byte, 60)), stat.UnknownEtherType},
		{"one tag", eth(0x8100, tag(5, 0x0800), ip4(tTCP, ackTCP)[l3:]), stat.OK},
		{"two tags", eth(0x88a8, tag(7, 0x8100), tag(5, 0x0800), ip4(tTCP, ackTCP)[l3:]), stat.OK},
		{"three tags", eth(0x8100, tag(1, 0x8100), tag(2, 0x8100), tag(3, 0x0800), ip4(tTCP, ackTCP)[l3:]), stat.Malformed},
		{"tag cut", eth(0x8100, []byte{0, 1, 8}), stat.Truncated},

		{"ipv4", ip4(tTCP, ackTCP), stat.OK},
		{"ipv4 padded", cat(ip4(tTCP, ackTCP), make([]byte, 10)), stat.OK},
		{"ipv4 header cut", ip4(tTCP, ackTCP)[:l3+19], stat.Truncated},
		{"ipv4 cut", ip4(tTCP, ackTCP)[:l3+39], stat.Truncated},
		{"ipv4 version", set(ip4(tTCP, ackTCP), l3, 0x65), stat.Malformed},
		{"ipv4 ihl 4", set(ip4(tTCP, ackTCP), l3, 0x44), stat.Malformed},
		{"ipv4 ihl beyond total", set(ip4(tTCP, ackTCP), l3, 0x4f), stat.Malformed},
		{"ipv4 ihl beyond frame", eth(0x0800, set(header4(tTCP, 0, 40), 0, 0x4f)), stat.Truncated},
		{"ipv4 total below ihl", set(ip4(tTCP, ackTCP), l3+2, 0, 19), stat.Malformed},
		{"ipv4 total cuts tcp", set(ip4(tTCP, ackTCP), l3+2, 0, 39), stat.Truncated},
		{"ipv4 unknown protocol", ip4(47, nil), stat.OK},
		{"ipv4 with icmpv6", ip4(tICMP6, echo(128)), stat.Malformed},

		{"option nop end", ip4(tTCP, ackTCP, 1, 0, 131, 131), stat.OK},
		{"option router alert", ip4(tTCP, ackTCP, 148, 4, 0, 0), stat.OK},
		{"option lsrr", ip4(tTCP, ackTCP, 131, 3, 4, 0), stat.SourceRouted},
		{"option ssrr after nop", ip4(tTCP, ackTCP, 1, 137, 3, 4), stat.SourceRouted},
		{"option lsrr without length", ip4(tTCP, ackTCP, 1, 1, 1, 131), stat.SourceRouted},
		{"option length 0", ip4(tTCP, ackTCP, 7, 0, 0, 0), stat.Malformed},
		{"option length 1", ip4(tTCP, ackTCP, 7, 1, 0, 0), stat.Malformed},
		{"option out of bounds", ip4(tTCP, ackTCP, 7, 5, 0, 0), stat.Malformed},
		{"option without length", ip4(tTCP, ackTCP, 1, 1, 1, 7), stat.Malformed},

		{"first fragment", frag4(tTCP, 0, true, tcp(packet.TCPAck, 1, 1, 1, 1)), stat.OK},
		{"first fragment tiny tcp", frag4(tTCP, 0, true, ackTCP[:16]), stat.BadFragment},
		{"first fragment tiny udp", frag4(tUDP, 0, true, udp(0)[:0]), stat.BadFragment},
		{"first fragment cuts tcp options", frag4(tTCP, 0, true, set(tcp(packet.TCPAck, 1, 1, 1, 1), 12, 0xf0)), stat.BadFragment},
		{"first fragment udp", frag4(tUDP, 0, true, udp(0)), stat.OK},
		{"first fragment udp length beyond", frag4(tUDP, 0, true, set(udp(0), 4, 5, 0)), stat.OK},
		{"first fragment tiny sctp", frag4(tSCTP, 0, true, sctp()[:8]), stat.BadFragment},
		{"first fragment echo", frag4(tICMP, 0, true, icmp(8, 0, make([]byte, 12))), stat.OK},
		{"first fragment odd length", frag4(tUDP, 0, true, udp(1)), stat.BadFragment},
		{"later fragment", frag4(tTCP, 24, false, make([]byte, 7)), stat.OK},
		{"later fragment empty", frag4(tUDP, 24, false, nil), stat.BadFragment},
		{"later fragment odd length", frag4(tUDP, 24, true, make([]byte, 7)), stat.BadFragment},
		{"tcp fragment at 8", frag4(tTCP, 8, false, make([]byte, 8)), stat.BadFragment},
		{"tcp fragment at 16", frag4(tTCP, 16, false, make([]byte, 8)), stat.BadFragment},
		{"udp fragment at 8", frag4(tUDP, 8, false, make([]byte, 8)), stat.OK},
		{"sctp fragment at 8", frag4(tSCTP, 8, false, make([]byte, 8)), stat.BadFragment},
		{"fragment to 65535", frag4(tUDP, 65504, false, make([]byte, 11)), stat.OK},
		{"fragment beyond 65535", frag4(tUDP, 65504, false, make([]byte, 12)), stat.BadFragment},
		{"fragment of an error", frag4(tICMP, 0, true, icmp(3, 3, make([]byte, 4), quote4(), make([]byte, 4))), stat.BadFragment},
		{"dont fragment", set(ip4(tTCP, ackTCP), l3+6, 0x40), stat.OK},

		{"ipv6", ip6(tTCP, ackTCP), stat.OK},
		{"ipv6 padded", cat(ip6(tTCP, ackTCP), make([]byte, 3)), stat.OK},
		{"ipv6 header cut", ip6(tTCP, ackTCP)[:l3+39], stat.Truncated},
		{"ipv6 cut", ip6(tTCP, ackTCP)[:l3+59], stat.Truncated},
		{"ipv6 version", set(ip6(tTCP, ackTCP), l3, 0x40), stat.Malformed},
		{"ipv6 mapped source", set(ip6(tTCP, ackTCP), l3+8, netip.MustParseAddr("::ffff:1.2.3.4").AsSlice()...), stat.Malformed},
		{"ipv6 mapped destination", set(ip6(tTCP, ackTCP), l3+24, netip.MustParseAddr("::ffff:1.2.3.4").AsSlice()...), stat.Malformed},
		{"ipv6 compatible source", set(ip6(tTCP, ackTCP), l3+8, netip.MustParseAddr("::1.2.3.4").AsSlice()...), stat.Malformed},
		{"ipv6 unspecified source", set(ip6(tTCP, ackTCP), l3+8, make([]byte, 16)...), stat.OK},
		{"ipv6 no next header", ip6(59), stat.OK},
		{"ipv6 esp", ip6(50, make([]byte, 8)), stat.OK},
		{"ipv6 unknown protocol", ip6(253), stat.OK},
		{"ipv6 with icmp", ip6(tICMP, echo(8)), stat.Malformed},
		{"ipv6 with igmp", ip6(2, make([]byte, 8)), stat.Malformed},
		{"jumbogram by length", eth(0x86dd, header6(0, 0, src6, dst6), ext(tTCP, 0xc2, 4), ackTCP), stat.Malformed},
		{"jumbo option", ip6(0, ext(tTCP, 0xc2, 4), ackTCP), stat.Malformed},

		{"hop-by-hop", ip6(0, ext(tTCP), ackTCP), stat.OK},
		{"hop-by-hop second", ip6(60, ext(0), ext(tTCP), ackTCP), stat.ExtensionHeaders},
		{"hop-by-hop twice", ip6(0, ext(0), ext(tTCP), ackTCP), stat.ExtensionHeaders},
		{"8 headers", ip6(60, many(8)), stat.OK},
		{"9 headers", ip6(60, many(9)), stat.ExtensionHeaders},
		{"extension header cut", ip6(60, ext(tTCP)[:7]), stat.Truncated},
		{"extension header beyond", ip6(60, set(ext(tTCP), 1, 9), ackTCP), stat.Truncated},
		{"option beyond header", ip6(60, ext(tTCP, 1, 5), ackTCP), stat.ExtensionHeaders},
		{"option type alone", ip6(60, ext(tTCP, 1, 3, 0, 0, 0, 1), ackTCP), stat.ExtensionHeaders},
		{"home address", ip6(60, set(cat(ext(tTCP, 0xc9, 16), make([]byte, 16)), 1, 2), ackTCP), stat.ExtensionHeaders},
		{"chain without end", ip6(60, ext(60)), stat.Truncated},
		{"routing type 0", ip6(43, ext(tTCP, 0, 0), ackTCP), stat.SourceRouted},
		{"routing type 4, segments left", ip6(43, ext(tTCP, 4, 1), ackTCP), stat.SourceRouted},
		{"routing type 4, none left", ip6(43, ext(tTCP, 4, 0), ackTCP), stat.OK},
		{"ah", ip6(51, set(cat(ext(tTCP, 0), make([]byte, 8)), 1, 2), ackTCP), stat.OK},
		{"ah too small", ip6(51, set(ext(tTCP, 0), 1, 0), ackTCP), stat.ExtensionHeaders},
		{"ah unaligned", ip6(51, set(cat(ext(tTCP, 0), make([]byte, 4)), 1, 1), ackTCP), stat.ExtensionHeaders},
		{"ah beyond", ip6(51, set(ext(tTCP, 0), 1, 255), ackTCP), stat.Truncated},

		{"atomic fragment", ip6(44, fragHeader(tTCP, 0, false), ackTCP), stat.OK},
		{"two fragment headers", ip6(44, fragHeader(44, 0, false), fragHeader(tTCP, 0, false), ackTCP), stat.ExtensionHeaders},
		{"ipv6 first fragment", ip6(44, fragHeader(tTCP, 0, true), tcp(packet.TCPAck, 1, 1, 1, 1)), stat.OK},
		{"ipv6 first fragment tiny", ip6(44, fragHeader(tTCP, 0, true), ackTCP[:16]), stat.BadFragment},
		{"ipv6 first fragment cuts chain", ip6(44, fragHeader(60, 0, true), set(ext(tTCP), 1, 9)), stat.BadFragment},
		{"ipv6 chain in first fragment", ip6(44, fragHeader(60, 0, true), ext(tUDP), udp(0)), stat.OK},
		{"ipv6 later fragment", ip6(44, fragHeader(60, 64, false), []byte{1}), stat.OK},
		{"ipv6 tcp fragment at 8", ip6(44, fragHeader(tTCP, 8, false), make([]byte, 8)), stat.BadFragment},
		{"ipv6 fragment to 65535", ip6(44, fragHeader(tUDP, 65528, false), make([]byte, 7)), stat.OK},
		{"ipv6 fragment beyond 65535", ip6(44, fragHeader(tUDP, 65528, false), make([]byte, 8)), stat.BadFragment},
		{"ipv6 fragment beyond with options before", ip6(0, ext(44), fragHeader(tUDP, 65520, false), make([]byte, 8)), stat.BadFragment},

		{"tcp offset 4", ip4(tTCP, set(ackTCP, 12, 0x40)), stat.Malformed},
		{"tcp offset beyond", ip4(tTCP, set(ackTCP, 12, 0x60)), stat.Malformed},
		{"tcp offset into padding", cat(ip4(tTCP, set(ackTCP, 12, 0x60)), make([]byte, 8)), stat.Malformed},
		{"tcp options", ip4(tTCP, tcp(packet.TCPSyn, 1, 1, 1, 1)), stat.OK},
		{"tcp cut", ip4(tTCP, ackTCP[:19]), stat.Truncated},
		{"tcp ports 0", ip4(tTCP, set(ackTCP, 0, 0, 0, 0, 0)), stat.OK},
		{"udp cut", ip4(tUDP, udp(0)[:7]), stat.Truncated},
		{"udp length 7", ip4(tUDP, set(udp(4), 4, 0, 7)), stat.Malformed},
		{"udp length 0", ip6(tUDP, set(udp(4), 4, 0, 0)), stat.Malformed},
		{"udp length below payload", ip4(tUDP, set(udp(4), 4, 0, 8)), stat.OK},
		{"udp length beyond", ip4(tUDP, set(udp(4), 4, 0, 13)), stat.Malformed},
		{"sctp", ip4(tSCTP, sctp()), stat.OK},
		{"sctp cut", ip6(tSCTP, sctp()[:11]), stat.Truncated},
		{"icmp cut", ip4(tICMP, echo(8)[:7]), stat.Truncated},
		{"icmp redirect", ip4(tICMP, icmp(5, 1, src4.AsSlice(), quote4())), stat.Redirect},
		{"icmpv6 cut", ip6(tICMP6, echo(128)[:3]), stat.Truncated},
		{"icmpv6 echo cut", ip6(tICMP6, echo(128)[:7]), stat.Truncated},
		{"icmpv6 odd one", ip6(tICMP6, icmp(200, 0)), stat.OK},
		{"icmpv6 first fragment of odd one", ip6(44, fragHeader(tICMP6, 0, true), icmp(200, 0, make([]byte, 4))), stat.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			var h packet.Header
			before := bytes.Clone(c.frame)
			if got := packet.Parse(c.frame, &h); got != c.want {
				t.Errorf("reason %v, want %v", got, c.want)
			}
			if !bytes.Equal(before, c.frame) {
				t.Error("the frame was changed")
			}
		})
	}
}

// TestTCPFlags names every combination that may pass; all others may not.
func TestTCPFlags(t *testing.T) {
	const fin, syn, rst, ack, urg = packet.TCPFin, packet.TCPSyn, packet.TCPRst, packet.TCPAck, packet.TCPUrg
	legal := map[uint8]bool{
		syn: true, syn | urg: true, syn | ack: true, rst: true, rst | ack: true,
		ack: true, ack | urg: true, fin | ack: true, fin | ack | urg: true,
	}
	for flags := range 256 {
		want := stat.Malformed
		if legal[uint8(flags)&(fin|syn|rst|ack|urg)] {
			want = stat.OK
		}
		var h packet.Header
		if got := packet.Parse(ip4(tTCP, tcp(uint8(flags))), &h); got != want {
			t.Errorf("flags %08b: %v, want %v", flags, got, want)
		}
		if h.TCPFlags != uint8(flags) {
			t.Errorf("flags %08b, want %08b", h.TCPFlags, flags)
		}
	}
}

// TestCutAnywhere cuts good frames at every length: nothing but OK for the
// whole frame, and no panic.
func TestCutAnywhere(t *testing.T) {
	for _, frame := range [][]byte{
		ip4(tTCP, tcp(packet.TCPSyn, 1, 1, 1, 1), 7, 4, 0, 0),
		ip6(0, ext(60), ext(44), fragHeader(43, 0, true), ext(51, 4, 0), set(cat(ext(tTCP, 0), make([]byte, 8)), 1, 2), tcp(packet.TCPAck), make([]byte, 4)),
		ip4(tICMP, icmp(3, 3, make([]byte, 4), quote4())),
		ip6(tICMP6, icmp(1, 4, make([]byte, 4), quote6(60, ext(tTCP), tcp(packet.TCPAck)))),
		nd(ll6, dst6, icmp(135, 0, make([]byte, 4), dst6.AsSlice(), []byte{1, 1, 2, 0, 0, 0, 0, 1})),
		eth(0x8100, tag(1, 0x0806), arp(1)),
	} {
		var h packet.Header
		if r := packet.Parse(frame, &h); r != stat.OK {
			t.Fatalf("%x: %v", frame, r)
		}
		for n := range frame {
			if r := packet.Parse(frame[:n], &h); r == stat.OK {
				t.Errorf("%x cut to %d bytes: OK", frame, n)
			}
		}
	}
}

// TestFirstBuffer parses frames of which only the first buffer is at hand.
func TestFirstBuffer(t *testing.T) {
	whole := ip4(tTCP, cat(tcp(packet.TCPAck), make([]byte, 9000)))
	var h, want packet.Header
	packet.Parse(whole, &want)
	if r := packet.ParseLen(whole[:64], len(whole), &h); r != stat.OK || h != want {
		t.Errorf("first 64 of %d bytes: %v, %+v", len(whole), r, h)
	}
	if r := packet.ParseLen(whole[:64], len(whole)-1, &h); r != stat.Truncated {
		t.Errorf("one byte short on the wire: %v", r)
	}
	if r := packet.ParseLen(whole[:l3+39], len(whole), &h); r != stat.Truncated {
		t.Errorf("header not in the first buffer: %v", r)
	}
	if r := packet.ParseLen(ip4(tTCP, set(tcp(packet.TCPAck, 1, 1, 1, 1), 12, 0x60))[:l3+40], l3+44, &h); r != stat.Truncated {
		t.Errorf("options not in the first buffer: %v", r)
	}
	long := ip4(tUDP, udp(2000))
	if r := packet.ParseLen(long[:60], len(long), &h); r != stat.OK || h.DstPort != 53 {
		t.Errorf("udp: %v", r)
	}
	adv := nd(ll6, dst6, icmp(136, 0, make([]byte, 4), ll6.AsSlice(), []byte{2, 1, 2, 0, 0, 0, 0, 1}))
	if r := packet.ParseLen(adv[:len(adv)-8], len(adv), &h); r != stat.Truncated {
		t.Errorf("option of an advertisement hidden in the second buffer: %v", r)
	}
}
