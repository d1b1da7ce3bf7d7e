// Package packet turns the bytes of a frame into a Header and the key of its
// flow, or into the reason why the frame must be dropped. What is not fully
// understood is refused, never guessed.
//
// All functions are stateless and safe on any bytes: they never panic, never
// read past the slice and never allocate. Parse costs 10 to 30 ns. Checksums
// are not verified (the receiver does), except by the helpers in checksum.go.
// Wire byte order lives in this package and nowhere else.
package packet

import "math/bits"

// EtherType is the protocol of an Ethernet frame, after its VLAN tags.
type EtherType uint16

// The EtherTypes that Sluice knows.
const (
	EtherTypeIPv4 EtherType = 0x0800
	EtherTypeARP  EtherType = 0x0806
	EtherTypeVLAN EtherType = 0x8100 // 802.1Q
	EtherTypeIPv6 EtherType = 0x86dd
	EtherTypeQinQ EtherType = 0x88a8 // 802.1ad
)

// MAC is an Ethernet address.
type MAC [6]byte

// Class says whether a packet is traffic to be judged by policy, or one of the
// link's own protocols that go by once their claims are checked.
type Class uint8

const (
	ClassIP                 Class = iota // judged by policy
	ClassARP                             // Neighbour.Op tells request from reply
	ClassRouterSolicitation              // ND: RFC 4861
	ClassRouterAdvertisement
	ClassNeighbourSolicitation
	ClassNeighbourAdvertisement
	ClassMLD  // IPv6 multicast listener query or report
	ClassIGMP // IPv4 multicast listener query or report
)

// Link reports whether the packet belongs to the link (ARP, ND, MLD, IGMP) and
// so is exempt from policy.
func (c Class) Link() bool { return c != ClassIP }

// FragKind is a packet's place in a fragmented datagram.
type FragKind uint8

const (
	FragNone  FragKind = iota // whole, atomic fragments (RFC 6946) included
	FragFirst                 // has the whole transport header
	FragLater                 // has no ports: they are the first fragment's
)

// Tuple is a packet's end points as they stand in the packet.
type Tuple struct {
	Src, Dst         Addr
	SrcPort, DstPort uint16
	Proto            Proto
}

// Neighbour is what an ARP or ND packet says about who owns which address.
type Neighbour struct {
	// Sender is the address that the packet speaks for: ARP's sender address,
	// the target of a neighbour advertisement, else the IP source. It may be
	// unspecified (probes, duplicate address detection).
	Sender Addr
	// Target is who is asked for (ARP, solicitation), or equals Sender.
	Target Addr
	// SenderMAC is the link address bound to Sender, if HasMAC. Always set for
	// ARP; from the link-layer address option for ND.
	SenderMAC MAC
	HasMAC    bool
	Op        uint8 // ARP: 1 request, 2 reply
}

// Header is what Parse finds out. Offsets count from the start of the frame.
type Header struct {
	Src, Dst Addr
	// SrcPort and DstPort are the ports of the flow's key. For ICMP and ICMPv6
	// echo both are the identifier. For other ICMP queries the "server" port
	// is the query's type<<8|code and the "client" port 0, so that a timestamp
	// reply has the key of its request. Both 0 for ICMP errors, for later
	// fragments and for protocols without ports.
	SrcPort, DstPort uint16
	L3, L4           uint16 // L4 of a later fragment is the start of its data
	EtherType        EtherType
	VLAN             uint16 // ID in the outermost tag, if Tags > 0
	Tags             uint8  // 802.1Q and 802.1ad tags
	Class            Class
	Proto            Proto // of the last header understood; in a later fragment, what its header says
	TTL              uint8 // or hop limit
	TCPFlags         uint8
	ICMPType         uint8
	ICMPCode         uint8
	ICMPError        bool   // Inner is set
	IPLen            uint32 // IP header and all that follows it, bytes, without padding

	Frag       FragKind
	FragOffset uint16 // bytes
	FragID     uint32
	// FragHeaders counts, of a first fragment, the bytes of the fragmentable
	// part up to the end of the transport header. A later fragment that starts
	// before that would overwrite what was judged.
	FragHeaders uint16

	// Inner is the packet that an ICMP error quotes.
	Inner Tuple
	// Neighbour is set for ARP and ND.
	Neighbour Neighbour
}

