package dataplane

import (
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/xdpprog"
)

// What a worker comes to know late of flows in the kernel's cache: of those that
// divert admitted, of ends that it saw, of what found no room.

// newCachingWorker has the real programs and maps, with room for so many flows.
func newCachingWorker(t *testing.T, flows int) *testWorker {
	needRoot(t)
	w := newTestWorker(t)
	w.cfg.Offload = true
	objs, _, err := xdpprog.Load(xdpprog.Config{PinPath: bpffs(t), Workers: 1, Offload: true, Shortcut: true, Flows: flows,
		Denied: 64, Admits: 64, Fragments: 64, Endpoints: 8, HeartbeatTimeout: 60e9, DenyTTL: 1e9})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { objs.Close() })
	w.objs = objs
	return w
}

// unboundSocket is an AF_XDP socket as a map takes it, that receives nothing.
func unboundSocket(t *testing.T) (fd int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_XDP, unix.XDP_RX_RING, 64)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// opens has a pair of ends open two flows, after which divert admits more.
func (w *testWorker) opens(s segment) {
	w.t.Helper()
	for s.sport = 1; s.sport <= 2; s.sport++ {
		if p := w.judgeOne(s.frame(w.t)); p.verb == verbDrop {
			w.t.Fatalf("dropped: %v", p.reason)
		}
	}
}

// cached writes a flow from a to b into the cache, as divert does when it admits one.
func (w *testWorker) cached(sport, dport uint16, proto packet.Proto, change func(v *xdpprog.FlowValue, side packet.Side)) (packet.Key, *xdpprog.FlowValue) {
	w.t.Helper()
	k, side := packet.MakeKey(packet.AddrFrom(addrA), packet.AddrFrom(addrB), sport, dport, proto)
	v := &xdpprog.FlowValue{Initiator: uint8(side), Flags: xdpprog.FlowShortcut, LastSeenNs: uint64(w.nowNs)}
	v.Slot[side], v.Slot[side.Other()] = uint32(slotA), uint32(slotB)
	v.Gen[side], v.Gen[side.Other()] = 1, 1
	v.Packets[side], v.TCPFlags[side] = 1, packet.TCPSyn
	change(v, side)
	w.write(k, v)
	return k, v
}

