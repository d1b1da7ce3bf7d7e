package traffic_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/sluice-net/sluice/bench/traffic"
)

var (
	macA  = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	macB  = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	addrA = netip.MustParseAddr("192.0.2.1")
	addrB = netip.MustParseAddr("192.0.2.2")

	addrA6 = netip.MustParseAddr("2001:db8::1")
	addrB6 = netip.MustParseAddr("2001:db8::2")
)

func mix(flows int, zipf float64, sizes ...traffic.SizeShare) traffic.Mix {
	return traffic.Mix{FromMAC: macA, ToMAC: macB, From: addrA, To: addrB, Sizes: sizes, Flows: flows, Zipf: zipf}
}

// decode decodes a frame and has another implementation check the header's
// checksum.
func decode(t *testing.T, frame []byte) (*layers.IPv4, gopacket.Packet) {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	ip, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	if !ok {
		t.Fatalf("no IPv4 in %x: %v", frame, p.ErrorLayer())
	}
	again := gopacket.NewSerializeBuffer()
	copied := *ip
	if err := copied.SerializeTo(again, gopacket.SerializeOptions{ComputeChecksums: true}); err != nil {
		t.Fatal(err)
	}
	if copied.Checksum != ip.Checksum {
		t.Fatalf("checksum %#x, want %#x", ip.Checksum, copied.Checksum)
	}
	return ip, p
}

// checkSum has another implementation make the checksums of a frame anew, and
// compares. None, of UDP over IPv4, is right as well.
func checkSum(t *testing.T, frame []byte) {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	network, ok := p.NetworkLayer().(interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	})
	if !ok {
		t.Fatalf("no IP in %x", frame)
	}
	var out []gopacket.SerializableLayer
	switch l := p.TransportLayer().(type) {
	case *layers.UDP:
		if _, v4 := network.(*layers.IPv4); v4 && l.Checksum == 0 {
			return
		}
		c := *l
		c.SetNetworkLayerForChecksum(network)
		out = append(out, &c, gopacket.Payload(l.Payload))
	case *layers.TCP:
		c := *l
		c.SetNetworkLayerForChecksum(network)
		out = append(out, &c, gopacket.Payload(l.Payload))
	default:
		t.Fatalf("no transport in %x", frame)
	}
	again := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(again, gopacket.SerializeOptions{ComputeChecksums: true}, out...); err != nil {
		t.Fatal(err)
	}
	l4 := append(append([]byte{}, p.TransportLayer().LayerContents()...), p.TransportLayer().LayerPayload()...)
	if !bytes.Equal(again.Bytes(), l4) {
		t.Fatalf("checksum in %x, want %x", l4, again.Bytes())
	}
}

func TestMix6(t *testing.T) {
	m := (pair{}).mix6(1000, traffic.SizeShare{Bytes: 66, Share: 1}, traffic.SizeShare{Bytes: 1518, Share: 1})
	m.FromMAC, m.ToMAC = macA, macB
	l, err := m.Load()
	if err != nil {
		t.Fatal(err)
	}
	flows := map[gopacket.Flow]bool{}
	for _, f := range l.Frames {
		checkSum(t, f)
		p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.NoCopy)
		ip, ok := p.NetworkLayer().(*layers.IPv6)
		udp, also := p.TransportLayer().(*layers.UDP)
		if !ok || !also || int(ip.Length) != len(f)-54 || int(udp.Length) != len(f)-54 || !ip.SrcIP.Equal(addrA6.AsSlice()) || !ip.DstIP.Equal(addrB6.AsSlice()) {
			t.Fatalf("got %v", p)
		}
		flows[p.TransportLayer().TransportFlow()] = true
	}
	if len(flows) != 1000 {
		t.Errorf("%d flows", len(flows))
	}
	back := l.Back(macB, macA)
	if len(back.Frames) != 1000 {
		t.Fatalf("%d answers to 1000 flows", len(back.Frames))
	}
	for i, f := range back.Frames[:20] {
		checkSum(t, f)
		p := gopacket.NewPacket(l.Frames[2*i], layers.LayerTypeEthernet, gopacket.NoCopy)
		q := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.NoCopy)
		if p.TransportLayer().TransportFlow() != q.TransportLayer().TransportFlow().Reverse() ||
			p.NetworkLayer().NetworkFlow() != q.NetworkLayer().NetworkFlow().Reverse() {
			t.Errorf("%v is answered by %v", p, q)
		}
	}
	m.Sizes, m.To = []traffic.SizeShare{{Bytes: 64, Share: 1}}, addrB
	_, err = m.Load()
	for _, want := range []string{"64 bytes", "one family"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %q", err, want)
		}
	}
}

