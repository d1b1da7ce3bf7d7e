package packet

import (
	"encoding/binary"

	"github.com/sluice-net/sluice/dataplane/stat"
)

const (
	arpLen          = 28
	arpEthernetIPv4 = 0x0001_0800_06_04 // hardware, protocol, address lengths
	arpRequest      = 1
	arpReply        = 2

	protoIGMP Proto = 2

	icmp6MLDQuery    = 130
	icmp6MLDReport   = 131
	icmp6MLDDone     = 132
	icmp6RouterSol   = 133
	icmp6RouterAdv   = 134
	icmp6NeighSol    = 135
	icmp6NeighAdv    = 136
	icmp6Redirect    = 137
	icmp6MLD2Report  = 143
	ndOptSourceMAC   = 1
	ndOptTargetMAC   = 2
	ndMinSolicit     = 24 // also of an advertisement
	ndMinRouterAdv   = 16
	ndMinRouterSol   = 8
	ndFlagSolicited  = 0x40
	solicitedNodeHi  = 0xff02 << 48
	solicitedNodeLo  = 0x1ff000000 // ff02::1:ff00:0/104, RFC 4291, 2.7.1
	solicitedNodeBit = 24
)

// parseARP reads an Ethernet/IPv4 ARP packet; other kinds are refused.
func parseARP(b []byte, h *Header) stat.Reason {
	if len(b) < arpLen {
		return stat.Truncated
	}
	kind := binary.BigEndian.Uint64(b[0:8])
	if op := uint16(kind); kind>>16 != arpEthernetIPv4 || op != arpRequest && op != arpReply {
		return stat.Malformed
	}
	h.Class = ClassARP
	n := &h.Neighbour
	n.Op = b[7]
	n.SenderMAC, n.HasMAC = MAC(b[8:14]), true
	n.Sender = AddrV4(binary.BigEndian.Uint32(b[14:18]))
	n.Target = AddrV4(binary.BigEndian.Uint32(b[24:28]))
	h.Src, h.Dst = n.Sender, n.Target
	return stat.OK
}

// isLink6 reports whether an ICMPv6 type belongs to the link: ND or MLD.
func isLink6(typ uint8) bool {
	return typ >= icmp6MLDQuery && typ <= icmp6Redirect || typ == icmp6MLD2Report
}

// parseLink6 reads an ND or MLD message. Because such messages go by without
// a policy, all that RFC 4861 (6.1, 7.1) and RFC 3810 demand of them is
// checked: a hop limit that proves that they come from this link, code 0,
// addresses of the right kind, well-formed options.
func parseLink6(l4 []byte, dataLen int, h *Header) stat.Reason {
	switch h.ICMPType {
	case icmp6MLDQuery, icmp6MLDReport, icmp6MLDDone, icmp6MLD2Report:
		return parseMLD(l4, h)
	case icmp6Redirect:
		return stat.Redirect
	}
	if h.TTL != 255 || h.ICMPCode != 0 {
		return stat.Malformed
	}
	size := ndMinSolicit
	switch h.ICMPType {
	case icmp6RouterSol:
		size = ndMinRouterSol
	case icmp6RouterAdv:
		size = ndMinRouterAdv
	}
	// Options may bind addresses, so none may hide beyond the first buffer.
	if len(l4) < size || len(l4) < dataLen {
		return stat.Truncated
	}
	n := &h.Neighbour
	n.Sender, n.Target = h.Src, h.Src
	var target Addr
	if size == ndMinSolicit {
		target = Addr{be64(l4[8:16]), be64(l4[16:24])}
		if target.IsMulticast() || target.overlapsV4() {
			return stat.Malformed
		}
		n.Target = target
	}
	option := uint8(ndOptSourceMAC)
	valid := true
	switch h.ICMPType {
	case icmp6RouterSol:
		h.Class = ClassRouterSolicitation
	case icmp6RouterAdv:
		h.Class = ClassRouterAdvertisement
		valid = h.Src.IsLinkLocal()
	case icmp6NeighSol:
		h.Class = ClassNeighbourSolicitation
		valid = !h.Src.IsUnspecified() || isSolicitedNode(h.Dst)
	case icmp6NeighAdv:
		h.Class = ClassNeighbourAdvertisement
		n.Sender = target
		option = ndOptTargetMAC
		valid = !h.Dst.IsMulticast() || l4[4]&ndFlagSolicited == 0
	}
	if !valid || h.Src.IsMulticast() || !parseNDOptions(l4[size:], option, n) {
		return stat.Malformed
	}
	// A sender without an address can't bind one.
	if n.HasMAC && h.Src.IsUnspecified() {
		return stat.Malformed
	}
	return stat.OK
}

// parseNDOptions looks for the link-layer address option of the given type.
// Receivers differ in which of two they believe, so a second one is refused.
func parseNDOptions(o []byte, want uint8, n *Neighbour) bool {
	for len(o) > 0 {
		if len(o) < 8 || o[1] == 0 || int(o[1])*8 > len(o) {
			return false
		}
		if o[0] == want {
			if n.HasMAC || o[1] != 1 {
				return false
			}
			n.SenderMAC, n.HasMAC = MAC(o[2:8]), true
		}
		o = o[int(o[1])*8:]
	}
	return true
}

func isSolicitedNode(a Addr) bool {
	return a.Hi == solicitedNodeHi && a.Lo>>solicitedNodeBit == solicitedNodeLo>>solicitedNodeBit
}

// parseMLD accepts only what can't leave the link: hop limit 1, to a group,
// from a link-local address or none.
func parseMLD(l4 []byte, h *Header) stat.Reason {
	size := 24 // RFC 2710
	if h.ICMPType == icmp6MLD2Report {
		size = icmpHeaderLen
	}
	if len(l4) < size {
		return stat.Truncated
	}
	if h.TTL != 1 || !h.Dst.IsMulticast() || !h.Src.IsLinkLocal() && !h.Src.IsUnspecified() {
		return stat.Malformed
	}
	h.Class = ClassMLD
	return stat.OK
}

// parseIGMP accepts only what can't leave the link: TTL 1, to a group, whole.
func parseIGMP(l4 []byte, h *Header) stat.Reason {
	if h.Frag != FragNone {
		return stat.BadFragment
	}
	if len(l4) < 8 {
		return stat.Truncated
	}
	if h.TTL != 1 || !h.Dst.IsMulticast() {
		return stat.Malformed
	}
	h.Class = ClassIGMP
	return stat.OK
}
