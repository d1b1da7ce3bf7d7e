package dataplane

import (
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/sluice-net/sluice/bench/pmc"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/dataplane/xsk"
)

// Two local pods: a may reach b on TCP 80 and UDP 53, everything else into b
// is denied; a itself is not isolated. out is an address of no pod, node the
// node's own.
var (
	addrA = netip.MustParseAddr("10.0.0.1")
	addrB = netip.MustParseAddr("10.0.0.2")
	out   = netip.MustParseAddr("192.0.2.7")
	node  = netip.MustParseAddr("192.0.2.1")
)

const (
	slotA endpoint.ID = 1
	slotB endpoint.ID = 2
)

var (
	macA  = endpoint.MAC{2, 0, 0, 0, 0, 0xa}
	macB  = endpoint.MAC{2, 0, 0, 0, 0, 0xb}
	hostA = endpoint.MAC{2, 0, 0, 0, 1, 0xa}
	hostB = endpoint.MAC{2, 0, 0, 0, 1, 0xb}
)

func testSet(generation uint64, ports ...rule.PortRange) *rule.Set {
	return &rule.Set{
		Generation: generation, Peers: 1,
		Programs: []rule.Program{
			{},
			{Tiers: []rule.Tier{{
				Name:    "networkpolicy",
				Rules:   []rule.Rule{{Action: rule.Allow, Peers: []rule.PeerID{0}, Ports: ports, Cause: 1}},
				Default: rule.Deny, DefaultCause: 2,
			}}},
		},
		Endpoints: []rule.Endpoint{
			{ID: slotA, Ingress: 0, Egress: 0, Generation: 1},
			{ID: slotB, Ingress: 1, Egress: 0, Generation: uint32(generation)},
		},
		Identities: []rule.Identity{{0}},
		Addresses:  []rule.Address{{Addr: addrA, Identity: 0}},
		Causes:     make([]rule.Cause, 3),
	}
}

var web = []rule.PortRange{{Proto: 6, From: 80, To: 80}, {Proto: 17, From: 53, To: 53}}

// testWorker is a worker without a socket or kernel: frames are put where the
// receive ring would have put them.
type testWorker struct {
	*worker
	snap *snapshot
	t    testing.TB
}

func newTestWorker(t testing.TB) *testWorker {
	t.Helper()
	cfg := Default()
	cfg.Offload = false
	cfg.Flow.Capacity = 1 << 12
	w, err := newWorker(0, &cfg, nil, new(atomic.Pointer[snapshot]), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	if w.umem, err = xsk.NewUMEM(xsk.UMEMConfig{Frames: 1024, FrameSize: 2048}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.umem.Close(); err != nil {
			t.Error(err)
		}
	})
	tw := &testWorker{worker: w, t: t}
	tw.publish(testSet(1, web...))
	tw.tick()
	return tw
}

func (w *testWorker) publish(set *rule.Set) {
	w.t.Helper()
	table, err := classify.Build(set)
	if err != nil {
		w.t.Fatal(err)
	}
	p := &Plane{seed: 1, table: table, host: newHostTable(1, []netip.Addr{node}), slots: []slot{{}, {
		used: true, ready: true, gen: set.Endpoints[0].Generation,
		ep: endpoint.Endpoint{ID: slotA, Addrs: []netip.Addr{addrA}, Link: endpoint.Link{MAC: macA, HostMAC: hostA}},
	}, {
		used: true, ready: true, gen: set.Endpoints[1].Generation,
		ep: endpoint.Endpoint{ID: slotB, Addrs: []netip.Addr{addrB}, Link: endpoint.Link{MAC: macB, HostMAC: hostB}},
	}}}
	p.refresh()
	w.snap = p.snap.Load()
}

// put makes the frames the next burst.
func (w *testWorker) put(frames ...[]byte) {
	b := &w.b
	b.n, b.nDescs = len(frames), len(frames)
	for i, f := range frames {
		addr := uint64(i * 2048)
		copy(w.umem.Bytes(addr, uint32(len(f))), f)
		b.descs[i] = xsk.Desc{Addr: addr, Len: uint32(len(f))}
		b.pkts[i] = pkt{desc: uint16(i), descs: 1, length: uint32(len(f)), frame: w.umem.Bytes(addr, uint32(len(f)))}
	}
}

