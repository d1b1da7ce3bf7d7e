package observe_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"

	ctlobserve "github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/hubble"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/tools/observe"
)

// serving is a server that can be ended.
type serving struct {
	*observetest.Source
	*ctlobserve.Observer
	t      *testing.T
	socket string
	stop   func()
}

func newServing(t *testing.T, socket string, history int) *serving {
	t.Helper()
	src, err := observetest.New(1 << 10)
	if err != nil {
		t.Fatal(err)
	}
	s := &serving{Source: src, Observer: ctlobserve.New(src, src, history, event.WantAll), t: t, socket: socket}
	go s.Observer.Run(t.Context())
	return s
}

func (s *serving) serve() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	cfg := hubble.Config{Node: "node-1", Socket: s.socket, Streams: 8}
	go func() { done <- hubble.New(cfg, s.Observer, s.Source).Serve(ctx) }()
	s.stop = func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	}
}

// now makes records that happen now; the tests' own lie in another year.
func now(recs ...event.Record) []event.Record {
	for i := range recs {
		recs[i].TimeNs = time.Now().UnixNano()
	}
	return recs
}

// add puts events, one after the other, with ports that tell them apart.
func (s *serving) add(from, to int) {
	for i := from; i < to; i++ {
		_, was := s.Bounds()
		s.Put(now(observetest.TCP(i, 1, 2, uint16(i)))...)
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Microsecond) {
			if _, next := s.Bounds(); next > was {
				break
			}
			if time.Now().After(end) {
				s.t.Fatal("an event doesn't come")
			}
		}
	}
}

// A server that goes away while it is followed is waited for, and said to be away.
// Of one that is the same as before, each event is shown once; of one that is
// another one, as after a restart, all events since then are shown or counted.
func TestServerGoesAway(t *testing.T) {
	for _, c := range []struct {
		name      string
		another   bool
		history   int
		meanwhile int
		lost      uint64 // sightings, two an event
	}{
		{"the same, cut off", false, 64, 20, 0},
		{"restarted", true, 64, 20, 0},
		{"restarted, with too much meanwhile", true, 8, 20, 2 * 12},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServing(t, filepath.Join(t.TempDir(), "h.sock"), 64)
			s.serve()
			conn, err := (&observe.Server{Address: "unix://" + s.socket}).Dial()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			client := observerpb.NewObserverClient(conn)
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				if _, err := client.ServerStatus(t.Context(), &observerpb.ServerStatusRequest{}); err == nil {
					break
				} else if time.Now().After(end) {
					t.Fatal(err)
				}
			}
			s.add(100, 103)
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			events, away, back, done := make(chan *observe.Event, 256), make(chan struct{}), make(chan struct{}), make(chan error, 1)
			sel := &observe.Selection{Follow: true, Last: 3, Away: func(err error) {
				if err != nil {
					close(away)
				} else {
					close(back)
				}
			}}
			go func() {
				done <- observe.Read(ctx, client, sel, func(e *observe.Event) error { events <- e; return nil }, nil)
			}()
			ports := map[uint16]int{}
			gaps, lost := 0, uint64(0)
			read := func(until uint16) {
				t.Helper()
				for ports[until] == 0 {
					select {
					case e := <-events:
						switch {
						case e.Event == observe.Lost && e.Reason == observe.ServerAway:
							gaps++
						case e.Event == observe.Lost:
							lost += e.Lost
						default:
							ports[e.Dst.Port]++
						}
					case err := <-done:
						t.Fatalf("ended without event %d: %v", until, err)
					}
				}
			}
			read(102)
			s.stop()
			<-away
			if c.another {
				s = newServing(t, s.socket, c.history)
			}
			s.add(103, 103+c.meanwhile)
			s.serve()
			defer func() { s.stop() }()
			<-back
			read(uint16(103 + c.meanwhile - 1))
			s.add(200, 203)
			read(202)
			for end := time.Now().Add(10 * time.Second); lost < c.lost && time.Now().Before(end); {
				select { // a loss may be told a second later
				case e := <-events:
					lost += e.Lost
				case <-time.After(10 * time.Millisecond):
				}
			}
			if gaps != 1 || lost != c.lost {
				t.Errorf("%d gaps, %d lost, want 1 and %d", gaps, lost, c.lost)
			}
			first := 103 + int(c.lost/2)
			for i := 100; i < 203; i++ {
				want := 0
				if i < 103 || i >= first && i < 103+c.meanwhile || i >= 200 {
					want = 1
				}
				if ports[uint16(i)] != want {
					t.Errorf("event %d was shown %d times, want %d", i, ports[uint16(i)], want)
				}
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// A server that was never there is not waited for.
func TestServerIsNotThere(t *testing.T) {
	conn, err := (&observe.Server{Address: "unix://" + filepath.Join(t.TempDir(), "h.sock")}).Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sel := &observe.Selection{Follow: true, Away: func(error) { t.Error("waited for") }}
	if err := observe.Read(t.Context(), observerpb.NewObserverClient(conn), sel, func(*observe.Event) error { return nil }, nil); err == nil {
		t.Error("no error")
	}
}
