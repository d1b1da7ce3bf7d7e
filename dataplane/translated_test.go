package dataplane

import (
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/xdpprog"
)

// What may be an answer that the host's conntrack translates back must go through the
// host's stack.

// A flow that was first seen behind the stack and was cut is not short-cut by a
// successor of the agent, once it is allowed again.
func TestAdoptsCutTranslated(t *testing.T) {
	cfg := testConfig(t)
	first := openPlane(t, cfg, &heldFilters{})
	w := first.workers[0]
	w.tick()
	k, side := packet.MakeKey(packet.AddrFrom(addrA), packet.AddrFrom(addrB), 5000, 80, packet.ProtoTCP)
	e := flow.Entry{Key: k, Initiator: side, Flags: cut | flow.NoShortcut}
	e.Slot[side], e.Slot[side.Other()] = slotA, slotB
	w.offload.denyFlow(w, &pkt{key: k}, &e)
	w.offload.flush(w)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	next := openPlane(t, cfg, &heldFilters{})
	defer next.Close()
	w = next.workers[0]
	ref := w.flows.Find(&k)
	if ref == flow.NoRef || w.flows.At(ref).Flags&cut == 0 {
		t.Fatal("not adopted")
	}
	if w.cacheFlags(w.flows.At(ref))&xdpprog.FlowShortcut != 0 {
		t.Error("to be short-cut")
	}
}

// Nor is a TCP flow whose beginning nobody saw, until its ports are used again.
func TestUnderwayGoesByTheStack(t *testing.T) {
	w := newCachingWorker(t, 64)
	w.publish(testSet(1, web...))
	step := func(what string, s segment, want verb) packet.Key {
		t.Helper()
		p := w.judgeOne(s.frame(t))
		if p.verb != want {
			t.Errorf("%s: verb %d (%v), want %d", what, p.verb, p.reason, want)
		}
		return p.key
	}
	cached := func(k packet.Key) uint8 {
		var v xdpprog.FlowValue
		if !xdpprog.LookupFlow(w.objs, &k, &v) {
			t.Error("not in the cache")
		}
		return v.Flags
	}
	data, answer, syn, reset := bToA(80), aToB(80), aToB(80), aToB(80)
	data.ack, answer.ack, syn.syn, reset.rst = true, true, true, true
	k := step("data of the server", data, verbResume)
	step("answer", answer, verbResume)
	if f := cached(k); f != 0 {
		t.Errorf("flags %#x in the cache", f)
	}
	step("reset", reset, verbResume)
	step("ports used again", syn, verbShortcut)
	if f := cached(k); f != xdpprog.FlowShortcut {
		t.Errorf("ports used again: flags %#x in the cache", f)
	}
}

// Nor is what a Service's backend says first, of protocols whose packets don't show
// that they open a flow.
func TestBackendSpeaksFirst(t *testing.T) {
	for _, mode := range []bool{true, false} {
		w := newCachingWorker(t, 64)
		w.cfg.Offload = mode
		w.publish(testSet(1, web...))
		w.snap.local[slotB].answers = answersUDP
		for s, want := range map[segment]verb{
			{hook: event.FromPod, slot: slotB, src: addrB, dst: addrA, sport: 53, dport: 5000, udp: true}: verbResume,
			{hook: event.FromPod, slot: slotB, src: addrB, dst: addrA, sport: 53, dport: 80, syn: true}:   verbShortcut,
			{hook: event.FromPod, slot: slotA, src: addrA, dst: addrB, sport: 53, dport: 80, syn: true}:   verbShortcut,
		} {
			p := w.judgeOne(s.frame(t))
			if p.verb != want {
				t.Errorf("offload %t, %+v: verb %d (%v), want %d", mode, s, p.verb, p.reason, want)
			}
			var v xdpprog.FlowValue
			if mode && (!xdpprog.LookupFlow(w.objs, &p.key, &v) || v.Flags&xdpprog.FlowShortcut != 0 != (want == verbShortcut)) {
				t.Errorf("%+v: flags %#x in the cache", s, v.Flags)
			}
		}
	}
}

// A pod that becomes a Service's backend for UDP has had divert told of its pairs:
// they are forgotten. What else changes about backends is none of their business.
func TestBeginsToAnswer(t *testing.T) {
	p := newTestPlane(t, &heldFilters{})
	for i, a := range []netip.Addr{addrA, addrB} {
		if _, err := p.Attach(endpoint.Endpoint{Name: a.String(), Addrs: []netip.Addr{a}, Link: endpoint.Link{Ifindex: 70 + i}}); err != nil {
			t.Fatal(err)
		}
	}
	table, err := classify.Build(testSet(1, web...))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(table); err != nil {
		t.Fatal(err)
	}
	service := func(proto packet.Proto, backends ...netip.AddrPort) Service {
		return Service{Addr: vip, Proto: proto, Port: 53, Backends: backends}
	}
	a, b := netip.AddrPortFrom(addrA, 53), netip.AddrPortFrom(addrB, 53)
	for _, step := range []struct {
		name string
		list []Service
		anew [2]bool // the pods' flows
	}{
		{"of a TCP Service", []Service{service(packet.ProtoTCP, a)}, [2]bool{}},
		{"of a UDP Service", []Service{service(packet.ProtoUDP, a)}, [2]bool{true, false}},
		{"both", []Service{service(packet.ProtoUDP, a, b)}, [2]bool{false, true}},
		{"one of them no longer", []Service{service(packet.ProtoUDP, b)}, [2]bool{}},
		{"again, of an SCTP Service", []Service{service(packet.ProtoUDP, b), service(packet.ProtoSCTP, a)}, [2]bool{true, false}},
		{"none", nil, [2]bool{}},
	} {
		before := p.snap.Load()
		if err := p.SetHost(nil, step.list); err != nil {
			t.Fatal(err)
		}
		for i, id := range []endpoint.ID{slotA, slotB} {
			if got := p.snap.Load().endpoint(id).gen != before.endpoint(id).gen; got != step.anew[i] {
				t.Errorf("%s: pod %d's flows judged anew: %t, want %t", step.name, id, got, step.anew[i])
			}
		}
	}
}

