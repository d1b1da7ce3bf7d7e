package packet

import (
	"encoding/binary"
	"math/bits"
)

// DecrementTTL lowers the TTL or hop limit of a parsed IP packet by one, in
// the frame and in h, and keeps the header checksum right (RFC 1624, eqn. 3).
// It returns false, and changes nothing, if the packet must not travel on.
func DecrementTTL(frame []byte, h *Header) bool {
	if h.TTL <= 1 || int(h.L3)+ipv4HeaderLen > len(frame) {
		return false
	}
	b := frame[h.L3:]
	switch h.EtherType {
	case EtherTypeIPv4:
		before := binary.BigEndian.Uint16(b[8:10])
		b[8]--
		after := binary.BigEndian.Uint16(b[8:10])
		sum := uint32(^binary.BigEndian.Uint16(b[10:12])) + uint32(^before) + uint32(after)
		sum = sum&0xffff + sum>>16
		sum = sum&0xffff + sum>>16
		binary.BigEndian.PutUint16(b[10:12], ^uint16(sum))
	case EtherTypeIPv6:
		b[7]--
	default:
		return false
	}
	h.TTL--
	return true
}

// Sum adds the bytes of b as big-endian 16-bit words to a running one's
// complement sum (RFC 1071); an odd last byte counts as the high half of a
// word, so only the last b of a message may be odd.
func Sum(sum uint64, b []byte) uint64 {
	var carry uint64
	for len(b) >= 32 { // one chain of carries: a cycle a word
		sum, carry = bits.Add64(sum, be64(b), 0)
		sum, carry = bits.Add64(sum, be64(b[8:]), carry)
		sum, carry = bits.Add64(sum, be64(b[16:]), carry)
		sum, carry = bits.Add64(sum, be64(b[24:]), carry)
		sum, carry = bits.Add64(sum, 0, carry)
		sum += carry // the sum before may have been all ones
		b = b[32:]
	}
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, be64(b), 0)
		sum += carry
		b = b[8:]
	}
	var last [8]byte
	copy(last[:], b)
	sum, carry = bits.Add64(sum, be64(last[:]), 0)
	return sum + carry
}

// Fold ends a running sum: the checksum to be written, or 0 if the summed
// bytes hold a right checksum already.
func Fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum)
}

// PseudoSum starts the sum of a transport checksum over the pseudo header of
// IPv4 or IPv6, length counting the transport header and its data.
func PseudoSum(src, dst Addr, proto Proto, length int) uint64 {
	var b [40]byte
	if src.Is4() {
		binary.BigEndian.PutUint32(b[0:4], src.V4())
		binary.BigEndian.PutUint32(b[4:8], dst.V4())
	} else {
		putBE64(b[0:8], src.Hi)
		putBE64(b[8:16], src.Lo)
		putBE64(b[16:24], dst.Hi)
		putBE64(b[24:32], dst.Lo)
	}
	binary.BigEndian.PutUint32(b[32:36], uint32(length))
	b[39] = uint8(proto)
	return Sum(0, b[:])
}

// SetChecksums writes the IPv4 header checksum and, for whole packets, the
// checksum of TCP, UDP, ICMP or ICMPv6 of a parsed frame that is all at hand.
// For tests and tools. It returns false if the frame does not fit h.
func SetChecksums(frame []byte, h *Header) bool {
	end := int(h.L3) + int(h.IPLen)
	if end > len(frame) || h.L4 < h.L3 || int(h.L4) > end {
		return false
	}
	if h.EtherType == EtherTypeIPv4 {
		ip := frame[h.L3:h.L4]
		binary.BigEndian.PutUint16(ip[10:12], 0)
		binary.BigEndian.PutUint16(ip[10:12], Fold(Sum(0, ip)))
	}
	at := checksumOffset(h.Proto)
	l4 := frame[h.L4:end]
	if h.Frag != FragNone || at < 0 || len(l4) < at+2 {
		return true
	}
	binary.BigEndian.PutUint16(l4[at:at+2], 0)
	c := transportSum(l4, h)
	if c == 0 && h.Proto == ProtoUDP {
		c = 0xffff // 0 says "no checksum" (RFC 768)
	}
	binary.BigEndian.PutUint16(l4[at:at+2], c)
	return true
}

// ChecksumsOK reports whether the checksums that SetChecksums would write are
// right. A UDP checksum of 0 over IPv4 is right.
func ChecksumsOK(frame []byte, h *Header) bool {
	end := int(h.L3) + int(h.IPLen)
	if end > len(frame) || h.L4 < h.L3 || int(h.L4) > end {
		return false
	}
	if h.EtherType == EtherTypeIPv4 && Fold(Sum(0, frame[h.L3:h.L4])) != 0 {
		return false
	}
	at := checksumOffset(h.Proto)
	l4 := frame[h.L4:end]
	if h.Frag != FragNone || at < 0 || len(l4) < at+2 {
		return true
	}
	if h.Proto == ProtoUDP && h.EtherType == EtherTypeIPv4 && binary.BigEndian.Uint16(l4[at:at+2]) == 0 {
		return true
	}
	return transportSum(l4, h) == 0
}

// checksumOffset is where the checksum stands in a transport header, or -1.
func checksumOffset(p Proto) int {
	switch p {
	case ProtoTCP:
		return 16
	case ProtoUDP:
		return 6
	case ProtoICMP, ProtoICMPv6:
		return 2
	}
	return -1
}

func transportSum(l4 []byte, h *Header) uint16 {
	if h.Proto == ProtoUDP && len(l4) >= udpHeaderLen {
		if n := int(binary.BigEndian.Uint16(l4[4:6])); n >= udpHeaderLen && n <= len(l4) {
			l4 = l4[:n]
		}
	}
	var sum uint64
	if h.Proto != ProtoICMP {
		sum = PseudoSum(h.Src, h.Dst, h.Proto, len(l4))
	}
	return Fold(Sum(sum, l4))
}
