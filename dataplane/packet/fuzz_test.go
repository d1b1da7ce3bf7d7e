package packet_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/sluice-net/sluice/bench/pmc"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// seeds are one frame of each kind that Parse knows.
func seeds() [][]byte {
	s := [][]byte{
		ip4(tTCP, tcp(packet.TCPSyn, 2, 4, 5, 180), 148, 4, 0, 0),
		ip4(tUDP, udp(10)),
		ip4(tSCTP, sctp()),
		ip4(tICMP, echo(8)),
		ip4(tICMP, icmp(3, 3, make([]byte, 4), quote4())),
		ip4(tTCP, tcp(packet.TCPAck), 131, 3, 4, 0),
		frag4(tTCP, 0, true, tcp(packet.TCPAck, 1, 1, 1, 1)),
		frag4(tUDP, 1480, false, make([]byte, 20)),
		ip6(tTCP, tcp(packet.TCPAck)),
		ip6(0, ext(60), ext(43), ext(51, 4, 0), set(cat(ext(44, 0), make([]byte, 8)), 1, 2), fragHeader(tUDP, 0, true), udp(8)),
		ip6(44, fragHeader(60, 64, true), make([]byte, 16)),
		ip6(tICMP6, icmp(1, 4, make([]byte, 4), quote6(60, ext(tTCP), tcp(packet.TCPAck)))),
		nd(ll6, dst6, icmp(135, 0, make([]byte, 4), dst6.AsSlice(), []byte{1, 1, 2, 0, 0, 0, 0, 1})),
		link6(1, ll6, mustAddr("ff02::16"), icmp(143, 0, make([]byte, 4))),
		eth(0x0806, arp(1)),
		eth(0x88a8, tag(7, 0x8100), tag(5, 0x0800), ip4(tTCP, tcp(packet.TCPAck))[l3:]),
	}
	return s
}

// FuzzParse holds Parse to what its callers rely on, whatever the bytes.
func FuzzParse(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s, uint16(len(s)))
		f.Add(s, uint16(9000))
	}
	f.Fuzz(func(t *testing.T, frame []byte, wireLen uint16) {
		before := bytes.Clone(frame)
		h := packet.Header{TTL: 7, Frag: packet.FragLater, ICMPError: true}
		r := packet.ParseLen(frame, int(wireLen), &h)
		if !bytes.Equal(frame, before) {
			t.Fatal("the frame was changed")
		}
		var again packet.Header
		if r2 := packet.ParseLen(frame, int(wireLen), &again); r2 != r || again != h {
			t.Fatalf("a used Header changes the result: %v %+v, %v %+v", r, h, r2, again)
		}
		if r >= stat.NumReasons {
			t.Fatalf("reason %d", r)
		}
		checkHeader(t, frame, max(int(wireLen), len(frame)), r, &h)
		if r := packet.ParseIP(frame, &again); r == stat.OK && (again.L3 != 0 || int(again.L4) > len(frame)) {
			t.Fatalf("as a bare packet: %+v", again)
		}
	})
}

func checkHeader(t *testing.T, frame []byte, wireLen int, r stat.Reason, h *packet.Header) {
	if r != stat.OK {
		return
	}
	switch h.EtherType {
	case packet.EtherTypeARP:
		if h.Class != packet.ClassARP || !h.Neighbour.HasMAC {
			t.Fatalf("ARP: %+v", h)
		}
		return
	case packet.EtherTypeIPv4:
		if !h.Src.Is4() || !h.Dst.Is4() || h.Proto == packet.ProtoICMPv6 {
			t.Fatalf("IPv4: %+v", h)
		}
	case packet.EtherTypeIPv6:
		if h.Src.Is4() || h.Dst.Is4() || h.Proto == packet.ProtoICMP {
			t.Fatalf("IPv6: %+v", h)
		}
	default:
		t.Fatalf("EtherType %x is OK", h.EtherType)
	}
	var bare packet.Header
	want := *h
	want.L3, want.L4, want.VLAN, want.Tags = 0, h.L4-h.L3, 0, 0
	if r := packet.ParseIP(frame[h.L3:], &bare); r != stat.OK || bare != want {
		t.Fatalf("without its frame: %v, %+v, want %+v", r, bare, want)
	}
	if int(h.L4) < int(h.L3)+20 || int(h.L4) > len(frame) || int(h.L3)+int(h.IPLen) > wireLen {
		t.Fatalf("L3 %d, L4 %d, length %d of %d (%d)", h.L3, h.L4, h.IPLen, len(frame), wireLen)
	}
	if h.Frag == packet.FragLater {
		if h.SrcPort != 0 || h.DstPort != 0 || h.FragOffset == 0 || h.ICMPError {
			t.Fatalf("later fragment: %+v", h)
		}
		return
	}
	src, dst, sport, dport := tuple(h.Key())
	if src != h.Src || dst != h.Dst || sport != h.SrcPort || dport != h.DstPort {
		t.Fatalf("key does not give back %+v", h)
	}
	if h.ICMPError && (h.Inner.Src != h.Dst || h.Inner.Src.Is4() != h.Src.Is4() || h.Class.Link()) {
		t.Fatalf("error: %+v", h)
	}
	if h.Proto == packet.ProtoTCP && h.TCPFlags&(packet.TCPSyn|packet.TCPRst|packet.TCPAck) == 0 {
		t.Fatalf("TCP flags %x", h.TCPFlags)
	}
	checkCopies(t, frame, h)
}

