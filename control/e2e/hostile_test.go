package e2e_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/control"
)

// hostile is a pod that writes its frames itself. It may reach port 90 of the
// server, where nothing harmful is, and must not reach port 80.
type hostile struct {
	*pair
	from, victim *wire
	hop          net.HardwareAddr
}

func newHostile(t *testing.T, s setup) *hostile {
	t.Helper()
	n := newPair(t, s)
	n.serveBoth(n.server, 90)
	n.apply("server", "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress]\ningress:\n"+
		"- from: [{podSelector: {matchLabels: {role: friend}}}]\n- ports: [{port: 90, protocol: TCP}, {port: 90, protocol: UDP}]")
	return &hostile{pair: n, from: n.wire(n.other.Namespace()), victim: n.wire(n.server.Namespace()), hop: n.nextHop(n.other)}
}

// ipv4 is a packet of the hostile pod to the server, whatever its payload says.
func (h *hostile) ipv4(change func(*layers.IPv4), payload []byte) []byte {
	h.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: h.other.v4.AsSlice(), DstIP: h.server.v4.AsSlice()}
	change(ip)
	return h.frame(&layers.Ethernet{SrcMAC: h.from.mac, DstMAC: h.hop, EthernetType: layers.EthernetTypeIPv4}, ip, gopacket.Payload(payload))
}

func (h *hostile) ipv6(next layers.IPProtocol, payload []byte) []byte {
	h.Helper()
	ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: next, SrcIP: h.other.v6.AsSlice(), DstIP: h.server.v6.AsSlice()}
	return h.frame(&layers.Ethernet{SrcMAC: h.from.mac, DstMAC: h.hop, EthernetType: layers.EthernetTypeIPv6}, ip, gopacket.Payload(payload))
}

// udp is a datagram without checksum.
func udp(sport, dport uint16, total int, data string) []byte {
	b := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint16(b[4:], uint16(8+total))
	return append(b, data...)
}

// frag6 is a fragment header; off is in units of 8 bytes.
func frag6(next layers.IPProtocol, off uint16, more bool, id uint32) []byte {
	b := make([]byte, 8)
	b[0] = byte(next)
	binary.BigEndian.PutUint16(b[2:], off<<3)
	if more {
		b[3] |= 1
	}
	binary.BigEndian.PutUint32(b[4:], id)
	return b
}

// options is a chain of n destination options headers.
func options(n int, next layers.IPProtocol) (first layers.IPProtocol, chain []byte) {
	for i := range n {
		following := layers.IPProtocolIPv6Destination
		if i == n-1 {
			following = next
		}
		chain = append(chain, byte(following), 0, 1, 4, 0, 0, 0, 0)
	}
	return layers.IPProtocolIPv6Destination, chain
}

const forbidden = "forbidden" // in all that must not arrive

