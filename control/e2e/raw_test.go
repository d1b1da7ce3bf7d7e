package e2e_test

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
)

// wire is eth0 of a namespace, frame by frame.
type wire struct {
	n   *node
	fd  int
	mac net.HardwareAddr

	mu     sync.Mutex
	frames [][]byte // that arrived
	done   chan struct{}
}

// wire opens eth0 and records all that arrives there.
func (n *node) wire(ns *netlab.Namespace) *wire {
	n.Helper()
	w := &wire{n: n, done: make(chan struct{})}
	must(n.T, ns.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		w.mac = link.Attrs().HardwareAddr
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL))); err != nil {
			return err
		}
		tv := unix.NsecToTimeval(int64(20 * time.Millisecond))
		if err := unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: link.Attrs().Index})
	}))
	var wg sync.WaitGroup
	wg.Go(w.record)
	n.Cleanup(func() {
		close(w.done)
		wg.Wait()
		unix.Close(w.fd)
	})
	return w
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func (w *wire) record() {
	buf := make([]byte, 1<<16)
	for {
		select {
		case <-w.done:
			return
		default:
		}
		size, from, err := unix.Recvfrom(w.fd, buf, 0)
		if err != nil {
			continue
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		w.mu.Lock()
		w.frames = append(w.frames, append([]byte(nil), buf[:size]...))
		w.mu.Unlock()
	}
}

// send puts a frame onto the wire.
func (w *wire) send(frame []byte) {
	w.n.Helper()
	if _, err := unix.Write(w.fd, frame); err != nil {
		w.n.Fatalf("send a frame: %v", err)
	}
}

// arrived counts the frames that fit.
func (w *wire) arrived(fits func(gopacket.Packet) bool) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	count := 0
	for _, f := range w.frames {
		if fits(gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)) {
			count++
		}
	}
	return count
}

// frame puts layers together, with lengths and checksums.
func (n *node) frame(parts ...gopacket.SerializableLayer) []byte {
	n.Helper()
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	must(n.T, gopacket.SerializeLayers(buf, opts, parts...))
	return buf.Bytes()
}

// udpFrame is a datagram with a payload by which it is known again.
func (n *node) udpFrame(srcMAC, dstMAC net.HardwareAddr, src, dst netip.AddrPort, payload string) []byte {
	n.Helper()
	eth := &layers.Ethernet{SrcMAC: srcMAC, DstMAC: dstMAC}
	udp := &layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}
	if src.Addr().Is4() {
		eth.EthernetType = layers.EthernetTypeIPv4
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice()}
		must(n.T, udp.SetNetworkLayerForChecksum(ip))
		return n.frame(eth, ip, udp, gopacket.Payload(payload))
	}
	eth.EthernetType = layers.EthernetTypeIPv6
	ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice()}
	must(n.T, udp.SetNetworkLayerForChecksum(ip))
	return n.frame(eth, ip, udp, gopacket.Payload(payload))
}

// hasPayload tells a datagram of udpFrame.
func hasPayload(payload string) func(gopacket.Packet) bool {
	return func(p gopacket.Packet) bool {
		app := p.ApplicationLayer()
		return app != nil && string(app.Payload()) == payload
	}
}

// nextHop is the MAC that the pod sends to: that of the host's link, or on a
// bridge the bridge's.
func (n *node) nextHop(p *pod) net.HardwareAddr {
	n.Helper()
	name := p.Link()
	if n.net.Config().Shape == netlab.Bridge {
		name = "cni0"
	}
	var mac net.HardwareAddr
	must(n.T, n.net.Host().Do(func() error {
		link, err := netlink.LinkByName(name)
		if err == nil {
			mac = link.Attrs().HardwareAddr
		}
		return err
	}))
	return mac
}
