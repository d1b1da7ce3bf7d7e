package dataplane

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// change gives the worker a snapshot with other ends.
func (w *testWorker) change(f func(snap *snapshot)) {
	snap := *w.snap
	snap.local = append([]local{}, snap.local...)
	f(&snap)
	w.snap = &snap
}

// Another pod has the address of one that opened a flow, or to which one was opened:
// what would have been an answer in that flow opens one of its own, or is denied.
func TestReplacedPod(t *testing.T) {
	const other endpoint.ID = 3
	newSlot := func(snap *snapshot) {
		snap.local = append(snap.local, snap.local[slotB])
		snap.local[slotB] = local{}
		snap.addrs = newAddrTable(1, []addrSlot{{packet.AddrFrom(addrA), slotA}, {packet.AddrFrom(addrB), other}})
	}
	sameSlot := func(snap *snapshot) { snap.local[slotB].gen, snap.local[slotB].born = 2, 2 }
	outside := segment{hook: event.FromPod, slot: slotB, src: addrB, dst: out, sport: 9000, dport: 9000, udp: true}
	local := segment{hook: event.FromPod, slot: slotB, src: addrB, dst: addrA, sport: 9000, dport: 9000, udp: true}
	for _, c := range []struct {
		name     string
		opens    segment
		replaced func(snap *snapshot)
		answer   segment
	}{
		{"its own link", outside, sameSlot, segment{hook: event.ToPod, slot: slotB, src: out, dst: addrB, sport: 9000, dport: 9000, udp: true}},
		{"its peer's link", local, sameSlot, segment{hook: event.FromPod, slot: slotA, src: addrA, dst: addrB, sport: 9000, dport: 9000, udp: true}},
		{"its peer's link, another slot", local, newSlot, segment{hook: event.FromPod, slot: slotA, src: addrA, dst: addrB, sport: 9000, dport: 9000, udp: true}},
	} {
		w := newTestWorker(t)
		if p := w.judgeOne(c.opens.frame(t)); p.verb == verbDrop {
			t.Fatalf("%s: dropped: %v", c.name, p.reason)
		}
		if p := w.judgeOne(c.answer.frame(t)); p.verb == verbDrop {
			t.Fatalf("%s: answer dropped: %v", c.name, p.reason)
		}
		w.change(c.replaced)
		if p := w.judgeOne(c.answer.frame(t)); p.verb != verbDrop || p.reason != stat.Policy {
			t.Errorf("%s: verb %d, reason %v; want it denied by policy", c.name, p.verb, p.reason)
		}
	}
}

// What is addressed to many is judged by the rules of the pod at whose link it is.
func TestToMany(t *testing.T) {
	for _, dst := range []string{"224.0.0.5", "255.255.255.255"} {
		s := segment{hook: event.ToPod, slot: slotB, src: out, dst: netip.MustParseAddr(dst), sport: 9000, dport: 9000, udp: true}
		if p := newTestWorker(t).judgeOne(s.frame(t)); p.reason != stat.Policy {
			t.Errorf("to %s: verb %d, reason %v; want it denied by policy", dst, p.verb, p.reason)
		}
	}
}

// No flow is opened that has an end without rules in force, whichever end it is seen at.
func TestNotReadyYet(t *testing.T) {
	for _, hook := range []event.Hook{event.FromPod, event.ToPod} {
		s := aToB(80)
		s.syn = true
		other := slotB
		if hook == event.ToPod {
			s.hook, s.slot, other = hook, slotB, slotA
		}
		w := newTestWorker(t)
		w.change(func(snap *snapshot) { snap.local[other].gen = 0 })
		if p := w.judgeOne(s.frame(t)); p.reason != stat.NotReady {
			t.Errorf("at hook %d: verb %d, reason %v", hook, p.verb, p.reason)
		}
	}
}