func (w *testWorker) write(k packet.Key, v *xdpprog.FlowValue) {
	w.t.Helper()
	if _, err := xdpprog.UpdateFlows(w.objs, []packet.Key{k}, []xdpprog.FlowValue{*v}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *testWorker) holds(k packet.Key) bool {
	var v xdpprog.FlowValue
	return xdpprog.LookupFlow(w.objs, &k, &v)
}

// age lets so many seconds go by without a packet.
func (w *testWorker) age(seconds int64) {
	w.nowNs += seconds * 1e9
	for range 2000 {
		w.sweep()
	}
}

func (w *testWorker) entries(k packet.Key) (n int) {
	for at := 0; w.flows.Scan(&at, 1<<20, func(e *flow.Entry) {
		if e.Key == k {
			n++
		}
	}); {
	}
	return n
}

// fill leaves no room in the table, for which nothing gives way.
func (w *testWorker) fill() (refs []flow.Ref) {
	w.t.Helper()
	for port := uint16(1); ; port++ {
		other, _ := packet.MakeKey(packet.AddrFrom(addrA), packet.AddrFrom(out), port, 80, packet.ProtoTCP)
		ref, ok := w.flows.Insert(&other, w.flows.Hash(&other), w.nowNs, new(flow.Entry))
		switch {
		case ok:
			w.flows.At(ref).Flags |= flow.Offloaded
			refs = append(refs, ref)
		case w.flows.Len() == w.flows.Cap():
			return refs
		} // else there was no room where this one would be
	}
}

// A flow that divert admitted and that finds no room in the table when its note is read
// leaves the cache, where it would stay for good.
func TestAdmittedWithoutRoom(t *testing.T) {
	w := newCachingWorker(t, 64)
	k, v := w.cached(40000, 80, packet.ProtoTCP, func(*xdpprog.FlowValue, packet.Side) {})
	w.fill()
	w.started(&xdpprog.Note{Key: noteKey(k), Kind: xdpprog.NoteStart, Initiator: v.Initiator, Slot: v.Slot, Gen: v.Gen, TCPFlags: packet.TCPSyn})
	w.offload.flush(w.worker)
	if w.entries(k) > 0 || w.holds(k) {
		t.Errorf("%d entries, in the cache %t", w.entries(k), w.holds(k))
	}
}

// An answer that comes up before the note of the flow that divert admitted passes,
// though nobody may open a flow its way.
func TestAnswerBeforeNote(t *testing.T) {
	w := newCachingWorker(t, 64)
	ask := segment{hook: event.FromPod, slot: slotB, src: addrB, dst: out, dport: 7000, udp: true}
	w.opens(ask)
	k, side := packet.MakeKey(packet.AddrFrom(addrB), packet.AddrFrom(out), 3000, 7000, packet.ProtoUDP)
	v := xdpprog.FlowValue{Initiator: uint8(side), LastSeenNs: uint64(w.nowNs)}
	v.Slot[side], v.Gen[side], v.Packets[side] = uint32(slotB), 1, 1
	w.write(k, &v)
	answer := segment{hook: event.ToPod, slot: slotB, src: out, dst: addrB, sport: 7000, dport: 3000, udp: true}
	if p := w.judgeOne(answer.frame(t)); p.verb != verbResume {
		t.Errorf("verb %d, reason %v", p.verb, p.reason)
	}
	answer.dport++
	if p := w.judgeOne(answer.frame(t)); p.reason != stat.Policy {
		t.Errorf("to another port: verb %d, reason %v", p.verb, p.reason)
	}
}

// A pod's address has moved to another slot: its flows are judged once more, and
// those of the old one are gone, also if nobody knows of them but the cache.
func TestMovedSlot(t *testing.T) {
	for _, peer := range []netip.Addr{addrA, out} {
		for _, forgotten := range []bool{false, true} {
			w := newCachingWorker(t, 4096)
			s := segment{hook: event.FromPod, slot: slotB, src: addrB, dst: peer, dport: 7000, udp: true}
			w.opens(s)
			s.sport = 2
			p := w.judgeOne(s.frame(t))
			key := p.key
			if forgotten {
				w.flows.Remove(p.ref)
			}
			const moved endpoint.ID = 3
			set := testSet(1, web...)
			set.Endpoints[1].ID = moved
			table, err := classify.Build(set)
			if err != nil {
				t.Fatal(err)
			}
			slots := make([]slot, moved+1)
			slots[slotA] = slot{used: true, ready: true, gen: 1, ep: endpoint.Endpoint{ID: slotA, Addrs: []netip.Addr{addrA}, Link: endpoint.Link{MAC: macA, HostMAC: hostA}}}
			slots[moved] = slot{used: true, ready: true, gen: 1, ep: endpoint.Endpoint{ID: moved, Addrs: []netip.Addr{addrB}, Link: endpoint.Link{MAC: macB, HostMAC: hostB}}}
			plane := &Plane{seed: 1, table: table, host: newHostTable(1, []netip.Addr{node}), slots: slots}
			plane.refresh()
			w.snap = plane.snap.Load()
			w.counts.Publish()
			before := w.counts.Snapshot().Counts[stat.FlowsNew]
			s.slot = moved
			if p = w.judgeOne(s.frame(t)); p.verb == verbDrop {
				t.Errorf("to %v, forgotten %t: dropped: %v", peer, forgotten, p.reason)
			}
			w.counts.Publish()
			if n := w.counts.Snapshot().Counts[stat.FlowsNew] - before; n != 1 || w.entries(key) != 1 {
				t.Errorf("to %v, forgotten %t: %d new flows, %d entries", peer, forgotten, n, w.entries(key))
			}
			var v xdpprog.FlowValue
			if !xdpprog.LookupFlow(w.objs, &key, &v) || v.Slot[p.side] != uint32(moved) {
				t.Errorf("to %v, forgotten %t: in the cache for slots %v", peer, forgotten, v.Slot)
			}
		}
	}
}

// Each packet of a burst is judged as often as one can be: as the first of a flow,
// as one of a flow that divert admitted under earlier rules, and as the next between
// its ports, because that one was reset.
func TestJudgedThrice(t *testing.T) {
	w := newCachingWorker(t, 4096)
	syn := aToB(80)
	syn.syn = true
	w.opens(syn)
	var frames [][]byte
	for i := range uint16(burstSize) {
		syn.sport = 3000 + i
		frames = append(frames, syn.frame(t))
		w.cached(syn.sport, 80, packet.ProtoTCP, func(v *xdpprog.FlowValue, side packet.Side) {
			v.Ended, v.Packets[side.Other()], v.TCPFlags[side.Other()] = xdpprog.EndedRst, 1, packet.TCPRst|packet.TCPAck
		})
	}
	w.publish(testSet(2, web...))
	w.put(frames...)
	w.process(w.snap)
	for i := range frames {
		if p := &w.b.pkts[i]; p.verb != verbShortcut || w.flows.At(p.ref).State != flow.SynSent {
			t.Fatalf("packet %d: verb %d (%v)", i, p.verb, p.reason)
		}
	}
	if len(w.b.pending) != len(w.b.judged) {
		t.Errorf("%d judgements, want %d", len(w.b.pending), len(w.b.judged))
	}
}

// Packets of a flow that divert admitted come before its note, all in one burst: it
// has one entry, which ends with it.
func TestAdmittedTogether(t *testing.T) {
	w := newCachingWorker(t, 4096)
	syn := aToB(80)
	syn.syn = true
	w.opens(syn)
	key, v := w.cached(40000, 80, packet.ProtoTCP, func(*xdpprog.FlowValue, packet.Side) {})
	answer := bToA(80)
	answer.syn, answer.ack = true, true
	w.put(answer.frame(t), answer.frame(t), answer.frame(t))
	w.process(w.snap)
	if n := w.entries(key); n != 1 {
		t.Errorf("%d entries", n)
	}
	w.started(&xdpprog.Note{Key: noteKey(key), Kind: xdpprog.NoteStart, Initiator: v.Initiator, Slot: v.Slot, Gen: v.Gen, TCPFlags: packet.TCPSyn})
	const all = packet.TCPSyn | packet.TCPAck | packet.TCPFin
	v.Ended, v.Packets, v.TCPFlags = xdpprog.EndedFinA|xdpprog.EndedFinB, [2]uint64{5, 5}, [2]uint8{all, all}
	w.write(key, v)
	w.ended(&xdpprog.Note{Key: noteKey(key), Kind: xdpprog.NoteEnd, Ended: v.Ended, TCPFlags: all})
	w.age(60)
	if n := w.entries(key); n != 0 || w.holds(key) {
		t.Errorf("a minute later: %d entries, in the cache %t", n, w.holds(key))
	}
}

// Nothing stays in the cache that no worker has an entry of.
func TestNothingLeftInCache(t *testing.T) {
	udp := aToB(53)
	udp.udp = true
	fill := func(w *testWorker, n int) (keys []packet.Key) {
		for i := range n {
			k, _ := w.cached(uint16(100+i), 9, packet.ProtoUDP, func(*xdpprog.FlowValue, packet.Side) {})
			keys = append(keys, k)
		}
		return keys
	}
	for name, prepare := range map[string]func(t *testing.T, w *testWorker) packet.Key{
		// It found no room, and when there is some again divert is first to know.
		"admitted later": func(t *testing.T, w *testWorker) packet.Key {
			objs := w.objs
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(objs.PutEndpoint(uint32(slotA), xdpprog.Endpoint{Ifindex: 1, Gen: 1, MAC: macA, HostMAC: hostA}))
			must(objs.PutEndpoint(uint32(slotB), xdpprog.Endpoint{Ifindex: 77, Gen: 1, MAC: macB, HostMAC: hostB}))
			must(objs.BindLink(1, uint32(slotA)))
			must(objs.SetPort(0, 10))
			fd := unboundSocket(t)
			t.Cleanup(func() { unix.Close(fd) })
			must(objs.SetSocket(0, fd))
			objs.Beat(0, w.nowNs)
			w.opens(udp)
			others := fill(w, 62)
			s := udp
			s.sport = 3
			p := w.judgeOne(s.frame(t))
			e := w.flows.At(p.ref)
			if p.verb != verbShortcut || e.Flags&flow.Offloaded != 0 {
				t.Fatalf("verb %d, flags %#x", p.verb, e.Flags)
			}
			_, err := xdpprog.DeleteFlows(objs, others)
			must(err)
			frame := s.frame(t)
			copy(frame[0:6], hostA[:])
			copy(frame[6:12], macA[:])
			own, err := unix.FcntlInt(uintptr(objs.FilterFD(xdpprog.PodIngress)), unix.F_DUPFD_CLOEXEC, 0)
			must(err)
			prog, err := ebpf.NewProgramFromFD(own)
			must(err)
			defer prog.Close()
			_, err = prog.Run(&ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Repeat: 1})
			must(err)
			notes, err := objs.Notes()
			must(err)
			defer notes.Close()
			list := make([]xdpprog.Note, 8)
			n, err := notes.Read(list, 1e9)
			must(err)
			if n != 1 || list[0].Kind != xdpprog.NoteStart {
				t.Fatalf("notes: %+v", list[:n])
			}
			w.started(&list[0])
			return e.Key
		},
		// It is closed when the rules change.
		"judged anew": func(t *testing.T, w *testWorker) packet.Key {
			for _, s := range []segment{{syn: true}, {slot: slotB, syn: true, ack: true}, {ack: true}, {rst: true}} {
				way := aToB(80)
				if s.slot == slotB {
					way = bToA(80)
				}
				way.syn, way.ack, way.rst = s.syn, s.ack, s.rst
				w.judgeOne(way.frame(t))
			}
			key := w.b.pkts[0].key
			if w.holds(key) {
				t.Error("reset, and in the cache")
			}
			w.publish(testSet(2, web...))
			late := bToA(80)
			late.ack = true
			w.judgeOne(late.frame(t))
			return key
		},
		// It is written anew, behind a flow that finds no room.
		"behind a new one": func(t *testing.T, w *testWorker) packet.Key {
			s := udp
			key := w.judgeOne(s.frame(t)).key
			fill(w, 63)
			w.publish(testSet(2, web...))
			abroad := segment{hook: event.FromPod, slot: slotA, src: addrA, dst: out, sport: 5, dport: 5, udp: true}
			w.put(abroad.frame(t), s.frame(t))
			w.process(w.snap)
			var v xdpprog.FlowValue
			if !xdpprog.LookupFlow(w.objs, &key, &v) || v.Gen != w.flows.At(w.flows.Find(&key)).Gen {
				t.Errorf("in the cache with generations %v", v.Gen)
			}
			return key
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newCachingWorker(t, 64)
			key := prepare(t, w)
			w.age(31)
			w.age(400)
			if n := w.entries(key); n != 0 || w.holds(key) {
				t.Errorf("at its end: %d entries, in the cache %t", n, w.holds(key))
			}
		})
	}
}

