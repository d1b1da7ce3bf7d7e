package dataplane

import (
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/xsk"
)

// tinyWorker has room for very few flows.
func tinyWorker(t *testing.T, flows int) *testWorker {
	t.Helper()
	cfg := Default()
	cfg.Offload, cfg.Flow.Capacity = false, flows
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

// A flow that waits to be judged anew may lose its entry to a new one of the
// same burst. It must not be taken for that one.
func TestEvictedInItsBurst(t *testing.T) {
	w := tinyWorker(t, 1)
	old := aToB(53)
	old.udp = true
	if p := w.judgeOne(old.frame(t)); p.verb != verbShortcut || p.to != slotB {
		t.Fatalf("verb %d to %d", p.verb, p.to)
	}
	w.publish(testSet(2, web...)) // the flow is to be judged anew
	abroad := segment{hook: event.FromPod, slot: slotA, src: addrA, dst: out, sport: 5, dport: 5, udp: true}
	w.put(abroad.frame(t), old.frame(t))
	w.process(w.snap)
	if p := &w.b.pkts[0]; p.verb != verbResume {
		t.Errorf("new flow: verb %d (%v)", p.verb, p.reason)
	}
	if p := &w.b.pkts[1]; p.verb != verbShortcut || p.to != slotB {
		t.Errorf("old flow: verb %d (%v) to %d, want into %d", p.verb, p.reason, p.to, slotB)
	}
	if n := w.flows.Len(); n != 1 {
		t.Errorf("%d flows", n)
	}
}

// All packets of a burst are accounted to a flow that its first one renews,
// and all are denied in the flow's name if it is cut.
func TestBurstRenewsFlow(t *testing.T) {
	w := newTestWorker(t)
	s := aToB(53)
	s.udp = true
	burst := func() *flow.Entry {
		frames := make([][]byte, 8)
		for i := range frames {
			frames[i] = s.frame(t)
		}
		w.put(frames...)
		w.process(w.snap)
		return w.flows.At(w.b.pkts[0].ref)
	}
	burst()
	w.publish(testSet(2, web...))
	e := burst()
	if e.Packets[e.Initiator] != 16 {
		t.Errorf("%d packets accounted, want 16", e.Packets[e.Initiator])
	}
	w.publish(testSet(3))
	e = burst()
	for i := range 8 {
		if p := &w.b.pkts[i]; p.verb != verbDrop || w.flows.At(p.ref) != e {
			t.Errorf("packet %d: verb %d", i, p.verb)
		}
	}
	if e.Flags&cut == 0 || e.Packets[e.Initiator] != 16 {
		t.Errorf("flags %#x, %d packets", e.Flags, e.Packets[e.Initiator])
	}
}
