package dataplane

import (
	"testing"
	"time"

	"github.com/sluice-net/sluice/dataplane/event"
)

func (w *testWorker) denials() (records []event.Record) {
	w.denies.Flush()
	buf := make([]event.Record, 64)
	for n := w.denies.Read(buf); n > 0; n = w.denies.Read(buf) {
		records = append(records, buf[:n]...)
	}
	return records
}

func opening(port uint16) segment {
	s := aToB(port)
	s.syn = true
	return s
}

// Each denied packet is in exactly one record: as its own, or in the count of
// another one, at the latest when its flow has been silent for a while.
func TestDeniedAreCounted(t *testing.T) {
	w := newTestWorker(t)
	w.nowNs = int64(time.Hour)
	w.cfg.DenyReport = time.Second
	f := opening(81).frame(t)
	total := 0
	send := func(n int) {
		for range n {
			w.judgeOne(f)
		}
		total += n
	}
	told := 0
	check := func(records int) {
		t.Helper()
		got := w.denials()
		for _, r := range got {
			told += 1 + int(r.Suppressed)
			if r.Kind != event.Denied || r.Allowed {
				t.Errorf("record %+v", r)
			}
		}
		if len(got) != records {
			t.Errorf("%d records, want %d", len(got), records)
		}
	}
	send(10)
	check(1)
	w.nowNs += int64(2 * time.Second)
	send(5)
	check(1)
	if told != 1+1+9 {
		t.Errorf("%d packets told of, want 11", told)
	}
	w.nowNs += int64(2 * time.Second)
	for range reportSlots / reportScan {
		w.reportSuppressed()
	}
	check(1)
	if told != total {
		t.Errorf("%d packets told of, %d sent", told, total)
	}
	for range reportSlots / reportScan {
		w.reportSuppressed()
	}
	check(0)
}

func TestInterestIsHeeded(t *testing.T) {
	w := newTestWorker(t)
	w.interest.Store(uint32(event.WantDenied))
	w.judgeOne(opening(80).frame(t))
	w.judgeOne(opening(81).frame(t))
	w.events.Flush()
	if n := w.events.Read(make([]event.Record, 4)); n != 0 {
		t.Errorf("%d events of allowed flows", n)
	}
	if n := len(w.denials()); n != 1 {
		t.Errorf("%d denials, want 1", n)
	}
}

func TestCapture(t *testing.T) {
	w := newTestWorker(t)
	ring, err := event.NewPacketRing(8, 64, event.WantAll)
	if err != nil {
		t.Fatal(err)
	}
	w.capture.Store(ring)
	f := opening(81).frame(t)
	for range 3 {
		w.judgeOne(f)
	}
	w.judgeOne(opening(80).frame(t))
	var allowed []bool
	ring.Read(func(rec *event.Record, length int, data []byte) {
		allowed = append(allowed, rec.Allowed)
		if length != len(f)-14 || data[0]>>4 != 4 {
			t.Errorf("%d bytes of an IPv%d packet, want %d", length, data[0]>>4, len(f)-14)
		}
	})
	if len(allowed) != 4 || allowed[0] || !allowed[3] {
		t.Errorf("captured, allowed or not: %v", allowed)
	}
}
