package packet_test

import (
	"bytes"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// random makes valid packets with gopacket, an implementation that shares
// nothing with ours, and says what a Header must hold.
type random struct{ *rand.Rand }

func (r random) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func (r random) flags() uint8 {
	all := []uint8{
		packet.TCPSyn, packet.TCPSyn | packet.TCPAck, packet.TCPAck, packet.TCPAck | packet.TCPPsh,
		packet.TCPFin | packet.TCPAck, packet.TCPRst, packet.TCPSyn | packet.TCPEce | packet.TCPCwr,
	}
	return all[r.IntN(len(all))]
}

// transport returns random layers behind IP and fills in what they mean.
func (r random) transport(v6 bool, ip gopacket.NetworkLayer, h *packet.Header) []gopacket.SerializableLayer {
	payload := gopacket.Payload(r.bytes(r.IntN(100)))
	h.SrcPort, h.DstPort = uint16(r.Uint32()), uint16(r.Uint32())
	switch r.IntN(4) {
	case 0:
		h.Proto, h.TCPFlags = packet.ProtoTCP, r.flags()
		f := h.TCPFlags
		tcp := &layers.TCP{
			SrcPort: layers.TCPPort(h.SrcPort), DstPort: layers.TCPPort(h.DstPort), Seq: r.Uint32(),
			FIN: f&1 != 0, SYN: f&2 != 0, RST: f&4 != 0, PSH: f&8 != 0, ACK: f&16 != 0,
			URG: f&32 != 0, ECE: f&64 != 0, CWR: f&128 != 0,
		}
		for range r.IntN(4) {
			tcp.Options = append(tcp.Options, layers.TCPOption{OptionType: 2, OptionLength: 4, OptionData: r.bytes(2)})
		}
		check(tcp.SetNetworkLayerForChecksum(ip))
		return []gopacket.SerializableLayer{tcp, payload}
	case 1:
		h.Proto = packet.ProtoUDP
		udp := &layers.UDP{SrcPort: layers.UDPPort(h.SrcPort), DstPort: layers.UDPPort(h.DstPort)}
		check(udp.SetNetworkLayerForChecksum(ip))
		return []gopacket.SerializableLayer{udp, payload}
	case 2:
		h.Proto = packet.ProtoSCTP
		return []gopacket.SerializableLayer{&layers.SCTP{
			SrcPort: layers.SCTPPort(h.SrcPort), DstPort: layers.SCTPPort(h.DstPort),
		}, payload}
	}
	h.DstPort = h.SrcPort
	if v6 {
		h.Proto, h.ICMPType = packet.ProtoICMPv6, 128+uint8(r.IntN(2))
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(h.ICMPType, 0)}
		check(icmp.SetNetworkLayerForChecksum(ip))
		return []gopacket.SerializableLayer{icmp, &layers.ICMPv6Echo{Identifier: h.SrcPort}, payload}
	}
	h.Proto, h.ICMPType = packet.ProtoICMP, 8*uint8(r.IntN(2))
	return []gopacket.SerializableLayer{&layers.ICMPv4{
		TypeCode: layers.CreateICMPv4TypeCode(h.ICMPType, 0), Id: h.SrcPort,
	}, payload}
}

