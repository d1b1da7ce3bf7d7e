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

const tcpLen = 20

// Load makes the frames of an attack over IPv4 or IPv6, always the same ones.
// Their sources are the attacker's own, and what does not lie about it has right
// checksums: connection tracking takes the rest for invalid, which costs it less.
func (a Attack) Load(fromMAC, toMAC net.HardwareAddr, from, to netip.Addr) (*Load, error) {
	if err := sameFamily(from, to); err != nil {
		return nil, fmt.Errorf("attack: %w", err)
	}
	r := rand.New(rand.NewPCG(0xbad, 0xbad))
	l := &Load{}
	m := maker{fromMAC, toMAC, from, to, r}
	for i := range uint32(attackFrames) {
		var f []byte
		switch a {
		case RandomTuples:
			if r.IntN(2) == 0 {
				f = m.tcp(byte(r.Uint32()))
			} else {
				f = m.udp()
			}
		case SYNFlood:
			f = m.tcp(0x02)
		case Fragments:
			f = m.fragment()
		case Malformed:
			if from.Is4() {
				f = m.malformed4()
			} else {
				f = m.malformed6()
			}
		default:
			return nil, fmt.Errorf("attack %q: want one of %v", a, Attacks)
		}
		l.Frames = append(l.Frames, f)
		l.Order = append(l.Order, i)
	}
	return l, nil
}

// maker makes frames of random ports.
type maker struct {
	fromMAC, toMAC net.HardwareAddr
	from, to       netip.Addr
	r              *rand.Rand
}

// l4 is where L4 is in a frame without options or extension headers.
func (m maker) l4() int { return ethLen + ipLen(m.from) }

// size of the smallest frame with so much behind the IP header.
func (m maker) size(payload int) int { return max(minFrame-fcs, m.l4()+payload) }

func (m maker) udp() []byte {
	return udpFrame(m.fromMAC, m.toMAC, m.from, m.to, uint16(m.r.Uint32()), uint16(m.r.Uint32()), m.size(udpLen))
}

func (m maker) tcp(flags byte) []byte {
	f := ipFrame(m.fromMAC, m.toMAC, m.from, m.to, protoTCP, m.size(tcpLen))
	h := f[m.l4():]
	binary.BigEndian.PutUint16(h, uint16(m.r.Uint32()))
	binary.BigEndian.PutUint16(h[2:], uint16(m.r.Uint32()))
	binary.BigEndian.PutUint32(h[4:], m.r.Uint32())
	h[12], h[13] = tcpLen/4<<4, flags
	binary.BigEndian.PutUint16(h[14:], 65535)
	sumL4(f, m.l4()-ethLen, protoTCP)
	return f
}

const ext6Len = 8 // of the smallest extension header

// extended makes a frame of UDP over IPv6 with an extension header before it:
// one of 8 bytes, whose first two are those of every kind.
func (m maker) extended(kind byte) (frame, header []byte) {
	f := ipFrame(m.fromMAC, m.toMAC, m.from, m.to, kind, m.size(ext6Len+udpLen))
	h := f[m.l4():]
	h[0] = protoUDP
	udp := h[ext6Len:]
	binary.BigEndian.PutUint16(udp, uint16(m.r.Uint32()))
	binary.BigEndian.PutUint16(udp[2:], uint16(m.r.Uint32()))
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	sumL4(f, ip6Len+ext6Len, protoUDP)
	return f, h[:ext6Len]
}

// fragment makes one fragment of many: the first, one in the middle or the last,
// of a datagram of its own.
func (m maker) fragment() []byte {
	at := []int{0, 1 + m.r.IntN(8000), 1 + m.r.IntN(8000)}
	k := m.r.IntN(3)
	more := k < 2
	if m.from.Is4() {
		f := m.udp()
		binary.BigEndian.PutUint16(f[ethLen+4:], uint16(m.r.Uint32()))
		word := uint16(at[k])
		if more {
			word |= 1 << 13
		}
		binary.BigEndian.PutUint16(f[ethLen+6:], word)
		sumIPv4(f)
		return f
	}
	f, h := m.extended(ext6Fragment)
	word := uint16(at[k]) << 3
	if more {
		word |= 1
	}
	binary.BigEndian.PutUint16(h[2:], word)
	binary.BigEndian.PutUint32(h[4:], m.r.Uint32())
	return f
}
