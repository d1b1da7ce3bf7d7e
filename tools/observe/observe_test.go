package observe_test

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"

	"github.com/sluice-net/sluice/control/api"
	ctlobserve "github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/hubble"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/tools/observe"
)

// node is a server of Hubble's API with events that a test makes.
type node struct {
	*observetest.Source
	observer *ctlobserve.Observer
	client   observerpb.ObserverClient
}

func start(t *testing.T, ring, history int) *node {
	t.Helper()
	src, err := observetest.New(ring)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Source: src, observer: ctlobserve.New(src, src, history, event.WantAll)}
	socket := filepath.Join(t.TempDir(), "h.sock")
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { n.observer.Run(ctx) })
	wg.Go(func() {
		cfg := hubble.Config{Node: "node-1", Socket: socket, Streams: 8}
		if err := hubble.New(cfg, n.observer, src).Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	server := observe.Server{Address: "unix://" + socket}
	conn, err := server.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); cancel(); wg.Wait() })
	n.client = observerpb.NewObserverClient(conn)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := n.client.ServerStatus(t.Context(), &observerpb.ServerStatusRequest{}); err == nil {
			return n
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// put writes records and waits until they are in the history.
func (n *node) put(t *testing.T, recs ...event.Record) {
	t.Helper()
	_, was := n.observer.Bounds()
	n.Put(recs...)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, next := n.observer.Bounds(); next >= was+uint64(len(recs)) {
			return
		}
		if time.Now().After(end) {
			t.Fatal("events don't come")
		}
	}
}

func (n *node) read(t *testing.T, s observe.Selection) (out []*observe.Event) {
	t.Helper()
	if err := observe.Read(t.Context(), n.client, &s, func(e *observe.Event) error { out = append(out, e); return nil }, nil); err != nil {
		t.Fatal(err)
	}
	return out
}

// records is an event of each kind.
func records() []event.Record {
	allowed := observetest.TCP(0, 1, 2, 80)
	allowed.Egress, allowed.Ingress, allowed.Generation = 1, 2, 7
	denied := observetest.Deny(observetest.TCP(1, 1, 2, 81), 1, 3)
	denied.Suppressed = 5
	audit := observetest.TCP(2, 1, 2, 82)
	audit.Audit, audit.AuditIngress, audit.Ingress = true, true, 3
	spoofed := observetest.Deny(observetest.TCP(3, 1, 2, 83), 0, 0)
	spoofed.Reason = stat.SpoofedAddress
	ended := observetest.TCP(4, 1, endpoint.None, 84)
	ended.Kind, ended.DurationNs = event.Ended, 1_500_000_000
	ended.Packets[ended.Side], ended.Bytes[ended.Side] = 3, 300
	ended.Packets[ended.Side.Other()], ended.Bytes[ended.Side.Other()] = 2, 2000
	cut := observetest.Deny(observetest.TCP(5, 1, 2, 85), 1, 3)
	cut.Kind = event.Changed
	return []event.Record{allowed, denied, audit, spoofed, ended, cut}
}

