package packet

import (
	"math/bits"
	"net/netip"
)

// Proto is an IP protocol number (IANA "Assigned Internet Protocol Numbers").
type Proto uint8

// The protocols that Sluice knows by name.
const (
	ProtoICMP   Proto = 1
	ProtoTCP    Proto = 6
	ProtoUDP    Proto = 17
	ProtoICMPv6 Proto = 58
	ProtoSCTP   Proto = 132
)

// Addr is an IPv6 address, or an IPv4 address in its v4-mapped form
// (RFC 4291, 2.5.5.2), as two host-order words of the big-endian bytes, so
// that addresses compare and hash as integers.
type Addr struct{ Hi, Lo uint64 }

// v4Mapped is the low word of ::ffff:0.0.0.0.
const v4Mapped = 0xffff << 32

// AddrFrom converts a netip.Addr; a zone is dropped.
func AddrFrom(a netip.Addr) Addr {
	b := a.As16()
	return Addr{Hi: be64(b[0:8]), Lo: be64(b[8:16])}
}

// AddrV4 returns the v4-mapped form of a host-order IPv4 address.
func AddrV4(v uint32) Addr { return Addr{Lo: v4Mapped | uint64(v)} }

// Is4 reports whether a is a v4-mapped address.
func (a Addr) Is4() bool { return a.Hi == 0 && a.Lo>>32 == 0xffff }

// V4 returns the host-order IPv4 address of a v4-mapped one.
func (a Addr) V4() uint32 { return uint32(a.Lo) }

// Netip converts back, unmapped.
func (a Addr) Netip() netip.Addr {
	var b [16]byte
	putBE64(b[0:8], a.Hi)
	putBE64(b[8:16], a.Lo)
	return netip.AddrFrom16(b).Unmap()
}

// Less orders addresses as their bytes.
func (a Addr) Less(b Addr) bool { return a.Hi < b.Hi || a.Hi == b.Hi && a.Lo < b.Lo }

// Key names a flow, the same for both of its directions: the end with the
// smaller (address, port) is A. Its memory layout is that of struct flow_key
// in xdpprog/bpf/abi.h, host byte order throughout, so a []Key goes to the
// kernel as it is. For ICMP and ICMPv6 echo both ports are the identifier; for
// protocols without ports they are 0.
type Key struct {
	A, B         Addr
	APort, BPort uint16
	Proto        Proto
	_            [3]uint8
}

// Side says which end of a Key a packet comes from.
type Side uint8

const (
	SideA Side = 0
	SideB Side = 1
)

// Other returns the opposite side.
func (s Side) Other() Side { return s ^ 1 }

// MakeKey returns the canonical key of a packet and the side that sent it.
func MakeKey(src, dst Addr, sport, dport uint16, proto Proto) (Key, Side) {
	if dst.Less(src) || dst == src && dport < sport {
		return Key{A: dst, B: src, APort: dport, BPort: sport, Proto: proto}, SideB
	}
	return Key{A: src, B: dst, APort: sport, BPort: dport, Proto: proto}, SideA
}

// Tuple returns source and destination as seen in a packet sent by side s.
func (k *Key) Tuple(s Side) (src, dst Addr, sport, dport uint16) {
	if s == SideA {
		return k.A, k.B, k.APort, k.BPort
	}
	return k.B, k.A, k.BPort, k.APort
}

// Hasher hashes keys with constants that are random per process, so that a
// pod can't choose flows that collide. 1 to 2 ns a key.
type Hasher struct{ k0, k1, k2 uint64 }

// NewHasher returns a Hasher keyed with three random words.
func NewHasher(seed [3]uint64) Hasher { return Hasher{seed[0] | 1, seed[1] | 1, seed[2] | 1} }

// Hash mixes all of the key by 64×64→128-bit multiplications.
func (h Hasher) Hash(k *Key) uint64 {
	ports := uint64(k.APort)<<48 | uint64(k.BPort)<<32 | uint64(k.Proto)
	h1, l1 := bits.Mul64(k.A.Hi^h.k0, k.A.Lo^h.k1)
	h2, l2 := bits.Mul64(k.B.Hi^h.k1, k.B.Lo^h.k2)
	h3, l3 := bits.Mul64(h1^l1^ports^h.k2, h2^l2^bits.RotateLeft64(ports, 21)^h.k0)
	return h3 ^ l3
}

func be64(b []byte) uint64 {
	_ = b[7]
	return uint64(b[0])<<56 | uint64(b[1])<<48 | uint64(b[2])<<40 | uint64(b[3])<<32 |
		uint64(b[4])<<24 | uint64(b[5])<<16 | uint64(b[6])<<8 | uint64(b[7])
}

func putBE64(b []byte, v uint64) {
	_ = b[7]
	b[0], b[1], b[2], b[3] = byte(v>>56), byte(v>>48), byte(v>>40), byte(v>>32)
	b[4], b[5], b[6], b[7] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
}
