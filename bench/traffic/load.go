package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
)

// Load is what a generator of frames sends: the frames, and the order in which
// it sends them, over and over.
type Load struct {
	Frames [][]byte
	Order  []uint32 // indices of Frames
}

// Mix describes UDP frames of IPv4 by their sizes and flows. It is the same
// load for the same Mix.
type Mix struct {
	FromMAC, ToMAC net.HardwareAddr
	From, To       netip.Addr
	// Sizes are those of Ethernet frames with their checksum of 4 bytes, as
	// RFC 2544 counts them: 64 is the least.
	Sizes []SizeShare
	// Flows differ in their ports: few source ports and many destination ports,
	// or with Clients the other way round, as clients of few services do.
	Flows   int
	Clients bool
	// Zipf, if greater than 1, is the exponent by which few flows have most of
	// the packets; else all flows have the same.
	Zipf float64
}

// SizeShare is how many frames of a size there are, beside the others.
type SizeShare struct{ Bytes, Share int }

// The simple IMIX: 7 small frames, 4 of middle size, and one large.
var IMIX = []SizeShare{{64, 7}, {594, 4}, {1518, 1}}

const (
	fcs      = 4 // that the network card adds
	minFrame = 64
	maxFrame = 9018
	udpData  = ethLen + 20 + 8 // of IPv4 without options
)

// minOrder is how many packets an order has at least, so that random ones are
// not the same few again and again.
const minOrder = 1 << 16

// Validate reports every fault at once.
func (m Mix) Validate() error {
	var errs []error
	if !m.From.Is4() || !m.To.Is4() {
		errs = append(errs, fmt.Errorf("from %v to %v: want addresses of IPv4", m.From, m.To))
	}
	if m.Flows < 1 || m.Flows > 1<<24 {
		errs = append(errs, fmt.Errorf("flows %d: want 1 to %d", m.Flows, 1<<24))
	}
	if m.Zipf != 0 && m.Zipf <= 1 {
		errs = append(errs, fmt.Errorf("Zipf's exponent %g: want more than 1, or 0", m.Zipf))
	}
	if len(m.Sizes) == 0 {
		errs = append(errs, errors.New("no sizes"))
	}
	for _, s := range m.Sizes {
		if s.Bytes < minFrame || s.Bytes > maxFrame || s.Share < 1 {
			errs = append(errs, fmt.Errorf("%d frames of %d bytes: want at least one of %d to %d", s.Share, s.Bytes, minFrame, maxFrame))
		}
	}
	return errors.Join(errs...)
}

// Load makes the frames.
func (m Mix) Load() (*Load, error) {
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("make frames: %w", err)
	}
	l := &Load{}
	for i := range m.Flows {
		for _, s := range m.Sizes {
			l.Frames = append(l.Frames, m.frame(i, s.Bytes-fcs))
		}
	}
	r := rand.New(rand.NewPCG(0x51, 0x1ce))
	flow := m.flows(r)
	var sizes []int // a deck of all sizes, shuffled anew each time that it is used up
	for n := max(minOrder, 2*m.Flows); len(l.Order) < n; {
		for k, s := range m.Sizes {
			for range s.Share {
				sizes = append(sizes, k)
			}
		}
		r.Shuffle(len(sizes), func(i, j int) { sizes[i], sizes[j] = sizes[j], sizes[i] })
		for _, k := range sizes {
			l.Order = append(l.Order, uint32(flow()*len(m.Sizes)+k))
		}
		sizes = sizes[:0]
	}
	return l, nil
}

// flows draws flows: by Zipf's law, or each once in a random order.
func (m Mix) flows(r *rand.Rand) func() int {
	order := r.Perm(m.Flows)
	if m.Zipf > 1 {
		z := rand.NewZipf(r, m.Zipf, 1, uint64(m.Flows-1))
		return func() int { return order[z.Uint64()] }
	}
	at := 0
	return func() int {
		f := order[at%len(order)]
		at++
		return f
	}
}

// frame makes one; its UDP checksum is 0, which is none, so that what a Blast
// writes into it needs no other.
func (m Mix) frame(flow, size int) []byte {
	f := ethernet(m.FromMAC, m.ToMAC, size)
	ipv4(f, m.From, m.To, protoUDP, size-ethLen)
	udp := f[ethLen+20:]
	few, many := flow/manyPorts, flow%manyPorts
	if m.Clients {
		few, many = many, few
	}
	binary.BigEndian.PutUint16(udp, uint16(firstLocal+few))
	binary.BigEndian.PutUint16(udp[2:], uint16(FirstPort+many))
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	return f
}

// manyPorts is how many destination ports a source port has before the next
// one has its turn, or the other way round.
const manyPorts = 32768

const (
	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17
	typeIPv4  = 0x0800
)

func ethernet(from, to net.HardwareAddr, size int) []byte {
	f := make([]byte, size)
	copy(f, to)
	copy(f[6:], from)
	binary.BigEndian.PutUint16(f[12:], typeIPv4)
	return f
}

// ipv4 writes a header of 20 bytes.
func ipv4(frame []byte, from, to netip.Addr, proto byte, totalLen int) {
	h := frame[ethLen : ethLen+20]
	h[0], h[8], h[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(totalLen))
	src, dst := from.As4(), to.As4()
	copy(h[12:], src[:])
	copy(h[16:], dst[:])
	sumIPv4(frame)
}

// sumIPv4 writes the header's checksum anew.
func sumIPv4(frame []byte) {
	h := frame[ethLen : ethLen+20]
	h[10], h[11] = 0, 0
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum))
}

// Back returns a frame for each flow of the load's UDP in the other direction,
// as a server would answer it: connection tracking takes a flow to be
// established once it has seen one.
func (l *Load) Back(fromMAC, toMAC net.HardwareAddr) *Load {
	back := &Load{}
	seen := map[[4]byte]bool{}
	for _, f := range l.Frames {
		if len(f) < udpData || f[ethLen] != 0x45 || f[ethLen+9] != protoUDP {
			continue
		}
		if ports := [4]byte(f[ethLen+20:]); seen[ports] {
			continue
		} else {
			seen[ports] = true
		}
		r := ethernet(fromMAC, toMAC, minFrame-fcs)
		ipv4(r, addr4(f[ethLen+16:]), addr4(f[ethLen+12:]), protoUDP, len(r)-ethLen)
		copy(r[ethLen+20:], f[ethLen+22:ethLen+24])
		copy(r[ethLen+22:], f[ethLen+20:ethLen+22])
		binary.BigEndian.PutUint16(r[ethLen+24:], uint16(len(r)-ethLen-20))
		back.Order = append(back.Order, uint32(len(back.Frames)))
		back.Frames = append(back.Frames, r)
	}
	return back
}

func addr4(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b)) }
