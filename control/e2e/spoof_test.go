package e2e_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"
)

// TestSpoofing has a pod speak in the name of others. Nothing of it arrives,
// and each kind is counted under its own name.
func TestSpoofing(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		n := newPair(t, s)
		evil := n.other
		from, victim := n.wire(evil.Namespace()), n.wire(n.server.Namespace())
		bystander := n.wire(n.friend.Namespace())
		hop := n.nextHop(evil)
		serverMAC, friendMAC := victim.mac, bystander.mac
		// Something that arrives, so that silence means something.
		n.apply("server", "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress]\ningress: [{}]")
		broadcast := net.HardwareAddr{255, 255, 255, 255, 255, 255}
		nodes6 := net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
		gateway4, gateway6 := netip.MustParseAddr("169.254.1.1"), netip.MustParseAddr("fe80::1")
		cases := []struct {
			name, reason string
			frame        []byte
			mark         func(gopacket.Packet) bool
		}{
			{"another's IPv4", "spoofed-address",
				n.udpFrame(from.mac, hop, at(n.friend.v4, 7), at(n.server.v4, 80), "ip4"), hasPayload("ip4")},
			{"another's IPv6", "spoofed-address",
				n.udpFrame(from.mac, hop, at(n.friend.v6, 7), at(n.server.v6, 80), "ip6"), hasPayload("ip6")},
			{"nobody's IPv4", "spoofed-address",
				n.udpFrame(from.mac, hop, at(netip.MustParseAddr("192.0.2.1"), 7), at(n.server.v4, 80), "ip4x"), hasPayload("ip4x")},
			{"another's MAC", "spoofed-mac",
				n.udpFrame(friendMAC, hop, at(evil.v4, 7), at(n.server.v4, 80), "mac"), hasPayload("mac")},
			{"ARP for another pod", "neighbour-spoof", n.arpFrame(from.mac, broadcast, n.friend.v4, n.server.v4), isARP(n.friend.v4, from.mac)},
			{"ARP for the gateway", "neighbour-spoof", n.arpFrame(from.mac, serverMAC, gateway4, n.server.v4), isARP(gateway4, from.mac)},
			{"NA for another pod", "neighbour-spoof", n.advertFrame(from.mac, nodes6, evil.v6, n.friend.v6), isAdvert(n.friend.v6, from.mac)},
			{"NA for the gateway", "neighbour-spoof", n.advertFrame(from.mac, serverMAC, evil.v6, gateway6), isAdvert(gateway6, from.mac)},
			{"VLAN", "vlan", n.frame(&layers.Ethernet{SrcMAC: from.mac, DstMAC: hop, EthernetType: layers.EthernetTypeDot1Q},
				&layers.Dot1Q{VLANIdentifier: 3, Type: layers.EthernetTypeIPv4}, gopacket.Payload(make([]byte, 46))), nil},
			{"unknown ethertype", "unknown-ethertype", n.frame(&layers.Ethernet{SrcMAC: from.mac, DstMAC: serverMAC, EthernetType: 0x88b5},
				gopacket.Payload(make([]byte, 46))), nil},
		}
		for _, c := range cases {
			before := n.status().Drops[c.reason]
			for range 3 {
				from.send(c.frame)
			}
			n.eventually(fmt.Sprintf("%s counted as %s", c.name, c.reason), func() bool { return n.status().Drops[c.reason] >= before+3 })
		}
		from.send(n.udpFrame(from.mac, hop, at(evil.v4, 7), at(n.server.v4, 80), "honest"))
		n.eventually("the pod's own datagram arrives", func() bool { return victim.arrived(hasPayload("honest")) == 1 })
		for _, c := range cases {
			for who, w := range map[string]*wire{"victim": victim, "bystander": bystander} {
				if c.mark != nil && w.arrived(c.mark) > 0 {
					t.Errorf("%s reached the %s", c.name, who)
				}
			}
		}
		odd := func(p gopacket.Packet) bool {
			e, ok := p.LinkLayer().(*layers.Ethernet)
			return ok && (e.EthernetType == layers.EthernetTypeDot1Q || e.EthernetType == 0x88b5)
		}
		if victim.arrived(odd)+bystander.arrived(odd) > 0 {
			t.Error("a frame of an unknown kind arrived")
		}
		n.probeAll(all(n.friend, n.server, 80, true)...) // nobody was led astray
	})
}