// ipFrame builds what divert would have sent up.
func ipFrame(t *testing.T, hook event.Hook, slot endpoint.ID, ip *layers.IPv4, more ...gopacket.SerializableLayer) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: hostA[:], DstMAC: net.HardwareAddr{0x40 | byte(hook), 0, 0, 0, 0, byte(slot)}, EthernetType: layers.EthernetTypeIPv4}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		append([]gopacket.SerializableLayer{eth, ip}, more...)...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// A flow that was cut is cut for as long as anybody sends on it, and its other end
// can't make a flow of its own of it.
func TestCutStays(t *testing.T) {
	w := newTestWorker(t)
	ask, answer := aToB(53), bToA(53)
	ask.udp, answer.udp = true, true
	w.judgeOne(ask.frame(t))
	w.judgeOne(answer.frame(t))
	w.publish(testSet(2))
	for second := range 400 {
		w.nowNs += 1e9
		for range 100 {
			w.sweep()
		}
		if p := w.judgeOne(answer.frame(t)); p.verb != verbDrop {
			t.Fatalf("an answer passes after %d s", second+1)
		}
	}
	w.age(400)
	if n := w.flows.Len(); n != 0 {
		t.Errorf("%d flows when nobody sends any more", n)
	}
}

// An answer to an ICMP query that is no echo is judged as that query.
func TestQueryJudgedAnew(t *testing.T) {
	const timestamp, timestampReply = 13, 14
	w := newTestWorker(t)
	query := func(typ uint16) rule.PortRange {
		return rule.PortRange{Proto: uint8(packet.ProtoICMP), From: typ << 8, To: typ<<8 | 255}
	}
	icmp := func(slot endpoint.ID, src, dst netip.Addr, typ uint8) []byte {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		return ipFrame(t, event.FromPod, slot, ip, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(typ, 0), Id: 7}, gopacket.Payload(make([]byte, 12)))
	}
	ask, answer := icmp(slotA, addrA, addrB, timestamp), icmp(slotB, addrB, addrA, timestampReply)
	w.publish(testSet(1, query(echoRequest4), query(timestamp)))
	for _, f := range [][]byte{ask, answer} {
		if p := w.judgeOne(f); p.verb == verbDrop {
			t.Fatalf("dropped: %v", p.reason)
		}
	}
	w.publish(testSet(2, query(echoRequest4)))
	for _, f := range [][]byte{answer, ask} {
		if p := w.judgeOne(f); p.verb != verbDrop {
			t.Error("passes where echo is allowed only")
		}
	}
}

