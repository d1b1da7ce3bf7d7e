package dataplane

import (
	"testing"

	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/xdpprog"
)

// A connection that is over leaves the kernel's cache with all that was counted
// there, so that the next one between its ports needs no worker. One that has closed
// on one side stays.
func TestEndedLeaves(t *testing.T) {
	needRoot(t)
	for name, c := range map[string]struct {
		ended uint8
		over  bool
	}{
		"client closed": {xdpprog.EndedFinA, false},
		"both closed":   {xdpprog.EndedFinA | xdpprog.EndedFinB, true},
		"reset":         {xdpprog.EndedRst, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTestWorker(t)
			w.cfg.Offload = true
			objs, _, err := xdpprog.Load(xdpprog.Config{PinPath: bpffs(t), Workers: 1, Offload: true, Flows: 64, Denied: 64, Admits: 64, Fragments: 64, Endpoints: 8})
			if err != nil {
				t.Fatal(err)
			}
			defer objs.Close()
			w.objs = objs
			s := aToB(80)
			s.syn = true
			p := w.judgeOne(s.frame(t))
			if p.verb != verbShortcut {
				t.Fatalf("verb %d (%v)", p.verb, p.reason)
			}
			ref := p.ref
			key := w.flows.At(ref).Key
			var v xdpprog.FlowValue
			if !xdpprog.LookupFlow(objs, &key, &v) {
				t.Fatal("not in the kernel's cache")
			}
			// What divert would have seen of it.
			v.Packets, v.Bytes, v.Ended = [2]uint64{5, 4}, [2]uint64{500, 400}, c.ended
			v.TCPFlags = [2]uint8{packet.TCPSyn | packet.TCPAck, packet.TCPSyn | packet.TCPAck}
			if _, err := xdpprog.UpdateFlows(objs, []packet.Key{key}, []xdpprog.FlowValue{v}); err != nil {
				t.Fatal(err)
			}
			before := w.flows.At(ref).Packets
			w.ended(&xdpprog.Note{Key: noteKey(key), Kind: xdpprog.NoteEnd, Ended: c.ended})
			w.offload.flush(w.worker)
			e := w.flows.At(ref)
			if cached := xdpprog.LookupFlow(objs, &key, &v); cached == c.over || (e.State == flow.Closed) != c.over {
				t.Fatalf("cached %v, state %v", cached, e.State)
			}
			if !c.over {
				return
			}
			for side, more := range [2]uint64{5, 4} {
				if e.Packets[side] != before[side]+more {
					t.Errorf("side %d: %d packets, want %d", side, e.Packets[side], before[side]+more)
				}
			}
			// What is late passes, and brings nothing back.
			late := s
			late.syn, late.ack = false, true
			if p := w.judgeOne(late.frame(t)); p.verb != verbShortcut || p.hook != event.FromPod {
				t.Errorf("late packet: verb %d (%v)", p.verb, p.reason)
			}
			if xdpprog.LookupFlow(objs, &key, &v) {
				t.Error("back in the kernel's cache")
			}
		})
	}
}

func noteKey(k packet.Key) xdpprog.FlowKey {
	return xdpprog.FlowKey{A: xdpprog.Addr(k.A), B: xdpprog.Addr(k.B), APort: k.APort, BPort: k.BPort, Proto: uint8(k.Proto)}
}

// A worker that is told of more than a turn's share of notes doesn't sleep on the rest.
func TestNotesWait(t *testing.T) {
	w := newTestWorker(t)
	for range notesATurn + 1 {
		w.inbox <- xdpprog.Note{Kind: xdpprog.NoteEnd}
	}
	w.nextSweep = w.nowNs + 1
	if !w.housekeep(w.snap) {
		t.Error("nothing is left, it says")
	}
	if w.housekeep(w.snap) || len(w.inbox) != 0 {
		t.Errorf("%d notes are left", len(w.inbox))
	}
}