func (n *node) arpFrame(src, dst net.HardwareAddr, claimed, asked netip.Addr) []byte {
	n.Helper()
	return n.frame(&layers.Ethernet{SrcMAC: src, DstMAC: dst, EthernetType: layers.EthernetTypeARP}, &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: layers.ARPReply, SourceHwAddress: src, SourceProtAddress: claimed.AsSlice(),
		DstHwAddress: dst, DstProtAddress: asked.AsSlice(),
	})
}

func isARP(claimed netip.Addr, mac net.HardwareAddr) func(gopacket.Packet) bool {
	return func(p gopacket.Packet) bool {
		a, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP)
		return ok && bytes.Equal(a.SourceProtAddress, claimed.AsSlice()) && bytes.Equal(a.SourceHwAddress, mac)
	}
}

func (n *node) advertFrame(src, dst net.HardwareAddr, from, claimed netip.Addr) []byte {
	n.Helper()
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: from.AsSlice(),
		DstIP: net.ParseIP("ff02::1")}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborAdvertisement, 0)}
	must(n.T, icmp.SetNetworkLayerForChecksum(ip))
	return n.frame(&layers.Ethernet{SrcMAC: src, DstMAC: dst, EthernetType: layers.EthernetTypeIPv6}, ip, icmp,
		&layers.ICMPv6NeighborAdvertisement{Flags: 0x20, TargetAddress: claimed.AsSlice(), Options: layers.ICMPv6Options{
			{Type: layers.ICMPv6OptTargetAddress, Data: src}}})
}

func isAdvert(claimed netip.Addr, mac net.HardwareAddr) func(gopacket.Packet) bool {
	return func(p gopacket.Packet) bool {
		a, ok := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
		if !ok || !a.TargetAddress.Equal(claimed.AsSlice()) {
			return false
		}
		e, ok := p.LinkLayer().(*layers.Ethernet)
		return ok && bytes.Equal(e.SrcMAC, mac)
	}
}

// TestChecksumElsewhere has a pod leave a checksum to be filled in where its flow's port
// is, as packet sockets may: whoever sends the packet on writes over it. What leaves the
// node is what was judged.
func TestChecksumElsewhere(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		n := newPair(t, s)
		far := n.outside(7)
		n.run(n.net.Host(), "ethtool", "-K", "uplink", "tx", "off") // so that the kernel fills them in
		n.apply("friend", fmt.Sprintf("podSelector: {matchLabels: {role: friend}}\npolicyTypes: [Egress]\negress:\n"+
			"- to: [{ipBlock: {cidr: %s/32}}, {ipBlock: {cidr: \"%s/128\"}}]\n  ports: [{port: 80, protocol: UDP}]", far.addrs[0], far.addrs[1]))
		from, hop := n.wire(n.friend.Namespace()), n.nextHop(n.friend)
		must(t, unix.SetsockoptInt(from.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1))
		const port, needsCsum = 80, 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
		// send sends a frame whose checksum begins at and goes to an offset (struct virtio_net_hdr).
		send := func(frame []byte, start, offset uint16) {
			hdr := make([]byte, 10)
			if start > 0 {
				hdr[0] = needsCsum
				binary.NativeEndian.PutUint16(hdr[6:], start)
				binary.NativeEndian.PutUint16(hdr[8:], offset)
			}
			from.send(append(hdr, frame...))
		}
		for i, wire := range far.wires {
			arrived := func(mark string, asJudged bool) int {
				return wire.arrived(func(p gopacket.Packet) bool {
					udp, _ := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
					return udp != nil && bytes.Contains(p.Data(), []byte(mark)) && (udp.DstPort == port) == asJudged
				})
			}
			l4 := []uint16{34, 54}[i]
			frame := func(mark string) []byte {
				return n.udpFrame(from.mac, hop, at(n.friend.addr(4+2*i), 7), at(far.addrs[i], port), mark)
			}
			for k := range 3 { // so that the flow is in the cache
				mark := fmt.Sprintf("plain %d.", k)
				send(frame(mark), 0, 0)
				n.eventually(mark, func() bool { return arrived(mark, true) == 1 })
			}
			const forged = 10
			for range forged {
				send(frame("forged"), l4, 2)
			}
			send(frame("where it belongs"), l4, 6)
			n.eventually("a checksum where it belongs", func() bool { return arrived("where it belongs", true) == 1 })
			if other := arrived("forged", false); other > 0 {
				t.Errorf("%d of %d packets to %v reached another port than was judged", other, forged, far.addrs[i])
			}
		}
	})
}
