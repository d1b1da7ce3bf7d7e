package traffic

import (
	"encoding/binary"
	"net"
	"net/netip"
)

const (
	fcs      = 4 // that the network card adds
	minFrame = 64
	maxFrame = 9018
	ip4Len   = 20 // without options
	ip6Len   = 40 // without extension headers
	udpLen   = 8
)

const (
	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17
	typeIPv4  = 0x0800
	typeIPv6  = 0x86dd
)

// ipLen is the length of an IP header of an address' family.
func ipLen(a netip.Addr) int {
	if a.Is4() {
		return ip4Len
	}
	return ip6Len
}

// l4At is where what an IP packet carries begins in a frame, behind a header without
// options or extension headers; 0: there is no room for UDP.
func l4At(f []byte) int {
	switch {
	case len(f) >= ethLen+ip4Len+udpLen && binary.BigEndian.Uint16(f[12:]) == typeIPv4 && f[ethLen] == 0x45:
		return ethLen + ip4Len
	case len(f) >= ethLen+ip6Len+udpLen && binary.BigEndian.Uint16(f[12:]) == typeIPv6 && f[ethLen]>>4 == 6:
		return ethLen + ip6Len
	}
	return 0
}

// udpAt is where UDP begins in such a frame, 0 if it carries something else.
func udpAt(f []byte) int {
	switch at := l4At(f); {
	case at == ethLen+ip4Len && f[protoInV4] == protoUDP, at == ethLen+ip6Len && f[protoInV6] == protoUDP:
		return at
	}
	return 0
}

// ipFrame makes a frame with an IP header that says that all of the rest is its
// payload.
func ipFrame(fromMAC, toMAC net.HardwareAddr, from, to netip.Addr, proto byte, size int) []byte {
	f := make([]byte, size)
	copy(f, toMAC)
	copy(f[6:], fromMAC)
	h := f[ethLen:]
	if from.Is4() {
		binary.BigEndian.PutUint16(f[12:], typeIPv4)
		h[0], h[8], h[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(h[2:], uint16(size-ethLen))
		src, dst := from.As4(), to.As4()
		copy(h[12:], src[:])
		copy(h[16:], dst[:])
		sumIPv4(f)
		return f
	}
	binary.BigEndian.PutUint16(f[12:], typeIPv6)
	h[0], h[6], h[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(h[4:], uint16(size-ethLen-ip6Len))
	src, dst := from.As16(), to.As16()
	copy(h[8:], src[:])
	copy(h[24:], dst[:])
	return f
}

// udpFrame makes a frame of UDP with a payload of zeros. Over IPv4 its checksum
// is 0, which is none; over IPv6, which must have one, it is right.
func udpFrame(fromMAC, toMAC net.HardwareAddr, from, to netip.Addr, srcPort, dstPort uint16, size int) []byte {
	f := ipFrame(fromMAC, toMAC, from, to, protoUDP, size)
	udp := f[ethLen+ipLen(from):]
	binary.BigEndian.PutUint16(udp, srcPort)
	binary.BigEndian.PutUint16(udp[2:], dstPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	if !from.Is4() {
		sumL4(f, ip6Len, protoUDP)
	}
	return f
}

// sumIPv4 writes the header's checksum anew.
func sumIPv4(frame []byte) {
	h := frame[ethLen : ethLen+ip4Len]
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], ^fold(sum(h)))
}

// sumL4 writes the checksum of TCP or UDP that begins so far behind the start of
// the IP header anew.
func sumL4(frame []byte, at int, proto byte) {
	h := frame[ethLen:]
	addresses := h[12:20]
	if h[0]>>4 == 6 {
		addresses = h[8:40]
	}
	l4 := h[at:]
	field := l4[6:8]
	if proto == protoTCP {
		field = l4[16:18]
	}
	field[0], field[1] = 0, 0
	got := ^fold(sum(addresses) + uint32(len(l4)) + uint32(proto) + sum(l4))
	if got == 0 && proto == protoUDP {
		got = 0xffff // 0 is none
	}
	binary.BigEndian.PutUint16(field, got)
}

// sum adds 16-bit words of network order.
func sum(b []byte) (s uint32) {
	for len(b) >= 2 {
		s += uint32(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) > 0 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
