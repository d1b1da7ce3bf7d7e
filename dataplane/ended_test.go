package dataplane

import (
	"slices"
	"testing"

	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/xdpprog"
)

// A connection that is over leaves the kernel's cache with all that was counted
// there, so that the next one between its ports needs no worker. One that has closed
// on one side stays, and one that has the ports of another which was noted late.
func TestEndedLeaves(t *testing.T) {
	const both = xdpprog.EndedFinA | xdpprog.EndedFinB
	for name, c := range map[string]struct {
		noted  bool    // divert admitted it
		cached uint8   // of FlowValue.Ended
		notes  []uint8 // of Note.Ended
		state  flow.State
	}{
		"client closed":           {false, xdpprog.EndedFinA, []uint8{xdpprog.EndedFinA}, flow.FinWait},
		"both closed":             {false, both, []uint8{xdpprog.EndedFinA, both}, flow.Closed},
		"reset":                   {false, xdpprog.EndedRst, []uint8{xdpprog.EndedRst}, flow.Closed},
		"noted, client closed":    {true, xdpprog.EndedFinA, []uint8{xdpprog.EndedFinA}, flow.FinWait},
		"noted, server closed":    {true, xdpprog.EndedFinB, []uint8{xdpprog.EndedFinB}, flow.FinWait},
		"noted, both closed":      {true, both, []uint8{xdpprog.EndedFinA, both}, flow.Closed},
		"noted, closed at once":   {true, both, []uint8{both}, flow.Closed},
		"noted, reset":            {true, xdpprog.EndedRst, []uint8{xdpprog.EndedRst}, flow.Closed},
		"noted, closed and reset": {true, xdpprog.EndedFinA | xdpprog.EndedRst, []uint8{xdpprog.EndedFinA, xdpprog.EndedFinA | xdpprog.EndedRst}, flow.Closed},
		"of an earlier one":       {false, 0, []uint8{xdpprog.EndedFinA, both}, flow.Established},
		"reset of an earlier one": {false, 0, []uint8{xdpprog.EndedRst}, flow.Established},
	} {
		t.Run(name, func(t *testing.T) {
			w := newCachingWorker(t, 64)
			objs := w.objs
			s := aToB(80)
			s.syn = true
			p := w.judgeOne(s.frame(t))
			if p.verb != verbShortcut {
				t.Fatalf("verb %d (%v)", p.verb, p.reason)
			}
			ref := p.ref
			e := w.flows.At(ref)
			key, before := e.Key, e.Packets
			var v xdpprog.FlowValue
			if !xdpprog.LookupFlow(objs, &key, &v) {
				t.Fatal("not in the kernel's cache")
			}
			if c.noted {
				slots := [2]uint32{uint32(e.Slot[0]), uint32(e.Slot[1])}
				w.flows.Remove(ref)
				w.started(&xdpprog.Note{Key: noteKey(key), Kind: xdpprog.NoteStart, Initiator: v.Initiator, Slot: slots, Gen: v.Gen, TCPFlags: packet.TCPSyn})
				if ref, before = w.flows.Find(&key), [2]uint64{}; ref == flow.NoRef {
					t.Fatal("not entered")
				}
				e = w.flows.At(ref)
			}
			// What divert would have seen of it.
			v.Packets, v.Bytes, v.Ended = [2]uint64{5, 4}, [2]uint64{500, 400}, c.cached
			v.TCPFlags = [2]uint8{packet.TCPSyn | packet.TCPAck, packet.TCPSyn | packet.TCPAck}
			w.write(key, &v)
			for _, ended := range c.notes {
				w.ended(&xdpprog.Note{Key: noteKey(key), Kind: xdpprog.NoteEnd, Ended: ended, TCPFlags: packet.TCPSyn | packet.TCPAck})
			}
			w.offload.flush(w.worker)
			over := c.state == flow.Closed
			if cached := xdpprog.LookupFlow(objs, &key, &v); cached == over || e.State != c.state {
				t.Fatalf("cached %v, state %v; want state %v", cached, e.State, c.state)
			}
			if !over {
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

// All lists of notes find room at a worker that reads none: who hands them over must
// be able to end.
func TestNotesUnread(t *testing.T) {
	w := newTestWorker(t)
	list := []xdpprog.Note{}
	for n := 0; list != nil; n++ {
		select {
		case w.inbox <- list:
		default:
			t.Fatalf("no room for list %d", n)
		}
		select {
		case <-w.read:
		default:
			list = nil
		}
	}
	if len(w.inbox) != noteBatches+1 {
		t.Errorf("%d lists", len(w.inbox))
	}
}

// A worker that is told of more than a turn's share of notes doesn't sleep on the rest.
func TestNotesWait(t *testing.T) {
	w := newTestWorker(t)
	for range notesATurn/noteBatch + 1 {
		w.inbox <- slices.Repeat([]xdpprog.Note{{Kind: xdpprog.NoteEnd}}, noteBatch)
		<-w.read
	}
	w.nextSweep = w.nowNs + 1
	if !w.housekeep(w.snap) {
		t.Error("nothing is left, it says")
	}
	if w.housekeep(w.snap) || len(w.inbox) != 0 || len(w.read) != noteBatches {
		t.Errorf("%d lists are left, %d were given back", len(w.inbox), len(w.read))
	}
}
