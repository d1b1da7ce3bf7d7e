package control

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/event"
)

// packetAgent is an agent of which only its observer works.
func packetAgent(t *testing.T) (*Agent, *observetest.Source) {
	t.Helper()
	src, err := observetest.New(64)
	if err != nil {
		t.Fatal(err)
	}
	return &Agent{cfg: Config{NodeName: "n"}, store: store.New(), observer: observe.New(src, src, 16, event.WantAll)}, src
}

// What passes the filters is copied, at the rate that was asked for; the rest is
// counted, and so is what finds no room.
func TestPackets(t *testing.T) {
	a, src := packetAgent(t)
	q := api.PacketQuery{SnapLen: 4, MaxRate: 10, Allow: json.RawMessage(`[{"verdict":["DROPPED"],"destination_port":["80"]}]`)}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got int
	var told api.Packet
	err := a.Packets(ctx, q, func() {
		if err := a.Packets(ctx, q, func() {}, nil); !errors.As(err, new(*api.BusyError)) {
			t.Errorf("a second capture: %v", err)
		}
		src.Capture(observetest.Deny(observetest.TCP(0, 1, 2, 81), 1, 0), []byte("another port"))
		for i := range 100 { // the ring has room for 64, and allowed ones take none
			src.Capture(observetest.Deny(observetest.TCP(i, 1, 2, 80), 1, 0), []byte("packet"))
			src.Capture(observetest.TCP(i, 1, 2, 80), []byte("allowed"))
		}
	}, func(p *api.Packet) error {
		if p == nil {
			return nil
		}
		if p.Flow == nil {
			if told = *p; told.Lost == 100+1-64 && uint64(got)+told.Omitted == 63 {
				cancel()
			}
			return nil
		}
		got++
		if p.Flow.Verdict != "deny" || p.Flow.Dst.Port != 80 || p.Flow.Node != "n" || string(p.Data) != "pack" || p.Length != 6 {
			t.Errorf("%+v of %+v", p, p.Flow)
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || got < 10 || got > 64 {
		t.Errorf("%v: %d packets, %+v", err, got, told)
	}
	if src.Capture(observetest.Deny(observetest.TCP(0, 1, 2, 80), 1, 0), nil) {
		t.Error("the capture goes on")
	}
}

// A flood of allowed packets takes nothing of the denied ones' rate.
func TestPacketsApart(t *testing.T) {
	a, src := packetAgent(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	const rate = 5
	got, seen := map[string]int{}, uint64(0)
	err := a.Packets(ctx, api.PacketQuery{SnapLen: 4, MaxRate: rate}, func() {
		for i := range 20 {
			passed := observetest.TCP(i, 1, 2, 80)
			passed.Kind = event.Passed
			if !src.Capture(passed, []byte("packet")) {
				t.Error("packets of allowed flows are not asked for")
			}
		}
		for i := range 20 {
			src.Capture(observetest.Deny(observetest.TCP(i, 1, 2, 81), 1, 0), []byte("packet"))
		}
	}, func(p *api.Packet) error {
		if p == nil {
			return nil
		}
		if p.Flow != nil {
			got[p.Flow.Event]++
			seen++
		}
		if seen+p.Omitted == 40 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || got["denied"] < rate || got["passed"] < rate {
		t.Errorf("%v: %v", err, got)
	}
}

func TestPacketsRefused(t *testing.T) {
	a, _ := packetAgent(t)
	for _, q := range []api.PacketQuery{
		{SnapLen: 0, MaxRate: 1}, {SnapLen: 4096, MaxRate: 1}, {SnapLen: 64}, {SnapLen: 64, MaxRate: 1, Allow: json.RawMessage(`{}`)},
		{SnapLen: 64, MaxRate: 1, Deny: json.RawMessage(`[{"http_method":["GET"]}]`)}, {SnapLen: 64, MaxRate: 1, Allow: json.RawMessage(`[{"source_ip":["10.0.0.0/99"]}]`)},
	} {
		err := a.Packets(t.Context(), q, func() { t.Errorf("%+v: opened", q) }, func(*api.Packet) error { return errors.New("visited") })
		if !errors.As(err, new(*api.RequestError)) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if _, err := a.Explain(t.Context(), api.Question{}); err == nil {
		t.Error("an agent without an explainer explains")
	}
}
