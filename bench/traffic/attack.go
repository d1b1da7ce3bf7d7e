package traffic

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
)

// Attack is a kind of traffic that nobody means well with.
type Attack string

const (
	RandomTuples Attack = "random"    // each packet of another protocol and other ports
	SYNFlood     Attack = "syn"       // each packet the first of another TCP connection
	Fragments    Attack = "fragments" // of datagrams of which the first or others never come
	Malformed    Attack = "malformed" // headers that lie, are cut short, or make no sense
)

// Attacks lists all kinds.
var Attacks = []Attack{RandomTuples, SYNFlood, Fragments, Malformed}

// attackFrames is how many different frames an attack has.
const attackFrames = 1 << 16

// Load makes the frames of an attack, always the same ones. Their sources are
// the attacker's own.
func (a Attack) Load(fromMAC, toMAC net.HardwareAddr, from, to netip.Addr) (*Load, error) {
	if !from.Is4() || !to.Is4() {
		return nil, fmt.Errorf("attack from %v to %v: want addresses of IPv4", from, to)
	}
	r := rand.New(rand.NewPCG(0xbad, 0xbad))
	l := &Load{}
	for i := range uint32(attackFrames) {
		f := ethernet(fromMAC, toMAC, minFrame-fcs)
		ipv4(f, from, to, protoUDP, len(f)-ethLen)
		l4 := f[ethLen+20:]
		binary.BigEndian.PutUint16(l4, uint16(r.Uint32()))
		binary.BigEndian.PutUint16(l4[2:], uint16(r.Uint32()))
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
		switch a {
		case RandomTuples:
			if r.IntN(2) == 0 {
				tcp(f, r, byte(r.Uint32()))
			}
		case SYNFlood:
			tcp(f, r, 0x02)
		case Fragments:
			fragment(f, r)
		case Malformed:
			f = malform(f, r)
		default:
			return nil, fmt.Errorf("attack %q: want one of %v", a, Attacks)
		}
		l.Frames = append(l.Frames, f)
		l.Order = append(l.Order, i)
	}
	return l, nil
}

// tcp makes a frame TCP's, with some flags.
func tcp(f []byte, r *rand.Rand, flags byte) {
	f[ethLen+9] = protoTCP
	sumIPv4(f)
	h := f[ethLen+20:]
	binary.BigEndian.PutUint32(h[4:], r.Uint32())
	binary.BigEndian.PutUint32(h[8:], 0)
	h[12], h[13] = 5<<4, flags
	binary.BigEndian.PutUint16(h[14:], 65535)
}

// fragment makes a frame one fragment of many: the first, one in the middle or
// the last, of a datagram of its own.
func fragment(f []byte, r *rand.Rand) {
	const more = 1 << 13
	binary.BigEndian.PutUint16(f[ethLen+4:], uint16(r.Uint32()))
	at := []uint16{more, more | uint16(1+r.IntN(8000)), uint16(1 + r.IntN(8000))}[r.IntN(3)]
	binary.BigEndian.PutUint16(f[ethLen+6:], at)
	sumIPv4(f)
}

// malform breaks a frame in one of the ways that parsers have been broken by.
func malform(f []byte, r *rand.Rand) []byte {
	h := f[ethLen:]
	switch r.IntN(8) {
	case 0: // a header of less than 20 bytes
		h[0] = 0x40 | byte(r.IntN(5))
	case 1: // one that is longer than the packet
		h[0] = 0x4f
	case 2: // a version that is none
		h[0] = byte(r.Uint32())&0xf0 | 5
	case 3: // more than there is
		binary.BigEndian.PutUint16(h[2:], uint16(len(f)+r.IntN(60000)))
	case 4: // less than its own header
		binary.BigEndian.PutUint16(h[2:], uint16(r.IntN(20)))
	case 5: // TCP whose header is cut short
		tcp(f, r, 0x10)
		binary.BigEndian.PutUint16(h[2:], 28)
	case 6: // TCP whose options go on behind the packet
		tcp(f, r, 0x10)
		h[20+12] = 0xf0
	case 7: // UDP whose length is a lie
		binary.BigEndian.PutUint16(h[24:], uint16(r.Uint32()))
	}
	if h[0]&0xf == 5 {
		sumIPv4(f)
	}
	return f
}
