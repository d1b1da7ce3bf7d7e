package packet

// AllOnes is the limited broadcast address 255.255.255.255.
var AllOnes = AddrV4(0xffffffff)

// IsUnspecified reports whether a is 0.0.0.0 or ::.
func (a Addr) IsUnspecified() bool { return a.Hi == 0 && (a.Lo == 0 || a.Lo == v4Mapped) }

// IsLoopback reports whether a is in 127.0.0.0/8 or is ::1.
func (a Addr) IsLoopback() bool {
	return a.Hi == 0 && (a.Lo == 1 || a.Lo>>24 == (v4Mapped|0x7f000000)>>24)
}

// IsMulticast reports whether a is in 224.0.0.0/4 or ff00::/8.
func (a Addr) IsMulticast() bool {
	return a.Hi>>56 == 0xff || a.Hi == 0 && a.Lo>>28 == (v4Mapped|0xe0000000)>>28
}

// IsLinkLocal reports whether a is a unicast address of fe80::/10 or of
// 169.254.0.0/16.
func (a Addr) IsLinkLocal() bool {
	return a.Hi>>54 == 0xfe80>>6 || a.Hi == 0 && a.Lo>>16 == (v4Mapped|0xa9fe0000)>>16
}

// ValidSource reports whether a packet that leaves its link may come from a:
// not from a multicast, broadcast, loopback or unspecified address. Parse does
// not check this, because what an unspecified source means depends on the hook
// (a DHCP client has no address yet).
func (a Addr) ValidSource() bool {
	return !a.IsMulticast() && !a.IsUnspecified() && !a.IsLoopback() && a != AllOnes
}

// overlapsV4 reports whether an address of an IPv6 header lies where Addr
// keeps IPv4: the v4-mapped block, or the v4-compatible one that RFC 4291
// deprecates. Neither may appear on a wire.
func (a Addr) overlapsV4() bool {
	return a.Hi == 0 && (a.Lo>>32 == 0xffff || a.Lo>>32 == 0 && a.Lo > 1)
}