// judge puts one frame through and returns what became of it.
func (w *testWorker) judgeOne(f []byte) *pkt {
	w.put(f)
	w.process(w.snap)
	return &w.b.pkts[0]
}

type segment struct {
	hook             event.Hook
	slot             endpoint.ID
	src, dst         netip.Addr
	sport, dport     uint16
	syn, ack, fin    bool
	rst, udp, bridge bool
}

// frame builds what divert would have sent up.
func (s segment) frame(t testing.TB) []byte {
	t.Helper()
	eth := &layers.Ethernet{
		SrcMAC: net.HardwareAddr(hostA[:]), DstMAC: net.HardwareAddr{0x40 | byte(s.hook), 0, 0, 0, 0, byte(s.slot)},
		EthernetType: layers.EthernetTypeIPv4,
	}
	if s.bridge {
		eth.SrcMAC = net.HardwareAddr(macB[:])
	}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: s.src.AsSlice(), DstIP: s.dst.AsSlice()}
	var l4 gopacket.SerializableLayer
	if s.udp {
		ip.Protocol = layers.IPProtocolUDP
		u := &layers.UDP{SrcPort: layers.UDPPort(s.sport), DstPort: layers.UDPPort(s.dport)}
		_ = u.SetNetworkLayerForChecksum(ip)
		l4 = u
	} else {
		tcp := &layers.TCP{SrcPort: layers.TCPPort(s.sport), DstPort: layers.TCPPort(s.dport),
			SYN: s.syn, ACK: s.ack, FIN: s.fin, RST: s.rst, Window: 1000}
		_ = tcp.SetNetworkLayerForChecksum(ip)
		l4 = tcp
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, eth, ip, l4, gopacket.Payload("payload")); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// from and to build segments between a and b.
func aToB(dport uint16) segment {
	return segment{hook: event.FromPod, slot: slotA, src: addrA, dst: addrB, sport: 40000, dport: dport}
}

func bToA(sport uint16) segment {
	return segment{hook: event.FromPod, slot: slotB, src: addrB, dst: addrA, sport: sport, dport: 40000}
}

func TestJudge(t *testing.T) {
	syn := func(s segment) segment { s.syn = true; return s }
	ack := func(s segment) segment { s.ack = true; return s }
	udp := func(s segment) segment { s.udp = true; return s }
	tests := []struct {
		name   string
		s      segment
		verb   verb
		reason stat.Reason
	}{
		{"allowed port", syn(aToB(80)), verbShortcut, stat.OK},
		{"denied port", syn(aToB(81)), verbDrop, stat.Policy},
		{"allowed udp", udp(aToB(53)), verbShortcut, stat.OK},
		{"denied udp", udp(aToB(80)), verbDrop, stat.Policy},
		{"pod to outside", syn(segment{slot: slotA, src: addrA, dst: out, sport: 1, dport: 81}), verbResume, stat.OK},
		{"outside to pod", syn(segment{hook: event.ToPod, slot: slotB, src: out, dst: addrB, sport: 1, dport: 80}), verbDrop, stat.Policy},
		{"outside to open pod", syn(segment{hook: event.ToPod, slot: slotA, src: out, dst: addrA, sport: 1, dport: 80}), verbResume, stat.OK},
		{"spoofed source", syn(segment{slot: slotA, src: out, dst: addrB, sport: 1, dport: 80}), verbDrop, stat.SpoofedAddress},
		{"unknown slot", syn(segment{slot: 9, src: addrA, dst: addrB, sport: 1, dport: 80}), verbDrop, stat.NotReady},
		{"to itself", syn(segment{hook: event.ToPod, slot: slotB, src: addrB, dst: addrB, sport: 1, dport: 9}), verbDrop, stat.SpoofedAddress},
		{"from itself", syn(segment{slot: slotB, src: addrB, dst: addrB, sport: 1, dport: 9}), verbDrop, stat.SpoofedAddress},
		{"to another by this pod's MAC", syn(segment{hook: event.ToPod, slot: slotB, src: addrA, dst: out, sport: 1, dport: 80}), verbDrop, stat.Misdirected},
		{"reply without a flow is judged as a flow", ack(bToA(80)), verbResume, stat.OK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newTestWorker(t)
			p := w.judgeOne(tt.s.frame(t))
			if p.verb != tt.verb || p.reason != tt.reason {
				t.Errorf("verb %d, reason %v; want %d, %v", p.verb, p.reason, tt.verb, tt.reason)
			}
		})
	}
}