// An agent whose tables hold less than its predecessor's takes the flows out of the
// cache that it has no room for.
func TestAdoptsWhatFits(t *testing.T) {
	cfg := testConfig(t)
	first := openPlane(t, cfg, &heldFilters{})
	w := &testWorker{worker: first.workers[0], t: t}
	w.tick()
	for i := range 100 {
		w.cached(uint16(1000+i), 80, packet.ProtoUDP, func(*xdpprog.FlowValue, packet.Side) {})
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Flow.Capacity = 40
	next := openPlane(t, cfg, &heldFilters{})
	defer next.Close()
	held, flows := 0, next.workers[0].flows
	if err := next.objs.EachFlow(func(k *xdpprog.FlowKey, _ *xdpprog.FlowValue) {
		key := keyFrom(k)
		if held++; flows.Find(&key) == flow.NoRef {
			t.Errorf("%+v is in the cache, and nobody's", key)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if held == 0 || held != flows.Len() {
		t.Errorf("%d flows in the cache, %d in the table", held, flows.Len())
	}
}

// A pod that has lost an address has no flows there any more, and keeps the others.
func TestAddressTaken(t *testing.T) {
	cfg := testConfig(t)
	ownNamespace(t)
	addPod0(t, 300)
	p := openPlane(t, cfg, &heldFilters{})
	defer p.Close()
	six := netip.MustParseAddr("fd00::1")
	ep := endpoint.Endpoint{Namespace: "x", Name: "a", UID: "a", Addrs: []netip.Addr{addrA, six}, Link: endpoint.Link{Ifindex: 300, Name: "pod0", MAC: macA, HostMAC: hostA}}
	bind := func(addrs ...netip.Addr) uint32 {
		t.Helper()
		ep.Addrs = addrs
		id, _, err := p.Bind(ep)
		if err != nil {
			t.Fatal(err)
		}
		p.slots[id].ready = true
		kernel, err := p.objs.Endpoint(uint32(id))
		if err != nil || kernel.Gen&^notInForce != p.slots[id].gen {
			t.Fatalf("the kernel has generation %#x of %d, %v", kernel.Gen, p.slots[id].gen, err)
		}
		return p.slots[id].gen
	}
	both := bind(addrA, six)
	if again := bind(six, addrA); again != both {
		t.Errorf("generation %d after %d, with the same addresses", again, both)
	}
	one := bind(six)
	if one == both {
		t.Error("an address was taken, and its flows live")
	}
	if more := bind(six, addrA); more != one {
		t.Errorf("generation %d after %d, with an address more", more, one)
	}
}

// An echo with a code is judged by itself, whatever flow has its identifier.
func TestEchoWithCode(t *testing.T) {
	w := newTestWorker(t)
	w.publish(testSet(1, rule.PortRange{Proto: uint8(packet.ProtoICMP), From: echoRequest4 << 8, To: echoRequest4 << 8}))
	for _, c := range []struct {
		code uint8
		want verb
	}{{5, verbDrop}, {0, verbShortcut}, {5, verbDrop}, {0, verbShortcut}} {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: addrA.AsSlice(), DstIP: addrB.AsSlice()}
		p := w.judgeOne(ipFrame(t, event.FromPod, slotA, ip, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(echoRequest4, c.code), Id: 7}))
		if p.verb != c.want {
			t.Errorf("code %d: verb %d, want %d", c.code, p.verb, c.want)
		}
	}
}

// Neighbour discovery that a router might forward is for the node, or for nobody.
func TestDiscoversTheNode(t *testing.T) {
	pod, host, far := netip.MustParseAddr("2001:db8::10"), netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::1")
	w := newTestWorker(t)
	w.snap.local[slotA].own = append(w.snap.local[slotA].own, packet.AddrFrom(pod))
	w.snap.host = newHostTable(1, []netip.Addr{node, host})
	for _, c := range []struct {
		kind     uint8
		src, dst netip.Addr
		want     verb
		reason   stat.Reason
	}{
		{layers.ICMPv6TypeNeighborAdvertisement, pod, host, verbResume, stat.OK},
		{layers.ICMPv6TypeNeighborSolicitation, pod, host, verbResume, stat.OK},
		{layers.ICMPv6TypeNeighborAdvertisement, pod, far, verbDrop, stat.Malformed},
		{layers.ICMPv6TypeNeighborSolicitation, pod, far, verbDrop, stat.Malformed},
		{layers.ICMPv6TypeNeighborAdvertisement, far, host, verbDrop, stat.SpoofedAddress},
	} {
		eth := &layers.Ethernet{SrcMAC: hostA[:], DstMAC: net.HardwareAddr{0x40 | byte(event.FromPod), 0, 0, 0, 0, byte(slotA)}, EthernetType: layers.EthernetTypeIPv6}
		ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: c.src.AsSlice(), DstIP: c.dst.AsSlice()}
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(c.kind, 0)}
		if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		target := c.dst
		if c.kind == layers.ICMPv6TypeNeighborAdvertisement {
			target = c.src
		}
		buf := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, icmp,
			gopacket.Payload(append(make([]byte, 4), target.AsSlice()...))); err != nil {
			t.Fatal(err)
		}
		if p := w.judgeOne(buf.Bytes()); p.verb != c.want || p.reason != c.reason {
			t.Errorf("type %d, %v to %v: verb %d (%v), want %d (%v)", c.kind, c.src, c.dst, p.verb, p.reason, c.want, c.reason)
		}
	}
}

