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

// Mix describes UDP frames of IPv4 or IPv6 by their sizes and flows. It is the same
// load for the same Mix.
type Mix struct {
	FromMAC, ToMAC net.HardwareAddr
	From, To       netip.Addr
	// Sizes are those of Ethernet frames with their checksum of 4 bytes, as
	// RFC 2544 counts them: 64 is the least over IPv4, 66 over IPv6.
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

// minOrder is how many packets an order has at least, so that random ones are
// not the same few again and again.
const minOrder = 1 << 16

// Validate reports every fault at once.
func (m Mix) Validate() error {
	var errs []error
	if err := sameFamily(m.From, m.To); err != nil {
		errs = append(errs, err)
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
	least := max(minFrame, ethLen+ipLen(m.From)+udpLen+fcs)
	for _, s := range m.Sizes {
		if s.Bytes < least || s.Bytes > maxFrame || s.Share < 1 {
			errs = append(errs, fmt.Errorf("%d frames of %d bytes: want at least one of %d to %d", s.Share, s.Bytes, least, maxFrame))
		}
	}
	return errors.Join(errs...)
}

func sameFamily(from, to netip.Addr) error {
	if !from.IsValid() || from.Is4In6() || to.Is4In6() || from.BitLen() != to.BitLen() {
		return fmt.Errorf("from %v to %v: want two addresses of one family", from, to)
	}
	return nil
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

func (m Mix) frame(flow, size int) []byte {
	few, many := flow/manyPorts, flow%manyPorts
	if m.Clients {
		few, many = many, few
	}
	return udpFrame(m.FromMAC, m.ToMAC, m.From, m.To, uint16(firstLocal+few), uint16(FirstPort+many), size)
}

// manyPorts is how many destination ports a source port has before the next
// one has its turn, or the other way round.
const manyPorts = 32768

// Back returns a frame for each flow of the load's UDP in the other direction,
// as a server would answer it: connection tracking takes a flow to be
// established once it has seen one.
func (l *Load) Back(fromMAC, toMAC net.HardwareAddr) *Load {
	back := &Load{}
	seen := map[[4]byte]bool{}
	for _, f := range l.Frames {
		at := udpAt(f)
		if at == 0 || seen[[4]byte(f[at:])] {
			continue
		}
		seen[[4]byte(f[at:])] = true
		from, to := addrs(f)
		size := max(minFrame-fcs, at+udpLen)
		back.Order = append(back.Order, uint32(len(back.Frames)))
		back.Frames = append(back.Frames, udpFrame(fromMAC, toMAC, to, from,
			binary.BigEndian.Uint16(f[at+2:]), binary.BigEndian.Uint16(f[at:]), size))
	}
	return back
}

// addrs are the addresses of an IP frame.
func addrs(f []byte) (from, to netip.Addr) {
	if binary.BigEndian.Uint16(f[12:]) == typeIPv4 {
		return netip.AddrFrom4([4]byte(f[ethLen+12:])), netip.AddrFrom4([4]byte(f[ethLen+16:]))
	}
	return netip.AddrFrom16([16]byte(f[ethLen+8:])), netip.AddrFrom16([16]byte(f[ethLen+24:]))
}
