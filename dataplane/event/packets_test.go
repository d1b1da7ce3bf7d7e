package event_test

import (
	"bytes"
	"testing"

	"github.com/sluice-net/sluice/dataplane/event"
)

func TestPacketRing(t *testing.T) {
	for _, c := range []struct{ packets, snap int }{{0, 8}, {3, 8}, {4, 0}, {4, 4096}} {
		if _, err := event.NewPacketRing(c.packets, c.snap, event.WantAll); err == nil {
			t.Errorf("%d packets of %d bytes: no error", c.packets, c.snap)
		}
	}
	r, err := event.NewPacketRing(4, 8, event.WantAll)
	if err != nil {
		t.Fatal(err)
	}
	long := []byte("longer than eight")
	next := 0
	for round := range 3 {
		for i := range 5 + round {
			r.Put(record(10*round+i), len(long)-i, long[:len(long)-i])
		}
		want := 10 * round
		r.Read(func(rec *event.Record, length int, data []byte) {
			if !isRecord(rec, want) || length != len(long)-want%10 || !bytes.Equal(data, long[:8]) {
				t.Errorf("round %d: record %d of %d bytes %q, want %d", round, rec.TimeNs, length, data, want)
			}
			want++
			next++
		})
	}
	if next != 12 || r.Lost() != 1+2+3 {
		t.Errorf("%d read, %d lost, want 12 and 6", next, r.Lost())
	}
}

func TestInterest(t *testing.T) {
	for _, c := range []struct {
		rec  event.Record
		want event.Interest
	}{
		{event.Record{Kind: event.NewFlow, Allowed: true}, event.WantNew},
		{event.Record{Kind: event.Changed, Allowed: true}, event.WantChanged},
		{event.Record{Kind: event.Changed}, event.WantDenied},
		{event.Record{Kind: event.Denied}, event.WantDenied},
		{event.Record{Kind: event.Ended, Allowed: true}, event.WantEnded},
	} {
		if !c.want.Wants(&c.rec) || (event.WantAll &^ c.want).Wants(&c.rec) {
			t.Errorf("kind %d, allowed %v: not by %b alone", c.rec.Kind, c.rec.Allowed, c.want)
		}
	}
}
