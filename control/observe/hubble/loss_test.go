package hubble_test

import (
	"context"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"

	"github.com/sluice-net/sluice/bench/listen"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
)

// tally is what a client was sent.
type tally struct {
	flows, lostRing, lostHistory uint64
	err                          error
}

// follow reads all that comes until want events are accounted for; pause is
// called after each message.
func follow(stream observerpb.Observer_GetFlowsClient, want uint64, pause func()) (t tally) {
	for t.flows+t.lostRing+t.lostHistory < want {
		resp, err := stream.Recv()
		if err != nil {
			t.err = err
			return t
		}
		switch l := resp.GetLostEvents(); {
		case resp.GetFlow() != nil:
			t.flows++
		case l.GetSource() == flowpb.LostEventSource_HUBBLE_RING_BUFFER:
			t.lostHistory += l.GetNumEventsLost()
		case l != nil:
			t.lostRing += l.GetNumEventsLost()
		}
		pause()
	}
	return t
}

// What is generated is delivered or counted as lost, exactly: with rings that
// overflow, a history that is too short, and a client that is slow. Each event
// is one flow here.
func TestEveryEventIsAccountedFor(t *testing.T) {
	const total = 30_000
	for name, pause := range map[string]func(){
		"fast": func() {},
		"slow": func() { time.Sleep(20 * time.Microsecond) },
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, 128, 256, 4)
			n.Put(observetest.TCP(0, 1, endpoint.None, 80))
			n.seen(t, 1)
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			stream, err := n.client.GetFlows(ctx, &observerpb.GetFlowsRequest{Follow: true, Number: 1})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
			done := make(chan tally, 1)
			go func() { done <- follow(stream, total, pause) }()
			recs := make([]event.Record, 0, 64)
			for i := 0; i < total; i += len(recs) {
				recs = recs[:0]
				for k := i; k < min(i+64, total); k++ {
					recs = append(recs, observetest.TCP(k, 1, endpoint.None, 80))
				}
				n.Put(recs...)
			}
			// A loss is told with the next event that gets through: until the
			// last one is, there is another one.
			extra := uint64(0)
			var got tally
			for waiting := true; waiting; {
				select {
				case got = <-done:
					waiting = false
				case <-time.After(50 * time.Millisecond):
					n.Put(observetest.TCP(0, 1, endpoint.None, 80))
					extra++
				}
			}
			if got.err != nil {
				t.Fatal(got.err)
			}
			if sum := got.flows + got.lostRing + got.lostHistory; sum < total || sum > total+extra {
				t.Errorf("%+v, of %d and at most %d more", got, total, extra)
			}
			if n.Events.Written()+n.Events.Lost() != total+1+extra {
				t.Errorf("%d written, %d lost, of %d", n.Events.Written(), n.Events.Lost(), total+1+extra)
			}
			if got.lostRing > n.Events.Lost() {
				t.Errorf("client told of %d lost, ring lost %d", got.lostRing, n.Events.Lost())
			}
		})
	}
}

// A client that never reads holds up nobody.
func TestClientThatNeverReads(t *testing.T) {
	n := start(t, 1024, 256, 8)
	stuck := observerpb.NewObserverClient(n.dial(t))
	for range 3 {
		if _, err := stuck.GetFlows(t.Context(), &observerpb.GetFlowsRequest{Follow: true}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20_000 {
		n.Put(observetest.TCP(i, 1, 2, 80))
		if i%512 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		n.Put(observetest.TCP(20_000, 1, 3, 5432)) // the worker's ring may have been full
		got := n.flows(t, &observerpb.GetFlowsRequest{Number: 1})
		if len(got) == 1 && got[0].GetDestination().GetPodName() == "db" {
			return
		}
		if time.Now().After(end) {
			t.Fatal("others get nothing any more")
		}
	}
}

// BenchmarkStream sends events of one worker through the history and gRPC to a
// client on the same machine, as fast as the client takes them: one that decodes
// messages as all do, and one that takes them for little, which leaves the server's
// part. Each event is one flow.
func BenchmarkStream(b *testing.B) {
	for name, follow := range map[string]func(context.Context, string) (*listen.Client, error){"decoded": listen.Decoded, "wire": listen.Wire} {
		b.Run(name, func(b *testing.B) {
			n := start(b, 1<<13, 1<<16, 4)
			n.Put(observetest.TCP(0, 1, endpoint.None, 80))
			n.seen(b, 1)
			if _, err := n.client.ServerStatus(b.Context(), &observerpb.ServerStatusRequest{}); err != nil {
				b.Fatal(err) // only now it serves
			}
			client, err := follow(b.Context(), n.socket)
			if err != nil {
				b.Fatal(err)
			}
			defer client.Close()
			taken := func() int {
				t, err := client.Tally()
				if err != nil || t.Missing() != 0 || t.Ring+t.History > 0 {
					b.Fatalf("%+v: %v", t, err)
				}
				return int(t.Flows)
			}
			b.ReportAllocs()
			b.ResetTimer()
			recs := make([]event.Record, 64)
			for i := 0; i < b.N; i += len(recs) {
				recs = recs[:min(64, b.N-i)]
				for k := range recs {
					recs[k] = observetest.TCP(i+k, 1, endpoint.None, 80)
				}
				n.Put(recs...)
				for i-taken() > 6000 { // as fast as they are taken, no faster
					time.Sleep(50 * time.Microsecond)
				}
			}
			for taken() < b.N {
				time.Sleep(50 * time.Microsecond)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "flows/s")
		})
	}
}
