package dataplane

import (
	"slices"
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

// A capture has each denied packet and each allowed one that the worker sees, once,
// or of the allowed ones only what opened a flow.
func TestCapture(t *testing.T) {
	for name, c := range map[string]struct {
		want    event.Interest
		allowed []event.Kind
		replies int
	}{
		"all":     {event.WantAll | event.WantPassed, []event.Kind{event.NewFlow, event.Passed, event.Passed, event.Passed}, 1},
		"opening": {event.WantAll, []event.Kind{event.NewFlow}, 0},
		"denied":  {event.WantDenied, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTestWorker(t)
			capture, err := event.NewCapture(8, 64, c.want)
			if err != nil {
				t.Fatal(err)
			}
			w.capture.Store(capture)
			denied := opening(81).frame(t)
			for range 3 {
				w.judgeOne(denied)
			}
			w.judgeOne(opening(80).frame(t))
			back := bToA(80)
			back.syn, back.ack = true, true
			w.judgeOne(back.frame(t))
			data := aToB(80)
			data.ack = true
			w.judgeOne(data.frame(t))
			w.judgeOne(data.frame(t))
			var kinds []event.Kind
			n, replies := 0, 0
			capture.Read(func(rec *event.Record, length int, data []byte) {
				if length != len(denied)-14 || data[0]>>4 != 4 {
					t.Errorf("%d bytes of an IPv%d packet, want %d", length, data[0]>>4, len(denied)-14)
				}
				if rec.Reply {
					replies++
				}
				switch {
				case rec.Allowed:
					kinds = append(kinds, rec.Kind)
				case len(kinds) > 0 || rec.Kind != event.Denied:
					t.Errorf("a denied packet after allowed ones, or of kind %d", rec.Kind)
				default:
					n++
				}
			})
			if n != 3 || replies != c.replies || !slices.Equal(kinds, c.allowed) || capture.Lost() != 0 {
				t.Errorf("%d denied, %d replies, allowed %v, %d lost; want 3, %d, %v and none", n, replies, kinds, capture.Lost(), c.replies, c.allowed)
			}
		})
	}
}
