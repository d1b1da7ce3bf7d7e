package packet

import (
	"encoding/binary"

	"github.com/sluice-net/sluice/dataplane/stat"
)

const (
	icmpHeaderLen = 8

	icmpEchoReply      = 0
	icmpUnreachable    = 3
	icmpSourceQuench   = 4
	icmpRedirect       = 5
	icmpEcho           = 8
	icmpTimeExceeded   = 11
	icmpParameter      = 12
	icmpTimestampReply = 14
	icmpInfoReply      = 16
	icmpMaskReply      = 18

	icmp6MinEcho   = 128 // errors are below
	icmp6EchoReply = 129
)

// parseICMPv4 reads the message at l4[0].
func parseICMPv4(l4 []byte, h *Header) stat.Reason {
	if len(l4) < icmpHeaderLen {
		return cut(h)
	}
	h.ICMPType, h.ICMPCode = l4[0], l4[1]
	h.FragHeaders = icmpHeaderLen
	switch h.ICMPType {
	case icmpRedirect:
		return stat.Redirect
	case icmpUnreachable, icmpSourceQuench, icmpTimeExceeded, icmpParameter:
		return parseError(l4[icmpHeaderLen:], h)
	}
	h.SrcPort, h.DstPort = queryPorts(ProtoICMP, l4)
	return stat.OK
}

// parseICMPv6 reads the message at l4[0]. fragged says that there was a
// fragment header, which ND must not have (RFC 6980).
func parseICMPv6(l4 []byte, dataLen, fragPrefix int, fragged bool, h *Header) stat.Reason {
	if len(l4) < 4 {
		return cut(h)
	}
	h.ICMPType, h.ICMPCode = l4[0], l4[1]
	h.FragHeaders = uint16(fragPrefix + icmpHeaderLen)
	switch {
	case h.ICMPType < icmp6MinEcho:
		if len(l4) < icmpHeaderLen {
			return cut(h)
		}
		return parseError(l4[icmpHeaderLen:], h)
	case h.ICMPType <= icmp6EchoReply || h.Frag == FragFirst:
		if len(l4) < icmpHeaderLen {
			return cut(h)
		}
	}
	if isLink6(h.ICMPType) {
		if fragged {
			return stat.BadFragment
		}
		return parseLink6(l4, dataLen, h)
	}
	h.SrcPort, h.DstPort = queryPorts(ProtoICMPv6, l4)
	return stat.OK
}

// queryPorts returns the pseudo ports of an ICMP message that is no error; see
// Header. b holds at least 4 bytes, and 8 for echo.
func queryPorts(p Proto, b []byte) (src, dst uint16) {
	typ, code := b[0], b[1]
	if p == ProtoICMP {
		switch typ {
		case icmpEcho, icmpEchoReply:
			id := binary.BigEndian.Uint16(b[4:6])
			return id, id
		case icmpTimestampReply, icmpInfoReply, icmpMaskReply:
			return uint16(typ-1)<<8 | uint16(code), 0
		}
	} else if typ == icmp6MinEcho || typ == icmp6EchoReply {
		id := binary.BigEndian.Uint16(b[4:6])
		return id, id
	}
	return 0, uint16(typ)<<8 | uint16(code)
}

// parseError reads the packet quoted by an ICMP error, which may be cut behind
// its ports. The error's receiver must be the quoted packet's sender; errors
// about errors and about later fragments name no flow.
func parseError(q []byte, h *Header) stat.Reason {
	if h.Frag != FragNone {
		return stat.BadFragment // RFC 1122, 3.2.2; RFC 4443, 2.4: errors are small
	}
	h.ICMPError = true
	var r stat.Reason
	if h.Proto == ProtoICMP {
		q, r = quoteIPv4(q, &h.Inner)
	} else {
		q, r = quoteIPv6(q, &h.Inner)
	}
	if r != stat.OK {
		return r
	}
	if h.Inner.Src != h.Dst {
		return stat.ICMPUnrelated
	}
	switch h.Inner.Proto {
	case ProtoTCP, ProtoUDP, ProtoSCTP:
		if len(q) < 4 {
			return stat.Truncated
		}
		h.Inner.SrcPort = binary.BigEndian.Uint16(q[0:2])
		h.Inner.DstPort = binary.BigEndian.Uint16(q[2:4])
	case ProtoICMP, ProtoICMPv6:
		if h.Inner.Proto != h.Proto {
			return stat.Malformed
		}
		if len(q) < icmpHeaderLen {
			return stat.Truncated
		}
		if isError(h.Inner.Proto, q[0]) {
			return stat.ICMPUnrelated
		}
		h.Inner.SrcPort, h.Inner.DstPort = queryPorts(h.Inner.Proto, q)
	}
	return stat.OK
}

// isError reports whether an ICMP type is an error (redirects included).
func isError(p Proto, typ uint8) bool {
	if p == ProtoICMPv6 {
		return typ < icmp6MinEcho
	}
	switch typ {
	case icmpUnreachable, icmpSourceQuench, icmpRedirect, icmpTimeExceeded, icmpParameter:
		return true
	}
	return false
}

// quoteIPv4 reads a quoted IPv4 header and returns what follows it.
func quoteIPv4(q []byte, t *Tuple) ([]byte, stat.Reason) {
	if len(q) < ipv4HeaderLen {
		return nil, stat.Truncated
	}
	hlen := int(q[0]&0xf) * 4
	if q[0]>>4 != 4 || hlen < ipv4HeaderLen {
		return nil, stat.Malformed
	}
	t.Src = AddrV4(binary.BigEndian.Uint32(q[12:16]))
	t.Dst = AddrV4(binary.BigEndian.Uint32(q[16:20]))
	t.Proto = Proto(q[9])
	if hlen > len(q) {
		return nil, stat.Truncated
	}
	if binary.BigEndian.Uint16(q[6:8])&0x1fff != 0 {
		return nil, stat.ICMPUnrelated
	}
	return q[hlen:], stat.OK
}

// quoteIPv6 reads a quoted IPv6 header with its extension headers and returns
// what follows them.
func quoteIPv6(q []byte, t *Tuple) ([]byte, stat.Reason) {
	if len(q) < ipv6HeaderLen {
		return nil, stat.Truncated
	}
	if q[0]>>4 != 6 {
		return nil, stat.Malformed
	}
	t.Src = Addr{be64(q[8:16]), be64(q[16:24])}
	t.Dst = Addr{be64(q[24:32]), be64(q[32:40])}
	if t.Src.overlapsV4() || t.Dst.overlapsV4() {
		return nil, stat.Malformed
	}
	c := chain{proto: Proto(q[6])}
	r := c.walk(q[ipv6HeaderLen:])
	t.Proto = c.proto
	if r != stat.OK {
		return nil, r
	}
	if c.fragOff != 0 {
		return nil, stat.ICMPUnrelated
	}
	return q[ipv6HeaderLen+c.off:], stat.OK
}
