package packet

import (
	"encoding/binary"
	"math/bits"
)

// A socket buffer whose checksum was left to the hardware (CHECKSUM_PARTIAL,
// include/linux/skbuff.h) holds the sum of the pseudo header in its place, not
// inverted. An XDP program sees the bytes and nothing else.

// Unfinished reports whether the transport checksum of a parsed, unfragmented
// packet of TCP or UDP, whose headers are in frame, is the bare sum of its
// pseudo header: left to the hardware, or finished and equal by chance, one in
// 65,536. FinishChecksum does right in both cases.
func Unfinished(frame []byte, h *Header) bool {
	at := int(h.L4) + checksumOffset(h.Proto)
	if h.Frag != FragNone || h.Proto != ProtoTCP && h.Proto != ProtoUDP || h.L4 < h.L3 || at+2 > len(frame) {
		return false
	}
	length := int(h.IPLen) - int(h.L4-h.L3)
	return binary.BigEndian.Uint16(frame[at:at+2]) == ^Fold(PseudoSum(h.Src, h.Dst, h.Proto, length))
}

// FinishChecksum writes the transport checksum of an Unfinished packet. parts
// are the rest of it where it doesn't fit frame, in order. It returns false,
// and changes nothing, if bytes are missing.
func FinishChecksum(frame []byte, h *Header, parts ...[]byte) bool {
	at := int(h.L4) + checksumOffset(h.Proto)
	left := int(h.IPLen) - int(h.L4-h.L3)
	if at+2 > len(frame) || left < 0 {
		return false
	}
	// Padding after the packet doesn't count.
	first := frame[h.L4:]
	first = first[:min(len(first), left)]
	left -= len(first)
	sum, odd := Sum(0, first), len(first)&1 != 0
	for _, part := range parts {
		part = part[:min(len(part), left)]
		left -= len(part)
		more := uint64(^Fold(Sum(0, part)))
		if odd {
			// RFC 1071, 2(B): swapped bytes have the swapped sum.
			more = uint64(bits.ReverseBytes16(uint16(more)))
		}
		odd = odd != (len(part)&1 != 0)
		var carry uint64
		sum, carry = bits.Add64(sum, more, 0)
		sum += carry
	}
	if left > 0 {
		return false
	}
	c := Fold(sum)
	if c == 0 && h.Proto == ProtoUDP {
		c = 0xffff // 0 says "no checksum" (RFC 768)
	}
	binary.BigEndian.PutUint16(frame[at:at+2], c)
	return true
}
