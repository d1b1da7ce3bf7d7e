package dataplane

import (
	"testing"

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