// TCP flags, as in TCPFlags.
const (
	TCPFin = 1 << iota
	TCPSyn
	TCPRst
	TCPPsh
	TCPAck
	TCPUrg
	TCPEce
	TCPCwr
)

// Key returns the key of the packet's flow and the side that sent the packet.
// It has no meaning for ICMP errors (InnerKey), for later fragments (their
// ports must be filled in first) and outside ClassIP.
func (h *Header) Key() (Key, Side) {
	return MakeKey(h.Src, h.Dst, h.SrcPort, h.DstPort, h.Proto)
}

// KeyTo is Key for a burst: it writes the key where it is wanted, and takes no
// branch, because which direction comes next is anyone's guess. The padding of k
// stays as it is.
func (h *Header) KeyTo(k *Key) Side {
	_, less := bits.Sub64(uint64(h.DstPort), uint64(h.SrcPort), 0)
	_, less = bits.Sub64(h.Dst.Lo, h.Src.Lo, less)
	_, less = bits.Sub64(h.Dst.Hi, h.Src.Hi, less) // 1 if (Dst, DstPort) < (Src, SrcPort)
	swap := -less
	hi, lo := (h.Src.Hi^h.Dst.Hi)&swap, (h.Src.Lo^h.Dst.Lo)&swap
	port := (h.SrcPort ^ h.DstPort) & uint16(swap)
	k.A.Hi, k.A.Lo = h.Src.Hi^hi, h.Src.Lo^lo
	k.B.Hi, k.B.Lo = h.Dst.Hi^hi, h.Dst.Lo^lo
	k.APort, k.BPort = h.SrcPort^port, h.DstPort^port
	k.Proto = h.Proto
	return Side(less)
}

// InnerKey returns, for an ICMP error, the key of the flow that it quotes and
// the side from whose direction the error comes: that of the quoted packet's
// destination. The quoted packet's sender, the other side, receives the error.
func (h *Header) InnerKey() (Key, Side) {
	q := &h.Inner
	k, sender := MakeKey(q.Src, q.Dst, q.SrcPort, q.DstPort, q.Proto)
	return k, sender.Other()
}

// ClassifyPort returns what rules match as the port: the destination port, or
// type<<8|code of ICMP and ICMPv6, or 0.
func (h *Header) ClassifyPort() uint16 {
	if h.Proto == ProtoICMP || h.Proto == ProtoICMPv6 {
		return uint16(h.ICMPType)<<8 | uint16(h.ICMPCode)
	}
	return h.DstPort
}

// Opening reports whether only the initiator of a flow may send the packet: a
// pure SYN, or an echo request. One from the other side asks for a flow of its
// own.
func (h *Header) Opening() bool {
	switch h.Proto {
	case ProtoTCP:
		return h.TCPFlags&(TCPSyn|TCPAck) == TCPSyn
	case ProtoICMP:
		return h.ICMPType == icmpEcho
	case ProtoICMPv6:
		return h.ICMPType == icmp6MinEcho
	}
	return false
}

// FragKey names a datagram while its fragments travel. The protocol is part of
// it for IPv4 only (RFC 791); in IPv6 later fragments may name another header
// than the first one does (RFC 8200, 4.5).
type FragKey struct {
	Src, Dst Addr
	ID       uint32
	Proto    Proto
}

// FragKey returns the datagram that a fragment belongs to.
func (h *Header) FragKey() FragKey {
	k := FragKey{Src: h.Src, Dst: h.Dst, ID: h.FragID}
	if h.EtherType == EtherTypeIPv4 {
		k.Proto = h.Proto
	}
	return k
}
