package dataplane

import (
	"testing"

	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/xdpprog"
)

// A note of a flow that has left the kernel's cache by the time it is read doesn't
// make an entry that says it is there: its ports' next flows would never be.
func TestOutdatedNote(t *testing.T) {
	for name, before := range map[string]func(w *testWorker, k packet.Key){
		// A reset of it came up, which found it in the cache.
		"closed": func(w *testWorker, k packet.Key) {
			reset := bToA(80)
			reset.rst = true
			w.judgeOne(reset.frame(w.t))
			if ref := w.flows.Find(&k); ref == flow.NoRef || w.flows.At(ref).State != flow.Closed {
				w.t.Fatal("not closed")
			}
		},
		// A packet of it came up when there was no room, of which there is more now.
		"refused": func(w *testWorker, k packet.Key) {
			full := w.fill()
			data := aToB(80)
			data.ack = true
			if p := w.judgeOne(data.frame(w.t)); p.reason != stat.FlowTableFull {
				w.t.Fatalf("verb %d (%v)", p.verb, p.reason)
			}
			for _, ref := range full {
				w.flows.Remove(ref)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newCachingWorker(t, 64)
			s := aToB(80)
			s.syn = true
			w.opens(s)
			k, v := w.cached(40000, 80, packet.ProtoTCP, func(*xdpprog.FlowValue, packet.Side) {})
			before(w, k)
			w.started(&xdpprog.Note{Key: noteKey(k), Kind: xdpprog.NoteStart, Initiator: v.Initiator, Slot: v.Slot, Gen: v.Gen, TCPFlags: packet.TCPSyn})
			w.offload.flush(w.worker)
			if ref := w.flows.Find(&k); ref != flow.NoRef && w.flows.At(ref).Flags&flow.Offloaded != 0 && !w.holds(k) {
				t.Errorf("not in the cache, as its entry says: %+v", *w.flows.At(ref))
			}
		})
	}
}