// TestHostileHeaders has a pod dress packets so that a filter and the victim may
// read them differently. Each is dropped, for the reason that fits.
func TestHostileHeaders(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		h := newHostile(t, s)
		more := func(id uint16, off uint16, last bool) func(*layers.IPv4) {
			return func(ip *layers.IPv4) {
				ip.Id, ip.FragOffset = id, off
				if !last {
					ip.Flags = layers.IPv4MoreFragments
				}
			}
		}
		tcpTo80 := make([]byte, 20)
		binary.BigEndian.PutUint16(tcpTo80, 5000)
		binary.BigEndian.PutUint16(tcpTo80[2:], 80)
		tcpTo80[12], tcpTo80[13] = 5<<4, 2 // SYN
		asTCP := func(id, off uint16, last bool) func(*layers.IPv4) {
			return func(ip *layers.IPv4) { more(id, off, last)(ip); ip.Protocol = layers.IPProtocolTCP }
		}
		first2, two := options(2, layers.IPProtocolUDP)
		first9, nine := options(9, layers.IPProtocolUDP)
		routing := append([]byte{byte(layers.IPProtocolUDP), 2, 0, 1, 0, 0, 0, 0}, h.friend.v6.AsSlice()...)
		endless := []byte{byte(layers.IPProtocolIPv6Destination), 200, 1, 4, 0, 0, 0, 0}
		cases := []struct {
			name, reason string
			frames       [][]byte
		}{
			{"ports in a fragment of their own", "bad-fragment", [][]byte{
				h.ipv4(asTCP(1, 0, false), tcpTo80[:8]), h.ipv4(asTCP(1, 1, true), append(tcpTo80[8:20:20], forbidden...))}},
			{"fragment that overlaps the TCP header", "bad-fragment", [][]byte{
				h.ipv4(asTCP(2, 1, true), append(make([]byte, 8), forbidden...))}},
			{"fragment without a first one", "bad-fragment", [][]byte{
				h.ipv4(more(3, 100, true), []byte(forbidden+forbidden))}},
			{"fragment without a first one, IPv6", "bad-fragment", [][]byte{
				h.ipv6(layers.IPProtocolIPv6Fragment, append(frag6(layers.IPProtocolUDP, 100, false, 3), forbidden...))}},
			{"fragment that ends beyond any packet", "bad-fragment", [][]byte{
				h.ipv4(more(4, 8189, true), []byte(forbidden+"0123456789012345678901234567890123456789"))}},
			{"chain of two options headers", "policy", [][]byte{
				h.ipv6(first2, append(two, udp(5000, 80, len(forbidden), forbidden)...))}},
			{"chain of nine options headers", "extension-headers", [][]byte{
				h.ipv6(first9, append(nine, udp(5000, 80, len(forbidden), forbidden)...))}},
			{"options header longer than the packet", "truncated", [][]byte{
				h.ipv6(layers.IPProtocolIPv6Destination, append(endless, forbidden...))}},
			{"routing header of type 0", "source-routed", [][]byte{
				h.ipv6(layers.IPProtocolIPv6Routing, append(routing, udp(5000, 80, len(forbidden), forbidden)...))}},
			{"loose source route", "source-routed", [][]byte{
				h.ipv4(func(ip *layers.IPv4) {
					ip.Options = []layers.IPv4Option{{OptionType: 131, OptionLength: 7, OptionData: append([]byte{4}, h.friend.v4.AsSlice()...)}, {OptionType: 0}}
				}, udp(5000, 80, len(forbidden), forbidden))}},
		}
		for _, c := range cases {
			before := h.status().Drops[c.reason]
			h.eventually(c.name+" is counted as "+c.reason, func() bool {
				for _, f := range c.frames {
					h.from.send(f)
				}
				return h.status().Drops[c.reason] > before
			})
		}
		// A first fragment that is allowed, and another in its place that is not.
		for id := range uint16(20) {
			h.from.send(h.ipv4(more(100+id, 0, false), udp(5000, 90, 24+len(forbidden), "24 bytes of a payload...")))
			h.from.send(h.ipv4(more(100+id, 0, false), udp(5000, 80, 24+len(forbidden), "24 bytes of "+forbidden+"...")))
			h.from.send(h.ipv4(more(100+id, 1, true), []byte("overlap "+forbidden)))
		}
		h.from.send(h.udpFrame(h.from.mac, h.hop, at(h.other.v4, 7), at(h.server.v4, 90), "honest"))
		h.eventually("an honest datagram arrives", func() bool { return h.victim.arrived(hasPayload("honest")) == 1 })
		got := h.victim.arrived(func(p gopacket.Packet) bool {
			u, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
			return ok && u.DstPort == 80
		})
		if got > 0 {
			t.Errorf("%d datagrams for the forbidden port arrived", got)
		}
		h.probeAll(append(all(h.friend, h.server, 80, true), all(h.other, h.server, 80, false, "server")...)...)
	})
}

// The tests below run alone, as those of limits_test.go, for the same reason.

