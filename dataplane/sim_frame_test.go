package dataplane

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// The frames of a simulation's packets.

const (
	protoFragment = 44
	icmpHost      = 1 // unreachable: type 3 of ICMP, 1 of ICMPv6
)

// frame builds a packet as it is where it has come to.
func (s *sim) frame(p *simPacket) []byte {
	s.Helper()
	pod := &s.pods[p.link]
	from, to := pod.Link.MAC, pod.Link.HostMAC
	switch {
	case p.uplink:
		from, to = endpoint.MAC{2, 0, 0, 0, 2, 1}, simUplinkMAC
	case p.hook == event.ToPod:
		from, to = to, from
	case p.kind == spoofedMAC:
		from = s.pods[p.pretend].Link.MAC
	}
	eth := &layers.Ethernet{SrcMAC: net.HardwareAddr(from[:]), DstMAC: net.HardwareAddr(to[:]), EthernetType: layers.EthernetTypeIPv4}
	src, dst, _, _ := p.header()
	switch p.kind {
	case spoofed:
		other := p.simTuple
		other.src = p.pretend
		src, _ = other.addrs()
	case toItself:
		if p.src < simPods {
			dst = src
		} else {
			src = dst
		}
	case mapped:
		src, dst = netip.AddrFrom16(src.As16()), netip.AddrFrom16(dst.As16())
	}
	list := []gopacket.SerializableLayer{eth}
	if !src.Is4() {
		eth.EthernetType = layers.EthernetTypeIPv6
	}
	if p.kind == tagged {
		list = append(list, &layers.Dot1Q{VLANIdentifier: 5, Type: eth.EthernetType})
		eth.EthernetType = layers.EthernetTypeDot1Q
	}
	list = append(list, s.datagram(p, src, dst)...)
	return s.bytes(list...)
}

func (s *sim) bytes(list ...gopacket.SerializableLayer) []byte {
	s.Helper()
	buf := gopacket.NewSerializeBuffer()
	s.must(gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...))
	return buf.Bytes()
}

// simCut is where the payload of fragmented datagrams is cut, header included.
const simCut = 48

// datagram builds the IP packet.
func (s *sim) datagram(p *simPacket, src, dst netip.Addr) []gopacket.SerializableLayer {
	s.Helper()
	hops := uint8(64)
	if p.routed {
		hops--
	}
	ip4 := &layers.IPv4{Version: 4, TTL: hops, Protocol: layers.IPProtocol(p.proto), SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	ip6 := &layers.IPv6{Version: 6, HopLimit: hops, NextHeader: layers.IPProtocol(p.proto), SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	var ip interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	} = ip4
	if !src.Is4() {
		ip = ip6
	}
	var list []gopacket.SerializableLayer
	switch p.kind {
	case first, later, stray:
		part, more := s.bytes(append(s.transport(p, ip), gopacket.Payload(make([]byte, 64)))...), p.kind == first
		at := 0
		if more {
			part = part[:simCut]
		} else {
			part, at = part[simCut:], simCut
		}
		if !src.Is4() {
			head := []byte{byte(p.proto), 0, byte(at >> 8), byte(at), 0, 0, 0, 0}
			binary.BigEndian.PutUint32(head[4:], p.id)
			if more {
				head[3] |= 1
			}
			ip6.NextHeader = protoFragment
			part = append(head, part...)
		}
		ip4.Id, ip4.FragOffset = uint16(p.id), uint16(at/8)
		if more {
			ip4.Flags = layers.IPv4MoreFragments
		}
		return append(list, ip, gopacket.Payload(part))
	case options:
		ip4.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 1}}
		if !src.Is4() {
			ip6.NextHeader = layers.IPProtocolIPv6Destination
			l4 := s.bytes(append(s.transport(p, ip), gopacket.Payload("payload"))...)
			return append(list, ip, gopacket.Payload(append([]byte{byte(p.proto), 0, 1, 4, 0, 0, 0, 0}, l4...)))
		}
	case quoting, misquoting:
		qsrc, qdst := p.quoted.addrs()
		said := s.bytes(s.datagram(&simPacket{simTuple: p.quoted.simTuple, flags: p.quoted.flags}, qsrc, qdst)...)
		if src.Is4() {
			ip4.Protocol = layers.IPProtocolICMPv4
			return append(list, ip, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, icmpHost)}, gopacket.Payload(said[:28]))
		}
		ip6.NextHeader = layers.IPProtocolICMPv6
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(icmpHost, 0)}
		s.must(icmp.SetNetworkLayerForChecksum(ip))
		return append(list, ip, icmp, gopacket.Payload(append(make([]byte, 4), said...)))
	}
	return append(append(list, ip), append(s.transport(p, ip), gopacket.Payload("payload"))...)
}

// transport builds the header behind that of IP.
func (s *sim) transport(p *simPacket, ip gopacket.NetworkLayer) []gopacket.SerializableLayer {
	s.Helper()
	_, _, sport, dport := p.header()
	switch p.proto {
	case packet.ProtoUDP:
		u := &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}
		s.must(u.SetNetworkLayerForChecksum(ip))
		return []gopacket.SerializableLayer{u}
	case packet.ProtoICMP:
		return []gopacket.SerializableLayer{&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(p.flags, 0), Id: sport}}
	case packet.ProtoICMPv6:
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(p.flags, 0)}
		s.must(icmp.SetNetworkLayerForChecksum(ip))
		return []gopacket.SerializableLayer{icmp, &layers.ICMPv6Echo{Identifier: sport}}
	}
	tcp := &layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), Window: 1000,
		SYN: p.flags&packet.TCPSyn != 0, ACK: p.flags&packet.TCPAck != 0, FIN: p.flags&packet.TCPFin != 0, RST: p.flags&packet.TCPRst != 0}
	s.must(tcp.SetNetworkLayerForChecksum(ip))
	return []gopacket.SerializableLayer{tcp}
}
