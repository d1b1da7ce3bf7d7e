package traffic

import "encoding/binary"

// malformed4 makes a frame of IPv4 that is broken in one of the ways that parsers
// have been broken by.
func (m maker) malformed4() []byte {
	f := m.udp()
	h := f[ethLen:]
	switch m.r.IntN(8) {
	case 0: // a header of less than 20 bytes
		h[0] = 0x40 | byte(m.r.IntN(5))
	case 1: // one that is longer than the packet
		h[0] = 0x4f
	case 2: // a version that is none
		h[0] = byte(m.r.Uint32())&0xf0 | 5
	case 3: // more than there is
		binary.BigEndian.PutUint16(h[2:], uint16(len(f)+m.r.IntN(60000)))
	case 4: // less than its own header
		binary.BigEndian.PutUint16(h[2:], uint16(m.r.IntN(ip4Len)))
	case 5: // TCP whose header is cut short
		f = m.tcp(0x10)
		h = f[ethLen:]
		binary.BigEndian.PutUint16(h[2:], ip4Len+8)
	case 6: // TCP whose options go on behind the packet
		f = m.tcp(0x10)
		h = f[ethLen:]
		h[ip4Len+12] = 0xf0
	case 7: // UDP whose length is a lie
		binary.BigEndian.PutUint16(h[ip4Len+4:], uint16(m.r.Uint32()))
	}
	if h[0]&0xf == 5 {
		sumIPv4(f)
	}
	return f
}

// Extension headers of IPv6.
const (
	ext6HopByHop    = 0
	ext6Routing     = 43
	ext6Fragment    = 44
	ext6Destination = 60
)

// malformed6 makes a frame of IPv6 that is broken in one of such ways.
func (m maker) malformed6() []byte {
	switch kind := m.r.IntN(10); kind {
	case 0: // a version that is none
		f := m.udp()
		f[ethLen] = byte(m.r.IntN(6)) << 4
		return f
	case 1: // more than there is
		f := m.udp()
		binary.BigEndian.PutUint16(f[ethLen+4:], uint16(len(f)+m.r.IntN(60000)))
		return f
	case 2: // less than the header of UDP
		f := m.udp()
		binary.BigEndian.PutUint16(f[ethLen+4:], uint16(1+m.r.IntN(udpLen-1)))
		return f
	case 3: // options that go on behind the packet
		f, h := m.extended(ext6HopByHop)
		h[1] = byte(1 + m.r.IntN(255))
		return f
	case 4: // a chain that ends in the middle of a header
		f, h := m.extended(ext6Destination)
		h[0] = ext6Routing
		binary.BigEndian.PutUint16(f[ethLen+4:], ext6Len+4)
		return f
	case 5: // a routing header of type 0, which RFC 5095 forbids
		f, h := m.extended(ext6Routing)
		h[3] = 1 + byte(m.r.IntN(255))
		return f
	case 6: // options for every hop that are not the first header
		f, h := m.extended(ext6Destination)
		h[0] = ext6HopByHop
		return f
	case 7: // a fragment's header that is cut short
		f, _ := m.extended(ext6Fragment)
		binary.BigEndian.PutUint16(f[ethLen+4:], uint16(1+m.r.IntN(ext6Len-1)))
		return f
	case 8: // TCP whose options go on behind the packet
		f := m.tcp(0x10)
		f[ethLen+ip6Len+12] = 0xf0
		return f
	default: // UDP whose length is a lie
		f := m.udp()
		binary.BigEndian.PutUint16(f[ethLen+ip6Len+4:], uint16(m.r.Uint32()))
		return f
	}
}