// packet returns a frame and what must be found in it.
func (r random) packet() ([]byte, packet.Header) {
	h := packet.Header{TTL: uint8(1 + r.IntN(255))}
	et := layers.EthernetTypeIPv4
	var ip gopacket.SerializableLayer
	var rest []gopacket.SerializableLayer
	if v6 := r.IntN(2) == 0; v6 {
		et = layers.EthernetTypeIPv6
		six := &layers.IPv6{Version: 6, HopLimit: h.TTL, SrcIP: append(net.IP{0x20}, r.bytes(15)...), DstIP: append(net.IP{0xfc}, r.bytes(15)...)}
		rest = r.transport(true, six, &h)
		six.NextHeader = layers.IPProtocol(h.Proto)
		if r.IntN(3) == 0 {
			pad := &layers.IPv6DestinationOption{OptionType: 1, OptionLength: 4, OptionData: make([]byte, 4)}
			ext := &layers.IPv6Destination{Options: []*layers.IPv6DestinationOption{pad}}
			ext.NextHeader = six.NextHeader
			six.NextHeader = layers.IPProtocolIPv6Destination
			rest = append([]gopacket.SerializableLayer{ext}, rest...)
		}
		h.Src, h.Dst, ip = addr(slice(six.SrcIP)), addr(slice(six.DstIP)), six
	} else {
		four := &layers.IPv4{Version: 4, TTL: h.TTL, SrcIP: r.bytes(4), DstIP: r.bytes(4), Id: uint16(r.Uint32()), Flags: layers.IPv4DontFragment}
		rest = r.transport(false, four, &h)
		four.Protocol = layers.IPProtocol(h.Proto)
		for range r.IntN(3) {
			four.Options = append(four.Options, layers.IPv4Option{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}})
		}
		h.Src, h.Dst, ip = addr(slice(four.SrcIP)), addr(slice(four.DstIP)), four
	}
	h.EtherType = packet.EtherType(et)
	h.Tags = uint8(r.IntN(3))
	eth := &layers.Ethernet{SrcMAC: r.bytes(6), DstMAC: r.bytes(6), EthernetType: et}
	all := []gopacket.SerializableLayer{eth}
	for n := range h.Tags {
		tag := &layers.Dot1Q{VLANIdentifier: uint16(r.IntN(4096)), Type: et}
		if n == 0 {
			h.VLAN, eth.EthernetType = tag.VLANIdentifier, layers.EthernetTypeDot1Q
		} else {
			all[len(all)-1].(*layers.Dot1Q).Type = layers.EthernetTypeDot1Q
		}
		all = append(all, tag)
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	check(gopacket.SerializeLayers(buf, opts, append(append(all, ip), rest...)...))
	return buf.Bytes(), h
}

type slice net.IP

func (s slice) AsSlice() []byte { return s }

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// TestAgainstGopacket parses what gopacket wrote.
func TestAgainstGopacket(t *testing.T) {
	r := random{rand.New(rand.NewPCG(3, 4))}
	for range 20000 {
		frame, want := r.packet()
		var h packet.Header
		if reason := packet.Parse(frame, &h); reason != stat.OK {
			t.Fatalf("%x: %v", frame, reason)
		}
		l4 := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
		if got := offsetOf(frame, l4.NetworkLayer().(gopacket.Layer)); got != int(h.L3) {
			t.Fatalf("%x: L3 at %d, want %d", frame, h.L3, got)
		}
		if tl := l4.TransportLayer(); tl != nil {
			if got := offsetOf(frame, tl.(gopacket.Layer)); got != int(h.L4) {
				t.Fatalf("%x: L4 at %d, want %d", frame, h.L4, got)
			}
		}
		if !packet.ChecksumsOK(frame, &h) {
			t.Fatalf("%x: checksums are wrong, gopacket's are not", frame)
		}
		// The rest is gopacket's input.
		want.L3, want.L4, want.IPLen, want.FragHeaders = h.L3, h.L4, h.IPLen, h.FragHeaders
		if h != want {
			t.Fatalf("%x:\ngot  %+v\nwant %+v", frame, h, want)
		}
	}
}

func offsetOf(frame []byte, l gopacket.Layer) int { return cap(frame) - cap(l.LayerContents()) }

// TestSetChecksums destroys gopacket's checksums and lets ours be written.
func TestSetChecksums(t *testing.T) {
	r := random{rand.New(rand.NewPCG(5, 6))}
	for range 5000 {
		want, _ := r.packet()
		var h packet.Header
		packet.Parse(want, &h)
		if h.Proto == packet.ProtoSCTP {
			continue // its checksum is a CRC of gopacket's own
		}
		got := bytes.Clone(want)
		if at := map[packet.Proto]int{tTCP: 16, tUDP: 6, tICMP: 2, tICMP6: 2}[h.Proto]; true {
			copy(got[int(h.L4)+at:], r.bytes(2))
		}
		if h.EtherType == packet.EtherTypeIPv4 {
			copy(got[h.L3+10:], r.bytes(2))
		}
		if !packet.SetChecksums(got, &h) || !bytes.Equal(got, want) {
			t.Fatalf("got  %x\nwant %x", got, want)
		}
	}
}
