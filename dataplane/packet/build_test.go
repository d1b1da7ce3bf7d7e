package packet_test

import (
	"encoding/binary"
	"net/netip"

	"github.com/sluice-net/sluice/dataplane/packet"
)

// Plain builders of frames: no checksums, right lengths, fixed addresses.

var (
	src4 = netip.MustParseAddr("10.0.0.1")
	dst4 = netip.MustParseAddr("10.0.0.2")
	src6 = netip.MustParseAddr("2001:db8::1")
	dst6 = netip.MustParseAddr("2001:db8::2")
	ll6  = netip.MustParseAddr("fe80::1")
)

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

func cat(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func eth(et packet.EtherType, rest ...[]byte) []byte {
	return cat([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}, be16(uint16(et)), cat(rest...))
}

func tag(id uint16, next packet.EtherType) []byte { return cat(be16(id), be16(uint16(next))) }

// header4 is an IPv4 header, with options if there are any.
func header4(proto packet.Proto, fragment uint16, payload int, options ...byte) []byte {
	h := make([]byte, 20, 60)
	h[0] = 0x45 + byte(len(options)/4)
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(options)+payload))
	h[4], h[5] = 0x12, 0x34
	binary.BigEndian.PutUint16(h[6:], fragment)
	h[8], h[9] = 64, byte(proto)
	copy(h[12:], src4.AsSlice())
	copy(h[16:], dst4.AsSlice())
	return append(h, options...)
}

func ip4(proto packet.Proto, payload []byte, options ...byte) []byte {
	return eth(packet.EtherTypeIPv4, header4(proto, 0, len(payload), options...), payload)
}

func frag4(proto packet.Proto, offset uint16, more bool, payload []byte) []byte {
	w := offset / 8
	if more {
		w |= 0x2000
	}
	return eth(packet.EtherTypeIPv4, header4(proto, w, len(payload)), payload)
}

func header6(next packet.Proto, payload int, src, dst netip.Addr) []byte {
	h := make([]byte, 8, 40)
	h[0] = 0x60
	binary.BigEndian.PutUint16(h[4:], uint16(payload))
	h[6], h[7] = byte(next), 64
	return cat(h, src.AsSlice(), dst.AsSlice())
}

func ip6(next packet.Proto, payload ...[]byte) []byte {
	p := cat(payload...)
	return eth(packet.EtherTypeIPv6, header6(next, len(p), src6, dst6), p)
}

// ext is an extension header of 8 bytes with the given bytes behind its length.
func ext(next packet.Proto, body ...byte) []byte {
	b := make([]byte, 8)
	b[0] = byte(next)
	copy(b[2:], body)
	if len(body) == 0 {
		b[2], b[3] = 1, 4 // PadN
	}
	return b
}

func fragHeader(next packet.Proto, offset uint16, more bool) []byte {
	w := offset
	if more {
		w |= 1
	}
	return cat([]byte{byte(next), 0}, be16(w), []byte{0, 0, 0, 9})
}

func tcp(flags uint8, options ...byte) []byte {
	b := cat(be16(1000), be16(80), make([]byte, 8), []byte{byte(5+len(options)/4) << 4, flags}, make([]byte, 6))
	return append(b, options...)
}

func udp(payload int) []byte {
	return cat(be16(1000), be16(53), be16(uint16(8+payload)), be16(0), make([]byte, payload))
}

func sctp() []byte { return cat(be16(1000), be16(3868), make([]byte, 8)) }

func icmp(typ, code uint8, rest ...[]byte) []byte {
	return cat([]byte{typ, code, 0, 0}, cat(rest...))
}

func echo(typ uint8) []byte { return icmp(typ, 0, be16(77), be16(1), []byte("ping")) }

// quote4 is the first 28 bytes of a UDP packet from dst4 to src4, so that an
// error from src4 to dst4 may quote it.
func quote4() []byte {
	q := cat(header4(packet.ProtoUDP, 0, 108), be16(4000), be16(53), be16(108), be16(0))
	copy(q[12:], dst4.AsSlice())
	copy(q[16:], src4.AsSlice())
	return q
}

func quote6(next packet.Proto, rest ...[]byte) []byte {
	return cat(header6(next, 100, dst6, src6), cat(rest...))
}

// set returns a copy of b with some bytes replaced.
func set(b []byte, at int, v ...byte) []byte {
	b = append([]byte(nil), b...)
	copy(b[at:], v)
	return b
}

func arp(op uint8) []byte {
	return cat([]byte{0, 1, 8, 0, 6, 4, 0, op},
		[]byte{2, 0, 0, 0, 0, 1}, src4.AsSlice(), make([]byte, 6), dst4.AsSlice())
}

// nd is an ICMPv6 packet with hop limit 255.
func nd(src, dst netip.Addr, msg []byte) []byte { return link6(255, src, dst, msg) }

func link6(hops byte, src, dst netip.Addr, msg []byte) []byte {
	h := header6(packet.ProtoICMPv6, len(msg), src, dst)
	h[7] = hops
	return eth(packet.EtherTypeIPv6, h, msg)
}
