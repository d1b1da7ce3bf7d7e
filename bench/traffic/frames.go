package traffic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"
)

// FrameFlood is ready-made UDP frames out of a packet socket, past the
// namespace's IP stack and queueing discipline: sendmmsg in batches of 64. They
// become real skbs, with their checksums filled in, at a fraction of the cost
// of a UDP socket's.
type FrameFlood struct {
	Client         End
	Ifindex        int // in the client's namespace
	FromMAC, ToMAC net.HardwareAddr
	From, To       netip.Addr
	PayloadBytes   int
	// Sources times Ports is the number of flows: see Flood.
	Sources, Ports int
}

// Start starts a flood that lasts until Stop.
func (f FrameFlood) Start(ctx context.Context) (*Flooding, error) {
	frames, err := f.frames()
	if err != nil {
		return nil, fmt.Errorf("make frames: %w", err)
	}
	g := &Flooding{crew: newCrew(ctx), done: make(chan struct{})}
	ready := make(chan struct{})
	g.crew.hire(f.Client, "frame flood", func() error {
		fd, err := f.socket()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		close(ready)
		m := newMessage(nil)
		for {
			for at := 0; at < len(frames); {
				if g.crew.stopped() {
					return nil
				}
				n := min(batchSize, len(frames)-at)
				m.carry(frames[at : at+n])
				sent, err := m.send(fd, n)
				if err != nil && !again(err) && !errors.Is(err, unix.ENOBUFS) {
					return fmt.Errorf("send frames: %w", err)
				}
				g.sent.Add(uint64(sent))
				at += max(sent, 1) // what found no room is lost
			}
		}
	})
	if _, err := await(g.crew, ready); err != nil {
		return nil, g.crew.dismiss(err)
	}
	return g, nil
}

// socket opens a packet socket that only sends.
func (f FrameFlood) socket() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20),
		setTimeouts(fd, lookUp),
		unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: f.Ifindex}),
	)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set packet socket up: %w", err)
	}
	return fd, nil
}

// frames makes a frame a flow, in a random order that is always the same; few
// are repeated to fill a batch.
func (f FrameFlood) frames() ([][]byte, error) {
	flows := f.Sources * f.Ports
	order := rand.New(rand.NewPCG(0x51, 0x1ce)).Perm(flows)
	frames := make([][]byte, 0, max(flows, batchSize))
	for _, i := range order {
		frame, err := f.frame(uint16(firstLocal+i/f.Ports), uint16(FirstPort+i%f.Ports))
		if err != nil {
			return nil, err
		}
		frames = append(frames, frame)
	}
	for i := 0; len(frames) < batchSize; i++ {
		frames = append(frames, frames[i])
	}
	return frames, nil
}

func (f FrameFlood) frame(from, to uint16) ([]byte, error) {
	eth := &layers.Ethernet{SrcMAC: f.FromMAC, DstMAC: f.ToMAC, EthernetType: layers.EthernetTypeIPv4}
	udp := &layers.UDP{SrcPort: layers.UDPPort(from), DstPort: layers.UDPPort(to)}
	var ip interface {
		gopacket.SerializableLayer
		gopacket.NetworkLayer
	}
	if f.From.Is4() {
		ip = &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: f.From.AsSlice(), DstIP: f.To.AsSlice()}
	} else {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: f.From.AsSlice(), DstIP: f.To.AsSlice()}
	}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		return nil, err
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	err := gopacket.SerializeLayers(buf, opts, eth, ip, udp, gopacket.Payload(make([]byte, f.PayloadBytes)))
	return buf.Bytes(), err
}