func TestMix(t *testing.T) {
	for _, c := range []struct {
		name  string
		mix   traffic.Mix
		flows int
		sizes map[int]float64 // share by length without checksum
	}{
		{"one flow", mix(1, 0, traffic.SizeShare{Bytes: 64, Share: 1}), 1, map[int]float64{60: 1}},
		{"1k flows", mix(1000, 0, traffic.SizeShare{Bytes: 1518, Share: 1}), 1000, map[int]float64{1514: 1}},
		{"100k flows", mix(100000, 0, traffic.SizeShare{Bytes: 64, Share: 1}), 100000, map[int]float64{60: 1}},
		{"IMIX", mix(10, 0, traffic.IMIX...), 10, map[int]float64{60: 7. / 12, 590: 4. / 12, 1514: 1. / 12}},
		{"jumbo", mix(1, 0, traffic.SizeShare{Bytes: 9018, Share: 1}), 1, map[int]float64{9014: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := c.mix.Load()
			if err != nil {
				t.Fatal(err)
			}
			flows, sizes := map[string]bool{}, map[int]float64{}
			for _, i := range l.Order {
				f := l.Frames[i]
				flows[string(f[34:38])] = true
				sizes[len(f)] += 1 / float64(len(l.Order))
			}
			if len(flows) != c.flows {
				t.Errorf("%d flows", len(flows))
			}
			for size, share := range c.sizes {
				if got := sizes[size]; got < share-0.01 || got > share+0.01 {
					t.Errorf("%d bytes: share %.3f, want %.3f", size, got, share)
				}
			}
			for _, f := range l.Frames[:min(len(l.Frames), 20)] {
				ip, p := decode(t, f)
				udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
				if !ok || int(udp.Length) != len(f)-34 || int(ip.Length) != len(f)-14 ||
					!ip.SrcIP.Equal(addrA.AsSlice()) || !ip.DstIP.Equal(addrB.AsSlice()) {
					t.Fatalf("got %v", p)
				}
			}
		})
	}
}

// By Zipf's law the busiest flow has far more than its share, and most flows
// are seen seldom.
func TestMixZipf(t *testing.T) {
	l, err := mix(10000, 1.2, traffic.SizeShare{Bytes: 64, Share: 1}).Load()
	if err != nil {
		t.Fatal(err)
	}
	count := map[uint32]int{}
	most := 0
	for _, i := range l.Order {
		count[i]++
		most = max(most, count[i])
	}
	if share := float64(most) / float64(len(l.Order)); share < 0.1 || share > 0.5 {
		t.Errorf("the busiest flow has %.2f of all packets", share)
	}
	if len(count) < 1000 {
		t.Errorf("only %d flows were seen", len(count))
	}
}

func TestMixReportsEveryFault(t *testing.T) {
	_, err := mix(0, 0.5, traffic.SizeShare{Bytes: 63, Share: 1}, traffic.SizeShare{Bytes: 64}).Load()
	for _, want := range []string{"flows 0", "0.5", "63 bytes", "0 frames"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %q", err, want)
		}
	}
}

func TestBackAnswersEachFlowOnce(t *testing.T) {
	l, err := mix(50, 0, traffic.IMIX...).Load()
	if err != nil {
		t.Fatal(err)
	}
	back := l.Back(macB, macA)
	if len(back.Frames) != 50 {
		t.Fatalf("%d answers to 50 flows", len(back.Frames))
	}
	_, p := decode(t, l.Frames[0])
	_, q := decode(t, back.Frames[0])
	if p.TransportLayer().TransportFlow() != q.TransportLayer().TransportFlow().Reverse() ||
		p.NetworkLayer().NetworkFlow() != q.NetworkLayer().NetworkFlow().Reverse() {
		t.Errorf("%v is answered by %v", p, q)
	}
}

