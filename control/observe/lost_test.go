package observe_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
)

// Who follows flows by the agent's own API is told of each event, or that it was
// lost: in a worker's ring, or in the history because of its own slowness.
func TestFlowsTellLosses(t *testing.T) {
	src, err := observetest.New(64)
	if err != nil {
		t.Fatal(err)
	}
	o := observe.New(src, src, 128, event.WantAll)
	put := func(from, n int) {
		for i := from; i < from+n; i++ {
			src.Put(observetest.TCP(i, 1, endpoint.None, 80)) // shows once
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ready, enough := make(chan struct{}), errors.New("enough")
	ended := make(chan error, 1)
	var told, ring, slow uint64
	const first, second = 100, 320
	go func() {
		ended <- o.Flows(ctx, 0, true, func() { close(ready) }, func(f *api.Flow) error {
			switch {
			case f == nil:
			case f.Event != "lost":
				if told++; told == 1 { // be slow, until the history has moved on
					for n := first; n < first+second; n += 32 {
						put(n, 32)
						for s := o.Stats(); s.Read+s.Lost < uint64(n+32) && ctx.Err() == nil; s = o.Stats() {
							time.Sleep(50 * time.Microsecond)
						}
					}
				}
			case f.Reason == "perf_event_ring_buffer":
				ring += f.Lost
			case f.Reason == "hubble_ring_buffer":
				slow += f.Lost
			default:
				t.Errorf("event %+v", f)
			}
			if told+ring+slow == first+second {
				return enough
			}
			return nil
		})
	}()
	<-ready
	put(0, first) // into a ring of 64, that nobody reads yet
	go o.Run(ctx)
	if err := <-ended; !errors.Is(err, enough) {
		t.Errorf("%d told, %d lost in the ring and %d in the history, of %d: %v", told, ring, slow, first+second, err)
	}
	if ring != first-64 || slow == 0 {
		t.Errorf("%d lost in the ring, %d in the history, want %d and some", ring, slow, first-64)
	}
}
