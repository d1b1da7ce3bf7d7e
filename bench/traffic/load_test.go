package traffic_test

import (
	"bytes"
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
				if a == traffic.Fragments && ip.Flags&layers.IPv4MoreFragments == 0 && ip.FragOffset == 0 {
					t.Fatalf("got a whole packet: %v", p)
				}
				if ip.FragOffset > 0 {
					later++
				}
			}
			if len(distinct) < len(l.Frames)/2 {
				t.Errorf("%d of %d frames are distinct", len(distinct), len(l.Frames))
			}
			if a == traffic.Fragments && later < len(l.Frames)/2 {
				t.Errorf("only %d are later fragments", later)
			}
			// An independent parser is more lenient with one kind or another.
			if a == traffic.Malformed && bad < len(l.Frames)*3/4 {
				t.Errorf("only %d of %d are malformed", bad, len(l.Frames))
			}
		})
	}
	if _, err := traffic.Attack("teardrop").Load(macA, macB, addrA, addrB); err == nil || !strings.Contains(err.Error(), "teardrop") {
		t.Errorf("unknown attack: %v", err)
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
