package xdpprog_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/sluice-net/sluice/xdpprog"
)

var (
	podMAC      = [6]byte{2, 0, 0, 0, 0, 0x10}
	hostMAC     = [6]byte{2, 0, 0, 0, 0, 0x11}
	peerMAC     = [6]byte{2, 0, 0, 0, 0, 0x20}
	peerHostMAC = [6]byte{2, 0, 0, 0, 0, 0x21}
	strangerMAC = [6]byte{2, 0, 0, 0, 0, 0x99}

	pod4  = netip.MustParseAddr("10.0.0.10")
	peer4 = netip.MustParseAddr("10.0.0.20")
	far4  = netip.MustParseAddr("192.0.2.7")
	pod6  = netip.MustParseAddr("2001:db8::10")
	peer6 = netip.MustParseAddr("2001:db8::20")
	host4 = netip.MustParseAddr("192.0.2.99") // the host's
	podLL = netip.MustParseAddr("fe80::10")
)

func addr(a netip.Addr) xdpprog.Addr {
	b := a.As16()
	return xdpprog.Addr{Hi: binary.BigEndian.Uint64(b[:8]), Lo: binary.BigEndian.Uint64(b[8:])}
}

// build puts layers together, with lengths and checksums.
func build(tb testing.TB, parts ...gopacket.SerializableLayer) []byte {
	tb.Helper()
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, parts...); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func eth(src, dst [6]byte, t layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: src[:], DstMAC: dst[:], EthernetType: t}
}

func ip4(src, dst netip.Addr, proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Id: 0x1234, Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

func ip6(src, dst netip.Addr, next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: next, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

// network returns the IP layer of either family and its Ethernet type.
func network(src, dst netip.Addr, proto layers.IPProtocol) (gopacket.SerializableLayer, gopacket.NetworkLayer, layers.EthernetType) {
	if src.Is4() {
		l := ip4(src, dst, proto)
		return l, l, layers.EthernetTypeIPv4
	}
	l := ip6(src, dst, proto)
	return l, l, layers.EthernetTypeIPv6
}

// flowOf is a TCP or UDP connection as the tests write it down.
type flowOf struct {
	src, dst     netip.Addr
	sport, dport uint16
	proto        layers.IPProtocol
}

func (f flowOf) reverse() flowOf {
	return flowOf{src: f.dst, dst: f.src, sport: f.dport, dport: f.sport, proto: f.proto}
}

// key returns the flow's key and the side of its source.
func (f flowOf) key() (xdpprog.FlowKey, uint8) {
	a, b := addr(f.src), addr(f.dst)
	less := a.Hi < b.Hi || a.Hi == b.Hi && (a.Lo < b.Lo || a.Lo == b.Lo && f.sport <= f.dport)
	if less {
		return xdpprog.FlowKey{A: a, B: b, APort: f.sport, BPort: f.dport, Proto: uint8(f.proto)}, 0
	}
	return xdpprog.FlowKey{A: b, B: a, APort: f.dport, BPort: f.sport, Proto: uint8(f.proto)}, 1
}

// frame returns a packet of the flow between two MACs; flags name TCP flags.
func (f flowOf) frame(tb testing.TB, src, dst [6]byte, flags string) []byte {
	tb.Helper()
	ip, n, t := network(f.src, f.dst, f.proto)
	parts := []gopacket.SerializableLayer{eth(src, dst, t), ip}
	switch f.proto {
	case layers.IPProtocolTCP:
		parts = append(parts, tcp(tb, n, f.sport, f.dport, flags))
	case layers.IPProtocolUDP:
		u := &layers.UDP{SrcPort: layers.UDPPort(f.sport), DstPort: layers.UDPPort(f.dport)}
		check(tb, u.SetNetworkLayerForChecksum(n))
		parts = append(parts, u)
	case layers.IPProtocolICMPv4:
		parts = append(parts, &layers.ICMPv4{TypeCode: layers.ICMPv4TypeCode(icmpType(flags, 8, 0)) << 8, Id: f.sport})
	case layers.IPProtocolICMPv6:
		i := &layers.ICMPv6{TypeCode: layers.ICMPv6TypeCode(icmpType(flags, 128, 129)) << 8}
		check(tb, i.SetNetworkLayerForChecksum(n))
		parts = append(parts, i, &layers.ICMPv6Echo{Identifier: f.sport})
	}
	return build(tb, append(parts, gopacket.Payload("some payload, some payload"))...)
}

func icmpType(flags string, request, reply uint16) uint16 {
	if flags == "reply" {
		return reply
	}
	return request
}

func tcp(tb testing.TB, n gopacket.NetworkLayer, sport, dport uint16, flags string) *layers.TCP {
	t := &layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), Window: 1000, Seq: 7}
	for _, c := range flags {
		switch c {
		case 'S':
			t.SYN = true
		case 'A':
			t.ACK = true
		case 'F':
			t.FIN = true
		case 'R':
			t.RST = true
		}
	}
	check(tb, t.SetNetworkLayerForChecksum(n))
	return t
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// arp returns an ARP request of an Ethernet sender.
func arp(tb testing.TB, src, sha [6]byte, spa netip.Addr) []byte {
	return build(tb, eth(src, [6]byte(net.HardwareAddr{255, 255, 255, 255, 255, 255}), layers.EthernetTypeARP), &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: layers.ARPRequest, SourceHwAddress: sha[:], SourceProtAddress: spa.AsSlice(),
		DstHwAddress: make([]byte, 6), DstProtAddress: far4.AsSlice(),
	})
}