// What Hubble's API says of an event is what the agent's own says of it.
func TestEventsAreWhole(t *testing.T) {
	n := start(t, 64, 64)
	n.put(t, records()...)
	got := n.read(t, observe.Selection{All: true})
	var want []api.Flow
	if err := n.observer.Flows(t.Context(), 100, false, func() {}, func(f *api.Flow) error { want = append(want, *f); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d events, want %d", len(got), len(want))
	}
	for i, e := range got {
		w := want[i]
		w.Node, w.Hook = "node-1", "" // the one has no node, the other no hook
		a, _ := json.Marshal(e.Flow)
		b, _ := json.Marshal(w)
		if e.Generation == 0 { // of flows that no policy decided Hubble has none
			w.Generation = 0
			b, _ = json.Marshal(w)
		}
		if string(a) != string(b) {
			t.Errorf("event %d:\n%s\nwant\n%s", i, a, b)
		}
	}
}

func ports(events []*observe.Event) (p []int) {
	for _, e := range events {
		p = append(p, int(e.Dst.Port))
	}
	return p
}

func TestSelections(t *testing.T) {
	n := start(t, 64, 64)
	n.put(t, records()...)
	at := func(i int) time.Time { return time.Unix(0, observetest.TCP(i, 1, 0, 0).TimeNs) }
	dropped := []*flowpb.FlowFilter{{Verdict: []flowpb.Verdict{flowpb.Verdict_DROPPED}}}
	for name, c := range map[string]struct {
		s    observe.Selection
		want string
	}{
		"all":         {observe.Selection{All: true}, "80 81 82 83 84 85"},
		"last":        {observe.Selection{Last: 2}, "84 85"},
		"last few":    {observe.Selection{Last: 4}, "82 83 84 85"},
		"more":        {observe.Selection{Last: 100}, "80 81 82 83 84 85"},
		"first":       {observe.Selection{First: 2}, "80 81"},
		"denied":      {observe.Selection{All: true, Allow: dropped}, "81 83 85"},
		"not denied":  {observe.Selection{All: true, Deny: dropped}, "80 82 84"},
		"last denied": {observe.Selection{Last: 1, Allow: dropped}, "85"},
		"since":       {observe.Selection{Since: at(4)}, "84 85"},
		"since, last": {observe.Selection{Since: at(1), Last: 2}, "84 85"},
		"until":       {observe.Selection{Until: at(1)}, "80 81"},
	} {
		if got := strings.Trim(strings.Join(strings.Fields(jsonText(t, ports(n.read(t, c.s)))), " "), "[]"); strings.ReplaceAll(got, ",", " ") != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func jsonText(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What is followed comes after what is held, once, and what is lost is told.
func TestFollow(t *testing.T) {
	n := start(t, 64, 64)
	past := records()
	for i := range past {
		past[i].TimeNs = time.Now().Add(-time.Hour).UnixNano() + int64(i)
	}
	n.put(t, past...)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got []*observe.Event
	asked := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() {
		done <- observe.Read(ctx, n.client, &observe.Selection{Last: 2, Follow: true}, func(e *observe.Event) error {
			if got = append(got, e); e.Dst.Port == 99 {
				cancel()
			}
			return nil
		}, func() error {
			select {
			case asked <- struct{}{}:
			default:
			}
			return nil
		})
	}()
	<-asked
	now := observetest.TCP(50, 1, 2, 99)
	now.TimeNs = time.Now().UnixNano()
	n.put(t, now)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if p := jsonText(t, ports(got)); p != "[84,85,99]" {
		t.Errorf("followed %s", p)
	}
}

func TestRefusedByServer(t *testing.T) {
	n := start(t, 64, 64)
	s := &observe.Selection{Allow: []*flowpb.FlowFilter{{HttpMethod: []string{"GET"}}}}
	err := observe.Read(t.Context(), n.client, s, func(*observe.Event) error { return nil }, nil)
	if _, ok := err.(*observe.RefusedError); !ok || !strings.Contains(err.Error(), "http_method") {
		t.Errorf("%T %v", err, err)
	}
}

func TestPrint(t *testing.T) {
	n := start(t, 64, 64)
	n.put(t, records()...)
	events := n.read(t, observe.Selection{All: true})
	events = append(events, observe.FromHubble(&observerpb.GetFlowsResponse{ResponseTypes: &observerpb.GetFlowsResponse_LostEvents{
		LostEvents: &flowpb.LostEvent{Source: flowpb.LostEventSource_HUBBLE_RING_BUFFER, NumEventsLost: 12}}}))
	var b strings.Builder
	for _, format := range observe.Formats {
		p := observe.NewPrinter(&b, format)
		p.Names, p.NodeNames, p.TimeLayout = true, true, "-"
		b.WriteString("== " + format + "\n")
		for _, e := range events {
			if format == "json" && len(e.Views) > 0 && e.Views[0].GetFlow() != nil {
				for _, v := range e.Views {
					v.GetFlow().Uuid = "u"
				}
			}
			if err := p.Print(e); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "print", b.String())
}

func TestTop(t *testing.T) {
	n := start(t, 64, 64)
	n.put(t, append(records(), records()...)...)
	top := observe.NewTop()
	for _, e := range n.read(t, observe.Selection{All: true}) {
		top.Add(e)
	}
	var b strings.Builder
	if err := top.Report(3).Text(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "top", b.String())
}

// A file of events, in either form, says what the events did.
func TestReadFile(t *testing.T) {
	n := start(t, 64, 64)
	n.put(t, records()...)
	events := n.read(t, observe.Selection{All: true})
	for _, format := range []string{"jsonl", "json"} {
		var b strings.Builder
		p := observe.NewPrinter(&b, format)
		for _, e := range events {
			if err := p.Print(e); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := observe.ReadFile(strings.NewReader(b.String() + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(events) {
			t.Fatalf("%s: %d events, want %d", format, len(got), len(events))
		}
		for i := range got {
			if a, b := jsonText(t, got[i]), jsonText(t, events[i].Flow); a != b {
				t.Errorf("%s: event %d:\n%s\nwant\n%s", format, i, a, b)
			}
		}
	}
	for _, bad := range []string{"{", `{"a":1}`, `[]`, `{"flow":{"time":"never"}}`} {
		if _, err := observe.ReadFile(strings.NewReader("\n" + bad)); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