// The end that answers may not open a flow by a packet that comes in one burst with the
// first of the other's.
func TestOpensAgainst(t *testing.T) {
	w := newTestWorker(t)
	opens, against := bToA(81), aToB(81)
	opens.syn, against.syn = true, true
	w.put(opens.frame(t), against.frame(t))
	w.process(w.snap)
	if p := &w.b.pkts[0]; p.verb != verbShortcut {
		t.Errorf("the first: verb %d (%v)", p.verb, p.reason)
	}
	if p := &w.b.pkts[1]; p.reason != stat.Policy {
		t.Errorf("against it: verb %d, reason %v; want it denied by policy", p.verb, p.reason)
	}
}

// fragment makes a frame part of a datagram.
func fragment(frame []byte, id uint16, first bool) []byte {
	const l3, parts = 14, 16
	part := frame[:l3+20+parts-1]
	part = append(part[:len(part):len(part)], 0)
	binary.BigEndian.PutUint16(part[l3+2:], 20+parts)
	binary.BigEndian.PutUint16(part[l3+4:], id)
	offset := uint16(parts / 8)
	if first {
		offset = 1 << 13 // more fragments
	}
	binary.BigEndian.PutUint16(part[l3+6:], offset)
	return part
}

// Later fragments follow their first one, and not an earlier datagram with its number.
func TestFragments(t *testing.T) {
	allowed, denied := aToB(53), aToB(54)
	allowed.udp, denied.udp = true, true
	w := newTestWorker(t)
	step := func(what string, s segment, first, passes bool) {
		t.Helper()
		if p := w.judgeOne(fragment(s.frame(t), 7, first)); (p.verb != verbDrop) != passes {
			t.Errorf("%s: verb %d (%v)", what, p.verb, p.reason)
		}
	}
	step("later, without a first", allowed, false, false)
	step("first", allowed, true, true)
	step("later", allowed, false, true)
	step("first of a denied one", denied, true, false)
	step("later of that", denied, false, false)
	step("first again", allowed, true, true)
	step("later again", allowed, false, true)
	w.publish(testSet(2))
	step("later, of a flow that was cut", allowed, false, false)
	step("first, of a flow that was cut", allowed, true, false)
	w.publish(testSet(3, web...))
	step("later, when it is allowed again", allowed, false, false)
}

// A Service with the address of a pod of this node, which anyone may make, doesn't open
// to others what is denied them there.
func TestServiceAtPod(t *testing.T) {
	w := newTestWorker(t)
	set := serviceSet()
	set.Endpoints[1].Ingress = 0
	w.publish(set)
	w.serve(Service{Addr: addrB, Proto: packet.ProtoTCP, Port: 80, Backends: []netip.AddrPort{netip.AddrPortFrom(good[0], 8080)}})
	s := aToB(80)
	s.syn = true
	if p := w.judgeOne(s.frame(t)); p.reason != stat.Policy {
		t.Errorf("verb %d, reason %v; want it denied by policy", p.verb, p.reason)
	}
}

// A pod has nothing to say, nor to hear, about packets to an address that is many's.
func TestErrorAboutMany(t *testing.T) {
	group := netip.MustParseAddr("224.0.0.5")
	about := func(hook event.Hook, src, dst, quotedSrc, quotedDst netip.Addr) []byte {
		said := segment{src: quotedSrc, dst: quotedDst, sport: 9000, dport: 9000, udp: true}.frame(t)
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		return ipFrame(t, hook, slotA, ip, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 1)}, gopacket.Payload(said[14:42]))
	}
	for _, c := range []struct {
		name  string
		opens segment
		frame []byte
	}{
		{"what it got", segment{hook: event.ToPod, slot: slotA, src: out, dst: group, sport: 9000, dport: 9000, udp: true},
			about(event.FromPod, addrA, out, out, group)},
		{"what many sent", segment{hook: event.ToPod, slot: slotA, src: out, dst: group, sport: 9000, dport: 9000, udp: true},
			about(event.ToPod, out, group, group, out)},
	} {
		w := newTestWorker(t)
		if p := w.judgeOne(c.opens.frame(t)); p.verb == verbDrop {
			t.Fatalf("%s: dropped: %v", c.name, p.reason)
		}
		if p := w.judgeOne(c.frame); p.reason != stat.ICMPUnrelated {
			t.Errorf("%s: verb %d, reason %v", c.name, p.verb, p.reason)
		}
	}
}