// TestHostileFloods has a pod send half-open connections, denied ones and noise
// as fast as it can. Nothing of it passes that policy forbids, the others'
// connections all succeed, and all is well afterwards.
func TestHostileFloods(t *testing.T) {
	for _, offload := range []bool{true, false} {
		name := map[bool]string{true: "offload", false: "inspect"}[offload]
		t.Run(name, func(t *testing.T) {
			h := newHostile(t, setup{change: func(c *control.Config) {
				c.Offload, c.MissRate, c.MissBurst, c.FlowsPerQueue = offload, 5000, 500, 1<<12
			}})
			h.serveBoth(h.friend, 80)
			stop, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				rnd := rand.New(rand.NewPCG(1, 2))
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					// A full queue is no matter here.
					_, _ = unix.Write(h.from.fd, h.noise(rnd, i))
				}
			}()
			talk := h.talk(h.friend, h.server, 4, 80)
			h.eventually("the flood is under way", func() bool {
				d := h.status().Drops
				return d["policy"] > 500 && d["spoofed-address"] > 100
			})
			for i := range 30 {
				if err := h.brief(t.Context(), h.friend, h.server, 4+2*(i%2), h.port()); err != nil {
					t.Errorf("connection %d during the flood: %v", i, err)
				}
			}
			talk.say("during the flood")
			close(stop)
			<-done
			h.eventually("the hostile pod may open flows again", func() bool {
				r, err := h.other.Namespace().ProbeTCP(t.Context(), at(h.other.v4, h.port()), at(h.server.v4, 90))
				return err == nil && r.Passed
			})
			if got := h.victim.arrived(func(p gopacket.Packet) bool {
				u, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
				ip, is4 := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
				return ok && is4 && u.DstPort == 80 && ip.SrcIP.Equal(net.IP(h.other.v4.AsSlice()))
			}); got > 0 {
				t.Errorf("%d packets for the forbidden port arrived", got)
			}
			h.probeAll(append(all(h.friend, h.server, 80, true), all(h.other, h.server, 80, false, "server")...)...)
		})
	}
}

// noise is a frame of the flood: a SYN to either port, a SYN in another's name,
// or bytes by chance behind an honest or a random header.
func (h *hostile) noise(rnd *rand.Rand, i int) []byte {
	eth := make([]byte, 14, 80)
	copy(eth, h.hop)
	copy(eth[6:], h.from.mac)
	eth[12], eth[13] = 8, 0
	ip := make([]byte, 20)
	ip[0], ip[3], ip[8], ip[9] = 0x45, 40, 64, 6
	copy(ip[12:], h.other.v4.AsSlice())
	copy(ip[16:], h.server.v4.AsSlice())
	if i%8 == 3 {
		other := netip.AddrFrom4([4]byte{10, byte(rnd.Uint32()), byte(rnd.Uint32()), 1})
		copy(ip[12:], other.AsSlice())
	}
	sum := uint32(0)
	for at := 0; at < 20; at += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[at:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint32(tcp, rnd.Uint32())
	binary.BigEndian.PutUint16(tcp[2:], []uint16{80, 90}[i%2])
	tcp[12], tcp[13] = 5<<4, 2
	f := append(append(eth, ip...), tcp...)
	switch i % 8 {
	case 5: // header by chance
		binary.BigEndian.PutUint64(f[14:], rnd.Uint64())
	case 6: // rest by chance
		binary.BigEndian.PutUint64(f[34:], rnd.Uint64())
		binary.BigEndian.PutUint64(f[42:], rnd.Uint64())
	case 7: // all by chance, and of any kind
		binary.BigEndian.PutUint16(f[12:], []uint16{0x86dd, 0x0806, 0x88cc, uint16(rnd.Uint32())}[rnd.IntN(4)])
		for at := 14; at+8 <= len(f); at += 8 {
			binary.BigEndian.PutUint64(f[at:], rnd.Uint64())
		}
	}
	return f
}