func TestAttacks(t *testing.T) {
	for _, a := range traffic.Attacks {
		t.Run(string(a), func(t *testing.T) {
			l, err := a.Load(macA, macB, addrA, addrB)
			if err != nil {
				t.Fatal(err)
			}
			distinct, later, bad := map[string]bool{}, 0, 0
			for _, f := range l.Frames {
				distinct[string(f[14:])] = true
				if a == traffic.Malformed {
					p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.NoCopy)
					udp, _ := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
					if p.ErrorLayer() != nil || p.Metadata().Truncated || udp != nil && int(udp.Length) != len(f)-34 || f[14]>>4 != 4 {
						bad++
					}
					continue
				}
				ip, p := decode(t, f)
				tcp, _ := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
				if a == traffic.SYNFlood && (tcp == nil || !tcp.SYN || tcp.ACK) {
					t.Fatalf("got %v", p)
				}
				if tcp != nil {
					checkSum(t, f[:14+ip.Length])
				}
				if a == traffic.Fragments && ip.Flags&layers.IPv4MoreFragments == 0 && ip.FragOffset == 0 {
					t.Fatalf("got a whole packet: %v", p)
				}
				if ip.FragOffset > 0 {
					later++
				}
			}
			mostly(t, "distinct", len(distinct), len(l.Frames)/2)
			if a == traffic.Fragments {
				mostly(t, "later fragments", later, len(l.Frames)/2)
			}
			// An independent parser is more lenient with one kind or another.
			if a == traffic.Malformed {
				mostly(t, "malformed", bad, len(l.Frames)*3/4)
			}
		})
	}
	if _, err := traffic.Attack("teardrop").Load(macA, macB, addrA, addrB); err == nil || !strings.Contains(err.Error(), "teardrop") {
		t.Errorf("unknown attack: %v", err)
	}
	if _, err := traffic.SYNFlood.Load(macA, macB, addrA, addrB6); err == nil {
		t.Error("from one family to another: no error")
	}
}

func mostly(t *testing.T, what string, n, least int) {
	t.Helper()
	if n < least {
		t.Errorf("only %d frames are %s, want %d", n, what, least)
	}
}

func TestAttacks6(t *testing.T) {
	for _, a := range traffic.Attacks {
		t.Run(string(a), func(t *testing.T) {
			l, err := a.Load(macA, macB, addrA6, addrB6)
			if err != nil {
				t.Fatal(err)
			}
			distinct, later, wrong := map[string]bool{}, 0, map[bool]int{}
			protocols := map[gopacket.LayerType]int{}
			for _, f := range l.Frames {
				distinct[string(f[14:])] = true
				if a == traffic.Malformed {
					wrong[whole6(f)]++
					continue
				}
				p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.NoCopy)
				ip, ok := p.NetworkLayer().(*layers.IPv6)
				if !ok || int(ip.Length) != len(f)-54 || !ip.SrcIP.Equal(addrA6.AsSlice()) || !ip.DstIP.Equal(addrB6.AsSlice()) {
					t.Fatalf("got %v", p)
				}
				if a == traffic.Fragments {
					frag, ok := p.Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment)
					if !ok || !frag.MoreFragments && frag.FragmentOffset == 0 || frag.NextHeader != layers.IPProtocolUDP {
						t.Fatalf("no fragment: %v", p)
					}
					if frag.FragmentOffset > 0 {
						later++
					}
					continue
				}
				checkSum(t, f)
				protocols[p.TransportLayer().LayerType()]++
				if tcp, _ := p.TransportLayer().(*layers.TCP); a == traffic.SYNFlood && (tcp == nil || !tcp.SYN || tcp.ACK) {
					t.Fatalf("got %v", p)
				}
			}
			mostly(t, "distinct", len(distinct), len(l.Frames)/2)
			switch a {
			case traffic.Fragments:
				mostly(t, "later fragments", later, len(l.Frames)/2)
			case traffic.RandomTuples:
				mostly(t, "UDP", protocols[layers.LayerTypeUDP], len(l.Frames)/3)
				mostly(t, "TCP", protocols[layers.LayerTypeTCP], len(l.Frames)/3)
			case traffic.Malformed:
				if wrong[true] > 0 {
					t.Errorf("%d frames have nothing wrong with them", wrong[true])
				}
			}
		})
	}
}