// What comes to a pod by the stack, though its sender goes around, was translated: its
// answers go that way from then on, whoever noticed.
func TestComesByTheStack(t *testing.T) {
	direct := segment{hook: event.FromPod, slot: slotB, src: addrB, dst: addrA, sport: 53, dport: 5000, udp: true}
	back := segment{hook: event.ToPod, slot: slotB, src: addrA, dst: addrB, sport: 5000, dport: 53, udp: true}
	for _, by := range []string{"worker", "inspecting worker", "divert"} {
		w := newCachingWorker(t, 64)
		w.cfg.Offload = by != "inspecting worker"
		w.publish(testSet(1, web...))
		if p := w.judgeOne(direct.frame(t)); p.verb != verbShortcut {
			t.Fatalf("%s: directly: verb %d (%v)", by, p.verb, p.reason)
		}
		if by == "divert" {
			p := w.judgeOne(direct.frame(t))
			var v xdpprog.FlowValue
			if !xdpprog.LookupFlow(w.objs, &p.key, &v) {
				t.Fatal("not in the cache")
			}
			v.Flags = xdpprog.FlowToPod
			w.write(p.key, &v)
			w.publish(testSet(2, web...)) // to have the entry written anew
		} else if p := w.judgeOne(back.frame(t)); p.verb != verbResume {
			t.Errorf("%s: by the stack: verb %d (%v)", by, p.verb, p.reason)
		}
		p := w.judgeOne(direct.frame(t))
		if p.verb != verbResume {
			t.Errorf("%s: answer: verb %d (%v)", by, p.verb, p.reason)
		}
		var v xdpprog.FlowValue
		if w.cfg.Offload && (!xdpprog.LookupFlow(w.objs, &p.key, &v) || v.Flags != xdpprog.FlowToPod) {
			t.Errorf("%s: flags %#x in the cache", by, v.Flags)
		}
	}
}

// A packet by which a flow is judged anew, and that comes by the stack, has two reasons to
// write it anew: it is written once, with what was counted, and not at all if it gives way
// to another flow of the burst.
func TestRenewedTwice(t *testing.T) {
	direct := segment{hook: event.FromPod, slot: slotB, src: addrB, dst: addrA, sport: 53, dport: 5000, udp: true}
	back := segment{hook: event.ToPod, slot: slotB, src: addrA, dst: addrB, sport: 5000, dport: 53, udp: true}
	other := segment{hook: event.FromPod, slot: slotA, src: addrA, dst: out, sport: 5, dport: 5, udp: true}
	for _, evicted := range []bool{false, true} {
		w := newCachingWorker(t, 64)
		c, frames := w.cfg.Flow, [][]byte{back.frame(t)}
		c.Capacity = 1
		if evicted {
			frames = append(frames, other.frame(t))
		}
		var err error
		if w.flows, err = flow.New(c, packet.NewHasher([3]uint64{1, 2, 3})); err != nil {
			t.Fatal(err)
		}
		p := w.judgeOne(direct.frame(t))
		key, ref, side := p.key, p.ref, p.side
		var v xdpprog.FlowValue
		if p.verb != verbShortcut || !xdpprog.LookupFlow(w.objs, &key, &v) {
			t.Fatalf("directly: verb %d (%v), in the cache %t", p.verb, p.reason, w.holds(key))
		}
		v.Packets[side] = 5
		w.write(key, &v)
		w.publish(testSet(2, web...))
		w.put(frames...)
		w.process(w.snap)
		if held := xdpprog.LookupFlow(w.objs, &key, &v); held == evicted || held && v.Flags != xdpprog.FlowToPod {
			t.Errorf("evicted %t: in the cache %t, flags %#x", evicted, held, v.Flags)
		}
		if e := w.flows.At(ref); !evicted && e.Packets[side] != 1+5 {
			t.Errorf("%d packets, want 6", e.Packets[side])
		}
	}
}

// A successor of the agent short-cuts no flow that its predecessor did not.
func TestAdoptsByTheStack(t *testing.T) {
	for _, proto := range []packet.Proto{packet.ProtoTCP, packet.ProtoUDP} {
		cfg := testConfig(t)
		first := openPlane(t, cfg, &heldFilters{})
		k, side := packet.MakeKey(packet.AddrFrom(addrA), packet.AddrFrom(addrB), 5000, 80, proto)
		v := xdpprog.FlowValue{Initiator: uint8(side)}
		v.Slot[side], v.Slot[side.Other()] = uint32(slotA), uint32(slotB)
		if _, err := xdpprog.UpdateFlows(first.objs, []packet.Key{k}, []xdpprog.FlowValue{v}); err != nil {
			t.Fatal(err)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		next := openPlane(t, cfg, &heldFilters{})
		w := next.workers[0]
		if ref := w.flows.Find(&k); ref == flow.NoRef || w.cacheFlags(w.flows.At(ref)) != 0 {
			t.Errorf("%v: not adopted, or to be short-cut", proto)
		}
		if err := next.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