// An answer was denied, as it came too late for its flow; then the flow is opened again
// between the same ports, and is not to be cached, or finds no room there. Its answers
// are not taken for that.
func TestPardonsAnswers(t *testing.T) {
	for _, why := range []string{"not to be cached", "no room"} {
		w := newCachingWorker(t, 4)
		w.publish(testSet(1, web...))
		question := segment{hook: event.FromPod, slot: slotB, src: addrB, dst: addrA, sport: 40000, dport: 53, udp: true}
		answer := segment{hook: event.FromPod, slot: slotA, src: addrA, dst: addrB, sport: 53, dport: 40000, udp: true}
		denied := func(k packet.Key) bool {
			var v xdpprog.DenyValue
			return xdpprog.LookupDenied(w.objs, &k, &v)
		}
		if why == "no room" {
			for i := range uint16(64) {
				other := question
				other.sport = 1000 + i
				w.judgeOne(other.frame(t))
			}
		} else {
			w.snap.local[slotB].learns, w.snap.learning = true, true
		}
		if p := w.judgeOne(answer.frame(t)); p.verb != verbDrop || !denied(p.key) {
			t.Fatalf("%s: the answer comes first: verb %d, in the cache of denied flows %t", why, p.verb, denied(p.key))
		}
		p := w.judgeOne(question.frame(t))
		if p.verb == verbDrop || w.holds(p.key) || denied(p.key) {
			t.Errorf("%s: question: verb %d (%v), in the cache %t, the answer would still be denied %t", why, p.verb, p.reason, w.holds(p.key), denied(p.key))
		}
		// The same, all in one burst.
		answer.dport, question.sport = 7, 7
		w.put(answer.frame(t), question.frame(t))
		w.process(w.snap)
		if p := &w.b.pkts[1]; p.verb == verbDrop || denied(p.key) {
			t.Errorf("%s: in one burst: verb %d (%v), the answer would still be denied %t", why, p.verb, p.reason, denied(p.key))
		}
	}
}