// whole6 is a parser of IPv6 that is as strict as RFC 8200 and RFC 5095 allow:
// what it takes is a whole packet of UDP or TCP.
func whole6(f []byte) bool {
	h := f[14:]
	n := int(binary.BigEndian.Uint16(h[4:]))
	if h[0]>>4 != 6 || n != len(h)-40 {
		return false
	}
	next, rest := h[6], h[40:]
	for first := true; ; first = false {
		switch next {
		case 0, 43, 60:
			if next == 0 && !first || len(rest) < 8 || next == 43 && rest[2] == 0 || len(rest) < 8+8*int(rest[1]) {
				return false
			}
			next, rest = rest[0], rest[8+8*int(rest[1]):]
		case 44:
			if len(rest) < 8 {
				return false
			}
			next, rest = rest[0], rest[8:]
		case 17:
			return len(rest) >= 8 && int(binary.BigEndian.Uint16(rest[4:])) == len(rest)
		case 6:
			return len(rest) >= 20 && rest[12]>>4 >= 5 && int(rest[12]>>4)*4 <= len(rest)
		default:
			return false
		}
	}
}

func TestReplay(t *testing.T) {
	whole, err := mix(3, 0, traffic.SizeShare{Bytes: 100, Share: 1}).Load()
	if err != nil {
		t.Fatal(err)
	}
	packets := append(whole.Frames, whole.Frames[0][:50], []byte("short"), bytes.Repeat([]byte{9}, 60))
	other := netip.MustParseAddr("198.51.100.7")
	for _, format := range []string{"pcap", "pcapng"} {
		t.Run(format, func(t *testing.T) {
			var file bytes.Buffer
			write := func(gopacket.CaptureInfo, []byte) error { return nil }
			flush := func() error { return nil }
			if format == "pcap" {
				w := pcapgo.NewWriter(&file)
				if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
					t.Fatal(err)
				}
				write = w.WritePacket
			} else {
				w, err := pcapgo.NewNgWriter(&file, layers.LinkTypeEthernet)
				if err != nil {
					t.Fatal(err)
				}
				write, flush = w.WritePacket, w.Flush
			}
			for i, p := range packets {
				info := gopacket.CaptureInfo{Timestamp: time.Unix(int64(i), 0), CaptureLength: len(p), Length: len(p)}
				if i == 3 {
					info.Length = 96 // cut by the capture
				}
				if err := write(info, p); err != nil {
					t.Fatal(err)
				}
			}
			if err := flush(); err != nil {
				t.Fatal(err)
			}
			l, left, err := traffic.Replay(&file, macB, macA, other, addrA)
			if err != nil || len(l.Frames) != 3 || left != 3 {
				t.Fatalf("%d frames, %d left out, %v; want 3 and 3", len(l.Frames), left, err)
			}
			for i, f := range l.Frames {
				ip, p := decode(t, f)
				if !ip.SrcIP.Equal(other.AsSlice()) || !ip.DstIP.Equal(addrA.AsSlice()) || !bytes.Equal(f[34:], packets[i][34:]) ||
					fmt.Sprint(p.LinkLayer().LinkFlow()) != macB.String()+"->"+macA.String() {
					t.Errorf("got %v", p)
				}
			}
		})
	}
	for name, data := range map[string]string{"empty": "", "text": "this is no capture at all, but text"} {
		if _, _, err := traffic.Replay(strings.NewReader(data), macA, macB, addrA, addrB); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