// A tightened policy cuts a live flow for both sides, and the other side's
// packets don't open it again as a flow of their own; loosened, it goes on.
func TestRejudge(t *testing.T) {
	w := newTestWorker(t)
	syn := aToB(80)
	syn.syn = true
	data, reply := aToB(80), bToA(80)
	data.ack, reply.ack = true, true
	step := func(what string, s segment, want verb) {
		t.Helper()
		if p := w.judgeOne(s.frame(t)); p.verb != want {
			t.Errorf("%s: verb %d (%v), want %d", what, p.verb, p.reason, want)
		}
	}
	step("syn", syn, verbShortcut)
	step("reply", reply, verbShortcut)
	step("data", data, verbShortcut)
	w.publish(testSet(2))
	step("reply after tightening", reply, verbDrop)
	step("data after tightening", data, verbDrop)
	step("reply again", reply, verbDrop)
	w.publish(testSet(3, web...))
	step("data after loosening", data, verbShortcut)
	step("reply after loosening", reply, verbShortcut)
}

// The flow that a burst's first packet opens is there for its others.
func TestBurstOfOneFlow(t *testing.T) {
	w := newTestWorker(t)
	var frames [][]byte
	for range 8 {
		s := aToB(53)
		s.udp = true
		frames = append(frames, s.frame(t))
	}
	w.put(frames...)
	w.process(w.snap)
	if n := w.flows.Len(); n != 1 {
		t.Errorf("%d flows, want 1", n)
	}
	for i := range w.b.pkts[:8] {
		if w.b.pkts[i].verb != verbShortcut {
			t.Errorf("packet %d: verb %d", i, w.b.pkts[i].verb)
		}
	}
}

func mixedBurst(t testing.TB, n int) [][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	var frames [][]byte
	for i := range n {
		s := aToB(80)
		s.sport = uint16(1024 + i)
		s.ack = true
		if rng.IntN(4) == 0 {
			s.dport = 81 // denied
		}
		frames = append(frames, s.frame(t))
	}
	return frames
}

func TestProcessDoesNotAllocate(t *testing.T) {
	w := newTestWorker(t)
	frames := mixedBurst(t, burstSize)
	fresh := uint16(0)
	if n := testing.AllocsPerRun(100, func() {
		w.put(frames...)
		// New flows as well as known ones.
		for i := range w.b.pkts[:8] {
			fresh++
			w.b.pkts[i].frame[34], w.b.pkts[i].frame[35] = byte(fresh>>8), byte(fresh)
		}
		w.process(w.snap)
		for i := range w.b.n {
			if p := &w.b.pkts[i]; p.verb != verbDrop {
				w.address(w.snap, p, &w.b.hdrs[i])
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations a burst", n)
	}
}

// BenchmarkProcess is the cost a packet of parse, look-up, judgement and
// address, in bursts of 64 of known flows: inspect mode without the kernel.
func BenchmarkProcess(b *testing.B) {
	w := newTestWorker(b)
	var frames [][]byte
	for i := range burstSize {
		s := aToB(80)
		s.sport, s.ack = uint16(1024+i), true
		frames = append(frames, s.frame(b))
	}
	w.put(frames...)
	saved := w.b
	b.ReportAllocs()
	defer pmc.Count(b)()
	for b.Loop() {
		w.b.pkts, w.b.n = saved.pkts, saved.n
		for i := range frames {
			copy(w.b.pkts[i].frame[:14], frames[i][:14])
		}
		w.process(w.snap)
		for i := range w.b.n {
			w.address(w.snap, &w.b.pkts[i], &w.b.hdrs[i])
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/burstSize, "ns/packet")
}
