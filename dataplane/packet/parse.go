package packet

import (
	"encoding/binary"

	"github.com/sluice-net/sluice/dataplane/stat"
)

const (
	ethHeaderLen = 14
	vlanTagLen   = 4
	maxTags      = 2
	mostIP       = ipv6HeaderLen + 1<<16 - 1 // bytes of a packet whose length fits its header
)

// Parse fills h from a whole frame and returns stat.OK, or why the frame must
// be dropped. After another reason than OK, h holds what was understood before
// the fault, for the event only: Proto and ports may be missing.
func Parse(frame []byte, h *Header) stat.Reason { return ParseLen(frame, len(frame), h) }

// ParseLen is Parse for a frame of wireLen bytes of which only the first
// buffer is at hand. All headers must lie inside that buffer.
func ParseLen(frame []byte, wireLen int, h *Header) stat.Reason {
	*h = Header{}
	if len(frame) < ethHeaderLen {
		return stat.Truncated
	}
	wireLen = max(wireLen, len(frame))
	off := ethHeaderLen
	et := EtherType(binary.BigEndian.Uint16(frame[12:14]))
	for et == EtherTypeVLAN || et == EtherTypeQinQ {
		if h.Tags == maxTags {
			return stat.Malformed
		}
		if len(frame) < off+vlanTagLen {
			return stat.Truncated
		}
		tag := binary.BigEndian.Uint32(frame[off : off+vlanTagLen])
		if h.Tags == 0 {
			h.VLAN = uint16(tag>>16) & 0xfff
		}
		h.Tags++
		et = EtherType(tag)
		off += vlanTagLen
	}
	h.EtherType = et
	h.L3 = uint16(off)
	switch et {
	case EtherTypeIPv4:
		return parseIPv4(frame[off:], wireLen-off, h)
	case EtherTypeIPv6:
		return parseIPv6(frame[off:], wireLen-off, h)
	case EtherTypeARP:
		return parseARP(frame[off:], h)
	}
	return stat.UnknownEtherType
}

// ParseIP is Parse for a packet of which only the first bytes are at hand, from its
// IP header on: h has L3 0. Lengths that its headers claim are not checked.
func ParseIP(b []byte, h *Header) stat.Reason {
	*h = Header{}
	switch {
	case len(b) > 0 && b[0]>>4 == 4:
		h.EtherType = EtherTypeIPv4
		return parseIPv4(b, mostIP, h)
	case len(b) > 0 && b[0]>>4 == 6:
		h.EtherType = EtherTypeIPv6
		return parseIPv6(b, mostIP, h)
	}
	return stat.Malformed
}

// DstMAC returns the destination of a frame, or zeros if it has none.
func DstMAC(frame []byte) (m MAC) {
	if len(frame) >= ethHeaderLen {
		m = MAC(frame[0:6])
	}
	return m
}

// SrcMAC returns the source of a frame, or zeros if it has none.
func SrcMAC(frame []byte) (m MAC) {
	if len(frame) >= ethHeaderLen {
		m = MAC(frame[6:12])
	}
	return m
}