// checkCopies lets the functions that write have a go at a copy.
func checkCopies(t *testing.T, frame []byte, h *packet.Header) {
	c, hc := bytes.Clone(frame), *h
	if !packet.SetChecksums(c, &hc) {
		return
	}
	var after packet.Header
	if r := packet.Parse(c, &after); r != stat.OK || after != *h {
		t.Fatalf("after SetChecksums: %v, %+v, want %+v", r, after, h)
	}
	if !packet.ChecksumsOK(c, &hc) {
		t.Fatalf("%x: checksums written are wrong", c)
	}
	if packet.DecrementTTL(c, &hc) && !packet.ChecksumsOK(c, &hc) {
		t.Fatalf("%x: wrong after DecrementTTL", c)
	}
}

func tuple(k packet.Key, s packet.Side) (packet.Addr, packet.Addr, uint16, uint16) { return k.Tuple(s) }

// TestMutations is a fuzz round that every test run takes: seeds with a few
// bytes changed.
func TestMutations(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	var h packet.Header
	for _, s := range seeds() {
		for range 3000 {
			frame := bytes.Clone(s)
			for range 1 + r.IntN(4) {
				frame[12+r.IntN(len(frame)-12)] = byte(r.Uint32())
			}
			frame = frame[:len(frame)-r.IntN(2)*r.IntN(len(frame))]
			checkHeader(t, frame, len(frame), packet.Parse(frame, &h), &h)
		}
	}
}

func TestNoAllocs(t *testing.T) {
	frames := seeds()
	var h packet.Header
	hasher := packet.NewHasher([3]uint64{1, 2, 3})
	var sum uint64
	if n := testing.AllocsPerRun(100, func() {
		for _, f := range frames {
			packet.Parse(f, &h)
			k, _ := h.Key()
			inner, _ := h.InnerKey()
			sum += hasher.Hash(&k) + hasher.Hash(&inner) + uint64(h.ClassifyPort())
			h.TTL = 64
			packet.DecrementTTL(f, &h)
			packet.SetChecksums(f, &h)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
	if sum == 0 {
		t.Error("no key was hashed")
	}
}

func BenchmarkParse(b *testing.B) {
	for _, c := range []struct {
		name  string
		frame []byte
	}{
		{"tcp4", ip4(tTCP, tcp(packet.TCPAck))},
		{"udp4", ip4(tUDP, udp(18))},
		{"tcp6", ip6(tTCP, tcp(packet.TCPAck))},
		{"echo4", ip4(tICMP, echo(8))},
		{"error4", ip4(tICMP, icmp(3, 3, make([]byte, 4), quote4()))},
		{"ext6", ip6(0, ext(60), ext(tTCP), tcp(packet.TCPAck))},
		{"arp", eth(0x0806, arp(1))},
	} {
		b.Run(c.name, func(b *testing.B) {
			var h packet.Header
			defer pmc.Count(b)()
			for b.Loop() {
				if packet.Parse(c.frame, &h) != stat.OK {
					b.Fatal("not OK")
				}
			}
		})
	}
}

// BenchmarkKeyHash alternates at random between the two directions of flows,
// as traffic does.
func BenchmarkKeyHash(b *testing.B) {
	r := rand.New(rand.NewPCG(8, 9))
	hs := make([]packet.Header, 1024)
	for i := range hs {
		packet.Parse(ip4(tTCP, tcp(packet.TCPAck)), &hs[i])
		if r.IntN(2) == 0 {
			hs[i].Src, hs[i].Dst = hs[i].Dst, hs[i].Src
		}
	}
	hasher := packet.NewHasher([3]uint64{1, 2, 3})
	keys := make([]packet.Key, len(hs))
	var sum uint64
	defer pmc.Count(b)()
	for b.Loop() {
		for i := range hs {
			side := hs[i].KeyTo(&keys[i])
			sum += hasher.Hash(&keys[i]) + uint64(side)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(hs)), "ns/key")
	_ = sum
}
