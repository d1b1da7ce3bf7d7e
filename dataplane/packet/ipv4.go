package packet

import (
	"encoding/binary"

	"github.com/sluice-net/sluice/dataplane/stat"
)

const (
	ipv4HeaderLen = 20
	maxDatagram   = 65535

	optEnd  = 0
	optNop  = 1
	optLSRR = 131
	optSSRR = 137
)

// parseIPv4 reads the header at b[0]; wireLen counts from there.
func parseIPv4(b []byte, wireLen int, h *Header) stat.Reason {
	if len(b) < ipv4HeaderLen {
		return stat.Truncated
	}
	hlen := int(b[0]&0xf) * 4
	total := int(binary.BigEndian.Uint16(b[2:4]))
	if b[0]>>4 != 4 || hlen < ipv4HeaderLen || total < hlen || Proto(b[9]) == ProtoICMPv6 {
		return stat.Malformed
	}
	h.Src = AddrV4(binary.BigEndian.Uint32(b[12:16]))
	h.Dst = AddrV4(binary.BigEndian.Uint32(b[16:20]))
	h.Proto = Proto(b[9])
	h.TTL = b[8]
	h.IPLen = uint32(total)
	h.L4 = h.L3 + uint16(hlen)
	if hlen > len(b) || total > wireLen {
		return stat.Truncated
	}
	if hlen > ipv4HeaderLen {
		if r := walkIPv4Options(b[ipv4HeaderLen:hlen]); r != stat.OK {
			return r
		}
	}
	data := b[hlen:min(total, len(b))]
	if frag := binary.BigEndian.Uint16(b[6:8]); frag&0x3fff != 0 {
		h.FragID = uint32(binary.BigEndian.Uint16(b[4:6]))
		if r := setFragment(h, frag&0x1fff*8, frag&0x2000 != 0, hlen, total-hlen, h.Proto); r != stat.OK {
			return r
		}
		if h.Frag == FragLater {
			return stat.OK
		}
	}
	switch h.Proto {
	case ProtoTCP, ProtoUDP, ProtoSCTP:
		return parsePorts(data, total-hlen, 0, h)
	case ProtoICMP:
		return parseICMPv4(data, h)
	case protoIGMP:
		return parseIGMP(data, h)
	}
	return stat.OK
}

// walkIPv4Options refuses source routes and options that run out of bounds.
func walkIPv4Options(o []byte) stat.Reason {
	for len(o) > 0 {
		switch o[0] {
		case optEnd:
			return stat.OK
		case optNop:
			o = o[1:]
			continue
		case optLSRR, optSSRR:
			return stat.SourceRouted
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return stat.Malformed
		}
		o = o[o[1]:]
	}
	return stat.OK
}

// setFragment fills in the fragment fields and refuses fragments that can't
// belong to an honest datagram: empty, not a multiple of 8 bytes before the
// end, beyond 65535 bytes with the fixedLen bytes that precede the fragmentable
// part, or overlapping the transport header (RFC 1858, RFC 3128).
func setFragment(h *Header, offset uint16, more bool, fixedLen, dataLen int, proto Proto) stat.Reason {
	h.FragOffset = offset
	h.Frag = FragFirst
	if offset != 0 {
		h.Frag = FragLater
	}
	if dataLen == 0 || more && dataLen%8 != 0 ||
		fixedLen+int(offset)+dataLen > maxDatagram ||
		h.Frag == FragLater && int(offset) < minHeaderLen(proto) {
		return stat.BadFragment
	}
	return stat.OK
}

// minHeaderLen is the least that the header of a protocol takes.
func minHeaderLen(p Proto) int {
	switch p {
	case ProtoTCP:
		return tcpHeaderLen
	case ProtoSCTP:
		return sctpHeaderLen
	case ProtoUDP, ProtoICMP, ProtoICMPv6:
		return 8
	}
	return 0
}
